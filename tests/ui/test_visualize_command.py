"""`latentcanvas visualize`: files that are pictures, numbers for scripts, a sentence for what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.small import write_model
from tests.ui.commandline import failure, run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("models") / "small"))


def test_points_as_a_picture_and_as_a_film(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    png, gif = tmp_path / "forward.png", tmp_path / "new" / "forward.gif"
    code, out, _ = run(capsys, "visualize", "forward", "--t", "900", "--theme", "dark", "--out", str(png))
    assert code == 0
    assert "the noise is" in out
    assert out.splitlines()[-1] == str(png)
    with Image.open(png) as image:
        assert image.getpixel((2, 2)) == (12, 10, 9)
    assert run(capsys, "visualize", "forward", "--cloud", "spiral", "--out", str(gif))[0] == 0
    with Image.open(gif) as film:
        assert film.n_frames == 24  # pyrefly: ignore[missing-attribute]


def test_a_picture_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own, png = tmp_path / "own.png", tmp_path / "out.png"
    Image.new("RGB", (40, 20), "red").save(own)
    assert run(capsys, "visualize", "forward", "--image", str(own), "--out", str(png))[0] == 0
    assert png.exists()
    message = failure(capsys, "visualize", "forward", "--image", str(tmp_path / "no.png"), "--out", str(png))
    assert "no.png" in message


def test_numbers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "visualize", "schedules", "--strength", "0.5", "--steps", "8", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["written"] is None
    assert told["runs"] == 4
    assert told["starts_at"] == told["grids"]["leading"][4]


def test_samplers_walk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    png = tmp_path / "reverse.png"
    asked = ("--samplers", "heun, ddim", "--evals", "6", "--points", "50", "--at", "0.5", "--out", str(png))
    code, out, _ = run(capsys, "visualize", "reverse", *asked, "--json")
    told = json.loads(out)
    assert code == 0
    assert [(one["sampler"], one["evals"]) for one in told["descents"]] == [("heun", 5), ("ddim", 6)]
    assert png.exists()


def test_a_plugin_walks_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from ui.page.tabs.plugins import EXAMPLE

    (tmp_path / "my_euler.py").write_text(EXAMPLE)
    asked = ("--plugins-dir", str(tmp_path), "--samplers", "my_euler,euler", "--evals", "5", "--points", "50")
    code, out, _ = run(capsys, "visualize", "reverse", *asked, "--json")
    first, second = json.loads(out)["descents"]
    assert code == 0
    assert first["apart"] == pytest.approx(second["apart"], rel=1e-4)
    import core.plugins.current

    core.plugins.current.configure()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("forward",), "give a file to write"),
        (("forward", "--out", "x.jpg"), "must end in .png, or .gif"),
        (("schedules", "--out", "x.gif"), "this view has no animation"),
        (("forward", "--theme", "blue", "--json"), "must be light or dark"),
        (("forward", "--cloud", "moon", "--json"), "did you mean 'moons'"),
        (("forward", "--t", "1000", "--json"), "t 1000: must be between 0 and 999"),
        (("reverse", "--samplers", "dimm", "--json"), "did you mean 'ddim'"),
        (("ddpm", "--ddim-steps", "5,x", "--json"), "write numbers with commas between"),
        (("ddpm", "--ddim-steps", "0", "--json"), "steps 0: must be a whole number between"),
        (("guidance", "--scales", "1,200", "--json"), "cfg scale 200.0"),
        (("guidance", "one", "two", "--scales", "1", "--json"), "1 scale: give 2 to 12"),
        (("guidance", "one", "one", "--json"), "only once"),
        (("guidance", *"abcdefghijk", "--json"), "11 prompts at 6 scales are 66 images: at most 60"),
        (("guidance", "one", "two", "--at", "0.5", "--json"), "a grid shows finished images only"),
        (("guidance", "one", "--examples", "--json"), "give prompts or --examples"),
        (("guidance", "--examples", "--scales", "1,200", "--json"), "cfg scale 200.0"),
        (("interpolation", "--seeds", "1", "--json"), "give two, such as 1,2"),
        (("interpolation", "--image", "a.png", "--json"), "give --image and --to-image"),
        (("latents", "--image", "no-such.png", "--json"), "no-such.png"),
    ],
)
def test_bad_input_is_a_sentence_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "core.inference.pipeline", SimpleNamespace())
    assert words in failure(capsys, "visualize", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("latents", "--out", "a.png"),
        ("guidance", "a red circle", "--scales", "1,3", "--steps", "3", "--out", "a.gif"),
        ("guidance", "a red circle", "a star", "--scales", "1,3", "--steps", "2", "--out", "a.gif"),
        ("guidance", "--examples", "--scales", "1,3", "--steps", "2", "--out", "a.png"),
        (
            "interpolation",
            "a house",
            "--to",
            "a green star",
            "--count",
            "3",
            "--steps",
            "2",
            "--out",
            "a.gif",
        ),
        ("interpolation", "a house", "--count", "3", "--steps", "2", "--out", "a.png"),
        (
            *("interpolation", "--image", "scene", "--to-image", "scene", "--count", "3"),
            *("--steps", "2", "--strength", "1", "--out", "a.png"),
        ),
        ("ddpm", "a red circle", "--steps", "6", "--ddim-steps", "3", "--out", "a.png"),
    ],
)
def test_the_views_of_a_model(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("core.learn.ddpm.REFERENCE_STEPS", 5)
    code, out, err = run(capsys, "visualize", *arguments, "--model", model, "--device", "cpu", "--json")
    assert code == 0, err
    written = tmp_path / json.loads(out)["written"]
    with Image.open(written) as image:
        image.load()


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-model" in failure(capsys, "visualize", "latents", "--model", "no-such-model", "--json")
