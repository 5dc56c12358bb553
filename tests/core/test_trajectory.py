"""The steps of a run that are kept: what they hold, their file, and what a damaged one is answered with."""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.images.paste import Paste
from core.inference.pipeline import Pipeline
from core.inference.run import Run
from core.inference.trajectory import VIEWS, Trajectory
from tests.core.pictures import same
from tests.small import write_model

FIELDS: dict[str, Any] = {"prompt": "a house", "steps": 4, "cfg_scale": 3.0, "seed": 1}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


def ended(pipe: Pipeline, **changes: Any) -> Run:
    run = pipe.stream(**FIELDS | changes)
    run.result()
    return run


@pytest.fixture(scope="module")
def run(pipe: Pipeline) -> Run:
    return ended(pipe, batch=2, width=72)


@pytest.fixture
def path(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "000001.steps.safetensors"
    Trajectory.of(run).save(path)
    return path


def test_the_states_are_those_of_the_run_to_the_bit(run: Run, path: Path) -> None:
    kept = Trajectory.open(path)
    assert run.start is not None
    for k, x in enumerate([run.start, *(step.x for step in run.steps)]):
        assert torch.equal(kept.state(k), x)
        assert kept.sigma(k) == run.sigmas[k]
    assert (kept.settings, kept.total, kept.stopped) == (run.settings, 4, False)
    assert kept.recipe == run.model.recipe(run.settings.for_image(0))
    assert [(note.evals, note.passes) for note in kept.steps] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    assert kept.seconds == run.seconds


@pytest.mark.parametrize("image", [0, 1])
def test_every_view_is_what_the_step_says(run: Run, path: Path, image: int) -> None:
    kept = Trajectory.open(path)
    assert kept.views() == list(VIEWS)
    states = [run.start, *(step.x for step in run.steps)]
    for k, step in enumerate(run.steps, 1):
        before, u = states[k - 1], step.unconditional
        assert before is not None
        assert u is not None
        expected = {
            "clean": step.denoised,
            "noisy": step.x / math.sqrt(1 + step.sigma**2),
            "noise": (before - step.denoised) / run.sigmas[k - 1],
            "conditional": step.conditional,
            "unconditional": u,
            "difference": step.conditional - u,
        }
        for view, latents in expected.items():
            found = kept.latents(k, view, image)
            assert found.dtype == torch.float32
            wanted = latents[image : image + 1]
            near = 0.13 if view == "noise" else 2**-6 * max(1.0, float(wanted.abs().max()))
            assert float((found - wanted).abs().max()) < near, view
        for view in ("clean", "noisy"):
            assert kept.preview(k, view, image).size == (72, 64)
    assert same(kept.preview(2, "noisy", image), run.steps[1].preview(image, "noisy"))


def test_a_file_costs_what_its_numbers_cost(path: Path) -> None:
    kept = Trajectory.open(path)
    values = 2 * 4 * 8 * 9
    own = sum(note.own for note in kept.steps)
    assert kept.nbytes == values * (5 * 4 + 4 * 2 + 4 * 2 + own * 2)
    assert path.stat().st_size < kept.nbytes + 5000


def test_an_image_alone(run: Run) -> None:
    kept = Trajectory.of(run)
    one = kept.alone(1)
    assert (one.settings.seed, one.settings.batch, one.recipe.settings) == (2, 1, one.settings)
    assert torch.equal(one.state(3), kept.state(3)[1:])
    assert torch.equal(one.latents(3, "unconditional"), kept.latents(3, "unconditional", 1))
    assert one.curves() == kept.curves(1)


def test_the_curves_end_at_the_picture(run: Run) -> None:
    curves = Trajectory.of(run).curves()
    assert curves["sigma"] == [step.sigma for step in run.steps]
    assert all(len(values) == 4 for values in curves.values())
    assert all(value > 0 for value in curves["guidance"])
    assert curves["distance"][-1] < 0.02 < curves["distance"][0]


def test_without_guidance_two_views_are_missing(pipe: Pipeline) -> None:
    kept = Trajectory.of(ended(pipe, cfg_scale=1))
    assert kept.views() == ["clean", "noisy", "noise", "conditional"]
    assert set(kept.tensors) == {"state", "conditional"}
    assert torch.equal(kept.latents(2, "clean"), kept.latents(2, "conditional"))


def test_a_step_without_guidance_among_others(pipe: Pipeline) -> None:
    run = ended(pipe, cfg_from=0.25, cfg_to=0.75)
    kept = Trajectory.of(run)
    assert [note.scale for note in kept.steps] == [None, 3.0, 3.0, None]
    assert len(kept.tensors["unconditional"]) == 2
    assert not kept.latents(1, "difference").any()
    assert not kept.latents(4, "difference").any()
    for k, step in enumerate(run.steps, 1):
        torch.testing.assert_close(kept.latents(k, "clean"), step.denoised, rtol=5e-2, atol=5e-2)
        wanted = step.conditional if step.unconditional is None else step.unconditional
        torch.testing.assert_close(kept.latents(k, "unconditional"), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{"cfg_rescale": 1.0, "cfg_scale": 100.0}, {"cfg_scale": 100.0}])
def test_a_clean_estimate_that_does_not_follow_is_kept_too(pipe: Pipeline, changes: dict[str, Any]) -> None:
    run = ended(pipe, **changes)
    kept = Trajectory.of(run)
    assert all(note.own for note in kept.steps)
    for k, step in enumerate(run.steps, 1):
        assert step.unconditional is not None
        torch.testing.assert_close(kept.latents(k, "clean"), step.denoised, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_sde", "dpm_adaptive", "euler_cfg_pp", "restart", "plms"])
def test_samplers_of_every_kind(pipe: Pipeline, tmp_path: Path, sampler: str) -> None:
    run = ended(pipe, sampler=sampler)
    kept = Trajectory.of(run)
    kept.save(tmp_path / "a.safetensors")
    again = Trajectory.open(tmp_path / "a.safetensors")
    assert len(again.steps) == len(run.steps)
    assert again.steps[-1].evals == run.steps[-1].evals
    last = len(run.steps)
    assert torch.equal(again.state(last), run.steps[-1].x)
    for view in again.views():
        assert again.preview(last, view).size == (64, 64)
    for k, step in enumerate(run.steps, 1):
        near = 2**-6 * max(1.0, float(step.denoised.abs().max()))
        assert float((again.latents(k, "clean") - step.denoised).abs().max()) <= near


def test_what_was_made_until_a_run_was_closed(pipe: Pipeline) -> None:
    run = pipe.stream(**FIELDS)
    with pytest.raises(ValueError, match="no steps to save"):
        Trajectory.of(run)
    next(run), next(run)
    run.close()
    kept = Trajectory.of(run)
    assert (len(kept.steps), kept.total, kept.stopped) == (2, 4, True)
    assert kept.curves()["distance"][-1] == 0


def test_a_run_that_kept_its_last_step_alone_is_refused(pipe: Pipeline) -> None:
    run = pipe.stream(**FIELDS, keep_steps=False)
    run.result()
    with pytest.raises(ValueError, match="keep_steps"):
        Trajectory.of(run)


def test_a_step_or_view_that_is_not_there(run: Run) -> None:
    kept = Trajectory.of(run)
    for k in (0, 5):
        with pytest.raises(IndexError):
            kept.latents(k)
    with pytest.raises(ValueError, match="a view is one of"):
        kept.latents(1, "blue")


# Files that are damaged, or that someone made.


def test_a_file_that_is_cut_short_anywhere(path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="choose another file"):
            Trajectory.open(path)


def test_another_file_and_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such steps file"):
        Trajectory.open(tmp_path / "none")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(UserError, match="LatentCanvas did not write it"):
        Trajectory.open(other)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["format"], 2),
        (["format"], None),
        (["settings", "seed"], 5),
        (["settings", "steps"], "many"),
        (["steps"], []),
        (["steps", 1, 1], 0.0),
        (["steps", 1, 1], "x"),
        (["steps", 0, 4], None),
        (["steps", 2], [2, 1.0]),
        (["preview_map"], [[0, 0, 0]]),
        (["preview_map", 0, 0], float("nan")),
        (["cell"], 4),
        (["total"], -1),
        (["stopped"], "no"),
        (["words"], 3),
        (["seconds"], [1]),
        (["recipe", "model"], {}),
        ([], []),
    ],
)
def test_notes_that_are_not_sound(path: Path, place: list[Any], value: Any) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["latentcanvas"])
    holder, *keys = [notes], 0, *place
    at: Any = holder
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    save_file(load_file(path), path, {"latentcanvas": json.dumps(holder[0])})
    with pytest.raises(UserError, match="choose another file"):
        Trajectory.open(path)


@pytest.mark.parametrize("change", ["dtype", "missing", "shape", "short"])
def test_numbers_that_do_not_belong_to_the_notes(path: Path, change: str) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if change == "dtype":
        tensors["conditional"] = tensors["conditional"].float()
    elif change == "missing":
        del tensors["unconditional"]
    elif change == "shape":
        tensors["state"] = tensors["state"][..., :8].contiguous()
    else:
        tensors["unconditional"] = tensors["unconditional"][:3].contiguous()
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="is damaged"):
        Trajectory.open(path)


def test_saving_where_it_cannot_be_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder does not exist"):
        Trajectory.of(run).save(tmp_path / "none" / "a")


def test_a_file_outlives_its_name(path: Path) -> None:
    kept = Trajectory.open(path)
    wanted = kept.state(2).clone()
    shutil.move(path, path.with_name("b"))
    assert torch.equal(kept.state(2), wanted)


def paste_png(size: tuple[int, int], mode: str = "RGBA") -> bytes:
    """A PNG of 4x4 pixels that says it has another size."""
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "box", "inner", "png"),
    [
        ([65536, 65536], [0, 0, 4, 4], None, paste_png((4, 4))),  # what is made would be made that large
        ([4, 4], [0, 0, 4, 4], None, paste_png((60_000, 60_000))),
        ([8192, 8192], [0, 0, 8192, 8192], None, paste_png((8192, 8191))),
        ([4, 4], [0, 0, 4, 4], [0, 0, 5, 4], paste_png((4, 4))),
        ([4, 4], [0, 0, 5, 4], None, paste_png((4, 4))),
        ([4, 4], [2, 0, 2, 4], None, paste_png((4, 4))),
        ([4, 4], [0, 0, 4, 4], None, paste_png((4, 4), "RGB")),
        ([4, 4], [0, 0, 4, 4], None, paste_png((4, 4))[:40]),
        ([4, 4], [0, 0, 4, 4], None, b"not a picture"),
    ],
    ids=["size", "bomb", "another", "inner", "outside", "empty", "opaque", "cut", "none"],
)
def test_a_picture_around_the_mask_that_is_none(size: Any, box: Any, inner: Any, png: bytes) -> None:
    sound = Paste.read({"size": [4, 4], "box": [0, 0, 4, 4], "inner": None}, paste_png((4, 4)))
    assert sound.canvas.size == (4, 4)
    with pytest.raises(ValueError, match=r"image|box"):
        Paste.read({"size": size, "box": box, "inner": inner}, png)
