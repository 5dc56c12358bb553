"""Running a recipe again: identical, or what differs, and from where."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from core.errors import Cancelled, UserError
from core.inference.pipeline import Pipeline
from core.inference.trajectory import Trajectory
from core.inference.verify import differences, verify
from core.recipes.png import read_recipe
from tests.core.pictures import box_mask, noise
from tests.core.recipes import RECIPE
from tests.small import write_model

FIELDS: dict[str, Any] = {"prompt": "a house", "steps": 4, "cfg_scale": 3.0, "seed": 1, "sampler": "euler_a"}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


def kept(pipe: Pipeline, **changes: Any) -> tuple[Trajectory, Image.Image]:
    run = pipe.stream(**FIELDS | changes)
    image = run.result().images[0]
    return Trajectory.of(run), image


@pytest.mark.parametrize("changes", [{}, {"batch": 2}, {"sampler": "dpm_adaptive"}, {"stop_after": 3}])
def test_identical(pipe: Pipeline, tmp_path: Path, changes: dict[str, Any]) -> None:
    trajectory, image = kept(pipe, **changes)
    trajectory.save(tmp_path / "a")
    verification = verify(pipe, Trajectory.open(tmp_path / "a"), picture=image)
    checks = list(verification)
    assert [check.step for check in checks] == list(range(len(trajectory.steps) + 1))
    assert {check.difference for check in checks} == {0.0}
    verdict = verification.verdict()
    assert verdict.identical
    assert verdict.words == f"identical: {len(trajectory.steps)} steps and the image, to the bit."
    assert (verdict.steps, verdict.pixels, verdict.setup) == (len(trajectory.steps), 0, ())


def test_a_branch_too(pipe: Pipeline) -> None:
    run = pipe.branch(kept(pipe)[0], 2, prompt="a large green star")
    image = run.result().images[0]
    verdict = verify(pipe, Trajectory.of(run), picture=image).verdict()
    assert (verdict.identical, verdict.steps) == (True, 4)


def test_the_first_step_that_differs(pipe: Pipeline) -> None:
    trajectory, image = kept(pipe)
    trajectory.tensors["state"][3, 0, 0, 0, 0] += 0.25
    verdict = verify(pipe, trajectory, picture=image).verdict()
    assert not verdict.identical
    assert verdict.first is not None
    assert verdict.first.step == 3
    assert verdict.first.difference == pytest.approx(0.25)
    assert (verdict.last, verdict.pixels) == (0.0, 0)
    assert "differs from step 3 on" in verdict.words
    assert "every pixel of the image is the same" in verdict.words
    assert "nothing recorded" in verdict.words
    assert json.loads(json.dumps(verdict.to_dict()))["first_difference"]["step"] == 3


def test_other_weights_are_named(pipe: Pipeline, tmp_path: Path) -> None:
    other = Pipeline.load(write_model(tmp_path / "other", seed=4), device="cpu")
    trajectory, image = kept(pipe)
    verdict = verify(other, trajectory, picture=image).verdict()
    assert verdict.first is not None
    assert verdict.first.step == 1  # the start is drawn, not computed
    assert verdict.last > 0
    assert verdict.pixels
    assert verdict.levels > 0
    assert {one.name for one in verdict.setup} == {"model hash"}
    assert f"model hash {pipe.sha256[:10]}, now {other.sha256[:10]}" in verdict.words


def test_numbers_that_are_none_are_a_difference(pipe: Pipeline) -> None:
    trajectory, _ = kept(pipe)
    trajectory.tensors["state"][2] = math.nan
    verdict = verify(pipe, trajectory).verdict()
    assert verdict.first is not None
    assert verdict.first.difference == math.inf
    assert verdict.to_dict()["first_difference"]["difference"] is None
    assert "by an infinite amount" in verdict.words


@pytest.mark.parametrize("steps", [2, 5])
def test_another_number_of_steps(pipe: Pipeline, steps: int) -> None:
    """As an adaptive sampler may take on another machine."""
    trajectory, _ = kept(pipe)
    notes = [*trajectory.steps, replace(trajectory.steps[-1], index=4)][:steps]
    states = torch.cat([trajectory.tensors["state"], torch.zeros(1, 1, 4, 8, 8)])
    changed = replace(trajectory, steps=notes, tensors={**trajectory.tensors, "state": states})
    verdict = verify(pipe, changed).verdict()
    assert verdict.first is not None
    assert verdict.first.step == min(steps, 4) + 1


def test_a_picture_alone(pipe: Pipeline, tmp_path: Path) -> None:
    [path] = pipe.generate(**FIELDS).save(tmp_path)
    recipe, image = read_recipe(path), Image.open(path)
    verdict = verify(pipe, recipe, picture=image).verdict()
    assert verdict.words == "identical: the image, to the bit."
    image.putpixel((3, 4), (1, 2, 3))
    verdict = verify(pipe, recipe, picture=image).verdict()
    assert (verdict.identical, verdict.pixels, verdict.steps) == (False, 1, 0)
    assert "1 pixel of the image differs, by at most" in verdict.words
    assert verify(pipe, recipe, picture=noise((8, 8))).verdict().pixels == 64


def test_a_run_from_a_picture_needs_it(pipe: Pipeline) -> None:
    pictures: dict[str, Any] = {"image": noise((64, 64)), "mask": box_mask((64, 64), (8, 8, 40, 40))}
    trajectory, image = kept(pipe, **pictures, strength=1.0, keep_unmasked=True)
    with pytest.raises(UserError, match="give it with --image"):
        verify(pipe, trajectory)
    assert verify(pipe, trajectory, picture=image, **pictures).verdict().identical


def test_it_can_be_stopped(pipe: Pipeline) -> None:
    cancel = threading.Event()
    verification = verify(pipe, kept(pipe)[0], cancel=cancel)
    next(verification)
    next(verification)
    cancel.set()
    with pytest.raises(Cancelled):
        verification.verdict()


def test_every_part_of_the_set_up_is_compared() -> None:
    now = replace(
        RECIPE,
        model=replace(RECIPE.model, sha256="f" * 64, vae_sha256="a" * 64, ema=True),
        device="cuda",
        dtype="float16",
        plugin=replace(RECIPE.plugin, version="9"),
        schedule_plugin=replace(RECIPE.schedule_plugin, name="other"),
        versions={"torch": "3", "python": "4"},
    )
    assert {one.name for one in differences(RECIPE, now)} == {
        *("model hash", "VAE hash", "averaged weights", "device", "dtype", "sampler's plugin"),
        *("schedule's plugin", "torch", "python", "latentcanvas"),
    }
    assert list(differences(RECIPE, RECIPE)) == []
