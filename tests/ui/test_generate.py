"""The `generate` command, with a pipeline that draws at once in place of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.images import read_recipe
from tests.ui.commandline import LoadedPipeline, failure, run


@pytest.mark.usefixtures("pipeline")
def test_generate_saves_pictures_and_prints_their_paths(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "generate", "a red circle", "--batch", "2", "--seed", "7")

    paths = [Path(line) for line in out.splitlines()]
    assert code == 0
    assert paths == [Path("outputs/000001.png"), Path("outputs/000002.png")]
    assert [read_recipe(path).settings.seed for path in paths] == [7, 8]
    assert "seed 7" in err


@pytest.mark.usefixtures("pipeline")
def test_generate_takes_every_option_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys,
        *(
            "generate",
            "a red circle",
            "--negative",
            "blue",
            "--clip-skip",
            "2",
            "--sampler",
            "ddim",
            "--schedule",
            "karras",
        ),
        *("--steps", "3", "--cfg-scale", "2.5", "--seed", "1", "--size", "128x64", "--batch", "2"),
        *("--option", "eta=0.5", "--out", "here/there", "--json"),
    )

    assert code == 0
    report = json.loads(out)
    assert report["request"] == {
        "prompt": "a red circle",
        "negative": "blue",
        "clip_skip": 2,
        "sampler": "ddim",
        "schedule": "karras",
        "steps": 3,
        "cfg_scale": 2.5,
        "width": 128,
        "height": 64,
        "batch": 2,
        "seed": 1,
        "options": {"eta": 0.5},
    }
    assert [Path(path) for path in report["images"]] == [Path(f"here/there/00000{i}.png") for i in (1, 2)]
    assert report["model"] == {"name": "fake", "sha256": "0" * 64}
    assert report["sampler"] == {"name": "ddim", "plugin": "latentcanvas", "version": "0"}
    assert report["tokens"] == {
        "prompt": {"used": 5, "limit": 77, "chunks": 1, "unknown": []},
        "negative": {"used": 3, "limit": 77, "chunks": 1, "unknown": []},
    }
    assert report["evals"] == 3
    assert set(report["seconds"]) == {"load", "encode", "denoise", "decode"}
    assert report["peak_memory_mb"] is None or report["peak_memory_mb"] > 1
    assert set(report) == {
        *("images", "request", "tokens", "model", "sampler", "evals", "seconds", "peak_memory_mb"),
    }


def test_generate_takes_model_device_and_dtype(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "generate", "x", "--model", "folder", "--device", "cuda:1", "--dtype", "float16")
    run(capsys, "generate", "x")
    assert pipeline.loaded == [("folder", "cuda:1", "float16"), ("tiny", None, None)]


def test_from_makes_the_picture_again(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        capsys,
        "generate",
        "a star",
        "--negative",
        "red",
        "--seed",
        "5",
        "--steps",
        "4",
        "--option",
        "eta=0.5",
    )
    first = Path("outputs/000001.png")
    code, out, err = run(capsys, "generate", "--from", str(first))

    assert code == 0
    assert Path(out.strip()).read_bytes() == first.read_bytes()
    assert "warning" not in err
    assert pipeline.loaded[-1] == ("fake", "cpu", "float32")


@pytest.mark.usefixtures("pipeline")
def test_what_is_typed_wins_over_the_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        capsys,
        "generate",
        "a star",
        "--negative",
        "red",
        "--seed",
        "5",
        "--steps",
        "4",
        "--option",
        "eta=0.5",
    )
    _, out, _ = run(
        capsys,
        "generate",
        "a moon",
        "--from",
        "outputs/000001.png",
        "--seed",
        "6",
        "--negative",
        "",
        "--json",
    )
    request = json.loads(out)["request"]
    assert (request["prompt"], request["negative"], request["seed"]) == ("a moon", "", 6)
    assert (request["steps"], request["options"]) == (4, {"eta": 0.5})

    _, out, _ = run(capsys, "generate", "--from", "outputs/000001.png", "--sampler", "ddpm", "--json")
    request = json.loads(out)["request"]
    assert (request["sampler"], request["options"]) == ("ddpm", {})

    monkeypatch.setattr("core.request.random_seed", lambda: 123)
    _, out, _ = run(capsys, "generate", "--from", "outputs/000001.png", "--seed", "random", "--json")
    assert json.loads(out)["request"]["seed"] == 123


def test_other_weights_and_a_missing_device_are_warned_of(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "generate", "a star")
    monkeypatch.setattr(pipeline, "sha256", "1" * 64)
    code, _, err = run(capsys, "generate", "--from", "outputs/000001.png")
    assert code == 0
    assert "warning: the picture was made with other weights of fake" in err

    recipe = read_recipe("outputs/000001.png")
    monkeypatch.setattr("core.images.read_recipe", lambda _: recipe_on(recipe, "xpu"))
    code, _, err = run(capsys, "generate", "--from", "outputs/000001.png")
    assert code == 0
    assert "warning: the picture was made on xpu" in err
    assert pipeline.loaded[-1] == ("fake", None, None)


def recipe_on(recipe: Any, device: str) -> Any:
    from dataclasses import replace

    return replace(recipe, device=device)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", "0"], "steps 0: must be a whole number between 1 and 1000"),
        (["--steps", "many"], "'--steps'"),
        (["--size", "130x128"], "size 130x128"),
        (["--size", "130"], "write it as WIDTHxHEIGHT"),
        (["--seed", "text"], "seed 'text'"),
        (["--batch", "0"], "batch 0"),
        (["--cfg-scale", "nan"], "cfg scale nan"),
        (["--sampler", "ddmp"], "did you mean 'ddpm'"),
        (["--schedule", "kara"], "did you mean 'karras'"),
        (["--sampler", "ddim", "--option", "etta=1"], "did you mean 'eta'"),
        (["--sampler", "ddim", "--option", "eta=2"], "eta must be a number from 0 to 1"),
        (["--option", "eta"], "write it as NAME=VALUE"),
        (["--plugins-dir", "nowhere"], "nowhere"),
        (["--from", "nowhere.png"], "nowhere.png"),
        (["--colour", "red"], "No such option: --colour"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_loaded_or_written(
    pipeline: type[LoadedPipeline],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    assert sentence in failure(capsys, "generate", "a red circle", *arguments)
    assert pipeline.loaded == []
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_found_out_before_the_run(
    pipeline: type[LoadedPipeline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert "file" in failure(capsys, "generate", "x", "--out", "file/inside")
    assert pipeline.loaded == []


def test_a_picture_without_a_recipe_is_one_sentence(
    pipeline: type[LoadedPipeline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "photo.png" in failure(capsys, "generate", "--from", "photo.png")
    assert pipeline.loaded == []


@pytest.mark.usefixtures("pipeline")
def test_generate_needs_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no prompt" in failure(capsys, "generate")
