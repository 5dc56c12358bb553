"""The `generate` command, with a pipeline that draws at once in place of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.recipes.png import read_recipe
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
        "prompt": {"used": 5, "limit": 77, "chunks": 1, "unknown": [], "nearest": {}},
        "negative": {"used": 3, "limit": 77, "chunks": 1, "unknown": [], "nearest": {}},
    }
    assert report["evals"] == 3
    assert set(report["seconds"]) == {"load", "encode", "denoise", "decode"}
    assert report["peak_memory_mb"] is None or report["peak_memory_mb"] > 1
    assert set(report) == {
        *("images", "request", "tokens", "model", "sampler", "evals", "passes", "reused", "runs", "seconds"),
        "peak_memory_mb",
    }


@pytest.mark.usefixtures("pipeline")
def test_generate_takes_sigmas_and_names_of_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("--sigmas", "14.6, 7,3")
    _, out, _ = run(capsys, "generate", "x", "--sampler", "DPM++ 2M SDE Heun", *typed, "--json")
    report = json.loads(out)
    request = report["request"]
    assert (request["sampler"], request["sigmas"], request["steps"]) == (
        "dpmpp_2m_sde",
        [14.6, 7.0, 3.0, 0.0],
        3,
    )
    assert request["options"]["solver"] == "heun"
    (path,) = report["images"]
    _, out, _ = run(capsys, "generate", "--from", path, "--json")
    assert json.loads(out)["request"] == request
    for more, steps in ((("--schedule", "karras"), 3), (("--steps", "5"), 5), (("--sigmas", "9,1"), 2)):
        _, out, _ = run(capsys, "generate", "--from", path, *more, "--json")
        again = json.loads(out)["request"]
        assert (again["steps"], again.get("sigmas")) == (
            steps,
            [9.0, 1.0, 0.0] if "--sigmas" in more else None,
        )


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

    monkeypatch.setattr("ui.commands.generate.random_seed", lambda: 123)
    _, out, _ = run(capsys, "generate", "--from", "outputs/000001.png", "--seed", "random", "--json")
    assert json.loads(out)["request"]["seed"] == 123


def test_other_weights_and_a_missing_device_are_warned_of(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "generate", "a star")
    monkeypatch.setattr(pipeline, "sha256", "1" * 64)
    code, _, err = run(capsys, "generate", "--from", "outputs/000001.png")
    assert code == 0
    assert "warning: the image was made with other weights of fake" in err

    recipe = read_recipe("outputs/000001.png")
    monkeypatch.setattr("core.recipes.png.read_recipe", lambda _: recipe_on(recipe, "xpu"))
    code, _, err = run(capsys, "generate", "--from", "outputs/000001.png")
    assert code == 0
    assert "warning: the image was made on xpu" in err
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
        (["--sigmas", "3,7"], "sigmas: 7 after 3"),
        (["--sigmas", "7,3", "--steps", "9"], "make 2 steps; leave steps out"),
        (["--sigmas", "7,3", "--schedule", "karras"], "--schedule and --sigmas exclude each other"),
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


def picture(path: str, size: tuple[int, int] = (96, 64)) -> str:
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 40).convert("RGB").save(path)
    return path


def white_mask(path: str, size: tuple[int, int] = (96, 64)) -> str:
    mask = Image.new("L", size)
    mask.paste(255, (8, 8, 40, 40))
    mask.save(path)
    return path


@pytest.mark.usefixtures("pipeline")
def test_generate_takes_a_picture_and_all_that_is_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys,
        *("generate", "a star", "--image", picture("in.png"), "--strength", "0.5", "--resize", "pad"),
        *("--mask", white_mask("mask.png"), "--mask-blur", "2", "--only-masked", "16", "--invert-mask"),
        *("--masked-content", "fill", "--keep-unmasked", "--outpaint", "left=8,down=16"),
        *("--cfg-rescale", "0.7", "--cfg-interval", "0.1:0.8", "--json"),
        *("--feature-reuse", "3", "--token-merging", "0.5"),
    )
    assert code == 0
    request = json.loads(out)["request"]
    assert len(request.pop("image_sha256")) == len(request.pop("mask_sha256")) == 64
    expected = {
        "strength": 0.5,
        "resize": "pad",
        "mask_blur": 2,
        "only_masked": 16,
        "invert_mask": True,
        "masked_content": "fill",
        "keep_unmasked": True,
        "outpaint": [8, 0, 0, 16],
        "cfg_rescale": 0.7,
        "cfg_from": 0.1,
        "cfg_to": 0.8,
        "feature_reuse": 3,
        "token_merging": 0.5,
    }
    assert {name: request[name] for name in expected} == expected


@pytest.mark.usefixtures("pipeline")
def test_the_size_comes_from_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "generate", "x", "--image", picture("in.png", (90, 70)), "--json")
    request = json.loads(out)["request"]
    assert (request["width"], request["height"], request["strength"]) == (88, 72, 0.75)
    _, out, _ = run(capsys, "generate", "x", "--image", "in.png", "--size", "64x128", "--json")
    assert (json.loads(out)["request"]["width"], json.loads(out)["request"]["height"]) == (64, 128)


@pytest.mark.usefixtures("pipeline")
def test_a_picture_can_be_painted_beyond_its_edges(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "generate", "a star", "--size", "96x64", "--seed", "5")
    first = "outputs/000001.png"
    wider = ("generate", "--from", first, "--image", first, "--outpaint", "left=32,up=8")
    _, out, _ = run(capsys, *wider, "--json")
    request = json.loads(out)["request"]
    assert (request["width"], request["height"], request["seed"]) == (128, 72, 5)
    again = run(capsys, "generate", "--from", "outputs/000002.png", "--image", first, "--json")
    assert json.loads(again[1])["request"] == request


def test_from_needs_the_recipes_pictures(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = ("--image", picture("in.png"), "--mask", white_mask("mask.png"))
    run(capsys, "generate", "a star", *pictures, "--seed", "5", "--steps", "4", "--keep-unmasked")
    first, loaded = "outputs/000001.png", len(pipeline.loaded)

    sentence = failure(capsys, "generate", "--from", first)
    assert sentence.startswith("the recipe needs an init image")
    assert sentence.endswith("give it with --image")
    assert "the recipe needs a mask" in failure(capsys, "generate", "--from", first, "--image", "in.png")
    assert len(pipeline.loaded) == loaded

    code, out, err = run(capsys, "generate", "--from", first, *pictures)
    assert code == 0
    assert "warning" not in err
    assert Path(out.strip()).read_bytes() == Path(first).read_bytes()

    other = ("--image", picture("other.png", (48, 32)), "--mask", "mask.png")
    code, _, err = run(capsys, "generate", "--from", first, *other, "--no-keep-unmasked")
    assert code == 0
    assert "warning: the recipe had another image (SHA-256 of its pixels " in err
    assert "another mask" not in err
    assert not read_recipe("outputs/000003.png").settings.keep_unmasked


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--strength", "0.5"], "strength 0.5: has no effect without an init image"),
        (["--image", "in.png", "--strength", "0"], "strength 0"),
        (["--image", "in.png", "--strength", "0.01", "--steps", "20"], "raise it to 0.05"),
        (["--image", "nowhere.png"], "nowhere.png: there is no such file"),
        (["--image", "text.png"], "text.png: is not an image of a known format"),
        (["--mask", "mask.png"], "without an init image"),
        (["--image", "in.png", "--mask", "text.png"], "text.png: is not an image"),
        (["--image", "in.png", "--mask", "narrow.png"], "the mask is 20x64 and the image 96x64"),
        (["--image", "in.png", "--mask", "black.png"], "the mask is all black"),
        (["--image", "in.png", "--mask-blur", "3"], "mask blur 3: has no effect without a mask"),
        (["--image", "in.png", "--mask", "mask.png", "--mask-blur", "99"], "mask blur 99"),
        (
            ["--image", "in.png", "--mask", "mask.png", "--masked-content", "x"],
            "original, fill, noise or nothing",
        ),
        (["--image", "in.png", "--mask", "mask.png", "--only-masked", "-1"], "only masked -1"),
        (["--image", "in.png", "--resize", "fit"], "must be stretch, crop or pad"),
        (["--image", "in.png", "--outpaint", "lft=8"], "did you mean 'left'"),
        (["--image", "in.png", "--outpaint", "left=8,left=9"], "left is given twice"),
        (["--outpaint", "left=8"], "has no effect without an init image"),
        (["--cfg-rescale", "2"], "cfg rescale 2"),
        (["--feature-reuse", "0"], "feature reuse 0: must be a whole number between 1 and 20"),
        (["--token-merging", "0.8"], "token merging 0.8: must be a number between 0 and 0.75"),
        (["--cfg-interval", "0.5"], "write it as FROM:TO"),
        (["--cfg-interval", "0.8:0.1"], "cfg from 0.8 to 0.1: must rise"),
    ],
)
def test_bad_pictures_are_one_sentence_before_anything_is_loaded_or_written(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    picture("in.png")
    white_mask("mask.png")
    Image.new("L", (20, 64), 255).save("narrow.png")
    Image.new("L", (96, 64)).save("black.png")
    Path("text.png").write_text("no picture")
    assert sentence in failure(capsys, "generate", "a red circle", *arguments)
    assert pipeline.loaded == []
    assert not Path("outputs").exists()
