"""Files of steps, and verification, as the player asks for them."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.inference.pipeline import Pipeline
from core.recipes.png import read_recipe
from core.request.request import Request
from core.request.settings import Branch
from tests.ui import kept
from tests.ui.kept import OWNER
from ui.page.viewer import Viewer, ViewerRequest
from ui.service import step_files, verification

WORDS = Request(prompt="a red circle", seed=3, steps=4, width=64, height=64)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return kept.pipeline()


@pytest.fixture(scope="module")
def run(pipeline: Pipeline) -> kept.FakeKept:
    return kept.kept("run", replace(WORDS, batch=2))


@pytest.fixture
def viewer(pipeline: Pipeline, run: kept.FakeKept) -> Viewer:
    return Viewer(kept.FakeEngine(pipeline), kept.FakeRuns([run]))


def saved(answer: dict[str, Any], folder: Path) -> Path:
    path = folder / str(answer["name"])
    path.write_bytes(kept.decoded(answer["uri"]))
    return path


def picture_in(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def asked(**fields: Any) -> ViewerRequest:
    return ViewerRequest.of({"owner": OWNER, "run": "run", **fields})


def test_a_saved_clean_step_carries_the_recipe_that_makes_it(
    viewer: Viewer, pipeline: Pipeline, tmp_path: Path
) -> None:
    path = saved(viewer.file(asked(kind="step", step=2, image=1)), tmp_path)
    assert path.name == "run-1-step-2-clean.png"
    recipe = read_recipe(path)
    assert (recipe.settings.stop_after, recipe.settings.seed) == (2, 4)
    made = pipeline.generate(Request.from_settings(recipe.settings)).images[0]
    shown = picture_in(path)
    assert shown.info["Description"] == "Step 2 of 4, clean estimate, of run-1.png"
    off = [abs(a - b) for a, b in zip(made.tobytes(), shown.convert("RGB").tobytes(), strict=True)]
    assert max(off) <= 3  # the estimates are kept in half precision


def test_a_saved_step_of_another_view_is_no_picture_of_a_recipe(viewer: Viewer, tmp_path: Path) -> None:
    path = saved(viewer.file(asked(kind="step", step=4, view="difference")), tmp_path)
    info = picture_in(path).info
    assert set(info) == {"Description", "latentcanvas_step"}
    assert json.loads(info["latentcanvas_step"])["view"] == "difference"


def test_the_last_step_is_the_run_and_a_branchs_first_ones_are_its_parents(run: kept.FakeKept) -> None:
    steps = replace(run.steps.alone(0), settings=replace(run.settings, batch=1))
    branched = replace(steps.settings, cfg_scale=2.0, branch=Branch(2, steps.settings))
    branch = replace(steps, settings=branched)
    picture = Image.new("RGB", (8, 8))

    def settings(k: int) -> Any:
        png = step_files.step_png(picture, branch, k, "clean", 0, "x.png")
        return json.loads(Image.open(io.BytesIO(png)).info["latentcanvas"])["settings"]

    assert settings(4) == branched.to_dict()
    assert settings(3) == replace(branched, stop_after=3).to_dict()
    assert settings(2) == replace(steps.settings, stop_after=2).to_dict()


def test_the_steps_as_gif_and_on_a_sheet(viewer: Viewer, tmp_path: Path) -> None:
    gif = picture_in(saved(viewer.file(asked(kind="gif")), tmp_path))
    assert getattr(gif, "n_frames") == 5  # noqa: B009  (four steps and the picture; PIL's class is not typed so)
    sheet = picture_in(saved(viewer.file(asked(kind="sheet", view="noisy")), tmp_path))
    assert sheet.info["Description"] == "The 4 steps of run-0.png, noisy state"
    assert sheet.width > 64


class OneJob:
    """A queue that does one thing at once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.cancel, self.ended = threading.Event(), threading.Event()
        self.state, self.error, self.evals, self.evals_due, self.value = "running", "", 0, 0, None

    def submit_task(self, owner: str, title: str, function: Any) -> OneJob:
        assert owner == OWNER
        self.value = function(self.pipeline, self)
        self.state = "done"
        self.ended.set()
        return self


def verdict_of(viewer: Viewer, pipeline: Pipeline) -> dict[str, Any]:
    viewer.jobs = OneJob(pipeline)  # pyrefly: ignore[bad-assignment]

    class Event:
        run = "run"

    async def told() -> list[Any]:
        return [one async for one in viewer.on_verify(OWNER, Event())]  # pyrefly: ignore[bad-argument-type]

    *_, last = asyncio.run(told())
    return dict(last.props["verdict"])


def test_a_run_is_verified(viewer: Viewer, pipeline: Pipeline) -> None:
    verdict = verdict_of(viewer, pipeline)
    assert verdict["text"].startswith("Identical: 4 steps")
    assert not verdict["trouble"]


def test_a_run_without_steps_is_verified_by_its_picture(
    pipeline: Pipeline, run: kept.FakeKept, tmp_path: Path
) -> None:
    path = tmp_path / "bare.png"
    path.write_bytes(run.png(0))
    bare = replace(run, trajectory=None, paths=[path])
    verdict = verdict_of(Viewer(kept.FakeEngine(pipeline), kept.FakeRuns([bare])), pipeline)
    assert (verdict["text"], verdict["trouble"]) == ("Identical: the image, to the bit.", False)


def test_a_run_that_was_changed_is_found_out(pipeline: Pipeline, run: kept.FakeKept) -> None:
    steps = run.steps
    state = steps.tensors["state"].clone()
    state[3] += 0.5
    changed = replace(run, trajectory=replace(steps, tensors={**steps.tensors, "state": state}))
    verdict = verdict_of(Viewer(kept.FakeEngine(pipeline), kept.FakeRuns([changed])), pipeline)
    assert "step 3" in verdict["text"]
    assert verdict["trouble"]


def test_how_far_a_verification_is() -> None:
    job: Any = OneJob.__new__(OneJob)
    job.evals, job.evals_due = 3, 21
    assert verification.progress(job) == "Verifying: step 3 of 20"
