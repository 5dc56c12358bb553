"""Keeping the steps of a run on the command line, looking at them, branching, and verifying."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from core.images.saved_inputs import keep_inputs
from core.images.source_images import Inputs
from core.inference.trajectory import Trajectory
from core.recipes.png import read_recipe
from tests.core.pictures import noise, same
from tests.small import write_model
from tests.ui.commandline import failure, run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def options(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    return ("--model", str(model), "--device", "cpu", "--seed", "3", "--steps", "4", "--sampler", "euler_a")


def made(capsys: Capture, *arguments: str) -> list[Path]:
    code, out, _ = run(capsys, "generate", *arguments)
    assert code == 0
    return [Path(line) for line in out.splitlines()]


def test_steps_are_written_beside_the_first_picture(capsys: Capture, options: tuple[str, ...]) -> None:
    *pictures, steps = made(capsys, "a house", *options, "--batch", "2", "--keep-steps")
    assert [path.name for path in pictures] == ["000001.png", "000002.png"]
    assert steps == Path("outputs/000001.steps.safetensors")
    trajectory = Trajectory.open(steps)
    assert trajectory.recipe == read_recipe(pictures[0])
    assert (trajectory.batch, len(trajectory.steps)) == (2, 4)
    code, out, _ = run(capsys, "generate", "a house", *options, "--keep-steps", "--json")
    assert code == 0
    assert json.loads(out)["steps"] == "outputs/000003.steps.safetensors"


def test_the_steps_as_a_table_files_and_json(
    capsys: Capture, options: tuple[str, ...], tmp_path: Path
) -> None:
    picture, file = made(capsys, "a house", *options, "--keep-steps")
    code, out, _ = run(capsys, "steps", str(picture))
    assert code == 0
    assert out.startswith("a house: euler_a, 4 steps\n")
    assert "distance" in out
    code, out, _ = run(capsys, "steps", str(file), "--gif", "a.gif", "--sheet", "b.png", "--view", "noise")
    assert (code, out) == (0, "a.gif\nb.png\n")
    with Image.open("a.gif") as gif, Image.open("b.png") as sheet:
        assert (gif.n_frames, sheet.format) == (4, "PNG")  # pyrefly: ignore[missing-attribute]
    code, out, _ = run(capsys, "steps", str(picture), "--json")
    found = json.loads(out)
    assert [step["evals"] for step in found["steps"]] == [1, 2, 3, 4]
    assert found["views"][0] == "clean"


def test_what_there_is_not(capsys: Capture, options: tuple[str, ...]) -> None:
    [plain] = made(capsys, "a house", *options, "--cfg-scale", "1")
    assert "generate it again with --keep-steps" in failure(capsys, "steps", str(plain))
    _, file = made(capsys, "a house", *options, "--cfg-scale", "1", "--keep-steps")
    assert "must be one of" in failure(capsys, "steps", str(file), "--view", "blue")
    assert "had no guidance" in failure(capsys, "steps", str(file), "--view", "difference")
    assert "must be between 1 and 1" in failure(capsys, "steps", str(file), "--image", "2")
    assert "there is no such steps file" in failure(capsys, "steps", "none.steps.safetensors")


def test_verify_with_and_without_steps(capsys: Capture, options: tuple[str, ...], model: Path) -> None:
    picture, file = made(capsys, "a house", *options, "--keep-steps")
    place = ("--model", str(model))
    code, out, _ = run(capsys, "verify", str(picture), *place)
    assert (code, out) == (0, "identical: 4 steps and the image, to the bit.\n")
    code, out, _ = run(capsys, "verify", str(file), *place, "--json")
    assert (code, json.loads(out)["identical"]) == (0, True)
    file.rename("elsewhere")
    code, out, _ = run(capsys, "verify", str(picture), *place)
    assert (code, out) == (0, "identical: the image, to the bit.\n")
    [other] = made(capsys, "a red circle", *options)
    Path("elsewhere").rename(other.with_suffix(".steps.safetensors"))
    assert "has the steps of another image" in failure(capsys, "verify", str(other), *place)


def test_verify_says_what_differs(capsys: Capture, options: tuple[str, ...], tmp_path: Path) -> None:
    picture, _ = made(capsys, "a house", *options, "--keep-steps")
    other = write_model(tmp_path / "small", seed=8)
    code, out, err = run(capsys, "verify", str(picture), "--model", str(other))
    assert code == 1
    assert out.startswith("differs from step 1 on (sigma ")
    assert "Changed since: model hash " in out
    assert "other weights" in err


def test_stop_after_and_on_to_the_end(capsys: Capture, options: tuple[str, ...]) -> None:
    [cut] = made(capsys, "a house", *options, "--stop-after", "2")
    [whole] = made(capsys, "a house", *options)
    assert read_recipe(cut).settings.stop_after == 2
    place = options[:4]
    [again] = made(capsys, "--from", str(cut), *place)
    assert again.read_bytes() == cut.read_bytes()
    [on] = made(capsys, "--from", str(cut), *place, "--stop-after", "0")
    assert on.read_bytes() == whole.read_bytes()
    assert "the run has 4 steps" in failure(capsys, "generate", "a house", *options, "--stop-after", "5")


def test_a_branch_from_a_picture(capsys: Capture, options: tuple[str, ...]) -> None:
    [parent] = made(capsys, "a house", *options)
    place = options[:4]
    [child] = made(capsys, "a large green star", "--from", str(parent), "--branch", "2", *place)
    settings = read_recipe(child).settings
    assert settings.branch is not None
    assert (settings.prompt, settings.branch.step) == ("a large green star", 2)
    assert settings.branch.settings == read_recipe(parent).settings
    [again] = made(capsys, "--from", str(child), *place)
    assert again.read_bytes() == child.read_bytes()
    [unchanged] = made(capsys, "--from", str(parent), "--branch", "2", *place)
    with Image.open(unchanged) as a, Image.open(parent) as b:
        assert same(a, b)
    assert "give its image with --from" in failure(capsys, "generate", "a house", *options, "--branch", "2")
    assert "nothing is left" in failure(capsys, "generate", "--from", str(parent), "--branch", "4", *place)
    wide = failure(capsys, "generate", "--from", str(parent), "--branch", "2", "--size", "128x64", *place)
    assert "width 128: a branch must use its parent's, 64" in wide


def test_verify_of_a_run_from_a_picture(capsys: Capture, options: tuple[str, ...]) -> None:
    noise((64, 64)).save("in.png")
    picture, _ = made(capsys, "a house", *options, "--image", "in.png", "--keep-steps")
    assert "give it with --image" in failure(capsys, "verify", str(picture), *options[:2])
    code, out, _ = run(capsys, "verify", str(picture), *options[:2], "--image", "in.png")
    assert (code, out) == (0, "identical: 3 steps and the image, to the bit.\n")


def test_what_the_page_kept_of_the_pictures_need_not_be_given(
    capsys: Capture, options: tuple[str, ...]
) -> None:
    noise((64, 64)).save("in.png")
    [picture] = made(capsys, "a house", *options, "--image", "in.png")
    inputs = Inputs.read("in.png")
    assert inputs is not None
    keep_inputs(picture.parent, inputs)
    code, out, _ = run(capsys, "verify", str(picture), *options[:2])
    assert (code, out) == (0, "identical: the image, to the bit.\n")
    [again] = made(capsys, "--from", str(picture), *options[:2])
    assert same(Image.open(again), Image.open(picture))
