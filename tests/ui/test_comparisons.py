"""Comparisons that run: cell after cell in the queue, stopped, failing in part, and as a sheet."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.compare.grid import AxisRequest, GridPlan, Surroundings, plan_grid
from core.errors import UserError
from core.plugins import current
from core.recipes.png import read_recipe
from core.request.request import Request
from tests.ui.fakes import FakePipeline, loaded
from ui.service.comparisons import GridRun, Grids
from ui.service.job_queue import Jobs
from ui.service.limits import OwnLimits
from ui.service.model_thread import ModelThread
from ui.service.run_store import RunStore

ANN, BOB = "ann's token", "bob's token"
PATIENCE = 60.0
BASE = Request(
    prompt="a red circle", steps=2, width=64, height=64, seed=1, sampler="ddim", schedule="leading"
)


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def jobs(pipeline: FakePipeline, tmp_path: Path) -> Jobs:
    return Jobs(loaded(pipeline), RunStore(tmp_path / "outputs", see_all=lambda: False))


def plan(jobs: Jobs, *asked: tuple[str, str], **fields: Any) -> GridPlan:
    engine = jobs.engine
    around = Surroundings(
        current.registry(), engine.pipeline.defaults, (engine.name, "second", "gone"), engine.name
    )
    base = Request(**{**BASE.to_dict(), **fields})
    return plan_grid(base, [AxisRequest(*one) for one in asked], around)


def ended(grid: GridRun) -> GridRun:
    assert grid.ended.wait(PATIENCE)
    return grid


def test_each_cell_is_a_run_in_the_history(jobs: Jobs) -> None:
    grids = Grids(jobs)
    grid = ended(grids.start(ANN, plan(jobs, ("steps", "1, 2"), ("seed", "1, 2"))))
    assert [spot.state for spot in grid.spots] == ["done"] * 4
    assert grid.words() == "4 of 4 images"
    rows = jobs.runs.history.search(owner=ANN)
    assert {row.id for row in rows} == {spot.run_id for spot in grid.spots}
    for spot in grid.spots:
        kept = jobs.runs.open(ANN, spot.run_id)
        assert kept.settings == spot.cell.settings
        assert read_recipe(kept.paths[0]).settings == spot.cell.settings
    assert grids.latest(ANN) is grid
    assert grids.latest(BOB) is None
    assert grid.since(0) == grid.spots
    assert grid.since(grid.version) == []
    assert grids.speed(ANN) is not None


def test_others_get_their_turn_between_cells(jobs: Jobs, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.02
    grids = Grids(jobs)
    grid = grids.start(ANN, plan(jobs, ("seed", "1-5"), steps=4))
    other = jobs.submit_run(BOB, BASE)
    assert other.ended.wait(PATIENCE)
    assert not grid.ended.is_set()
    assert grid.made < 5
    ended(grid)
    assert grid.made == 5


def test_stop_keeps_what_was_made(jobs: Jobs, pipeline: FakePipeline) -> None:
    grids = Grids(jobs)
    first = plan(jobs, ("steps", "1, 200"), ("seed", "1, 2"))
    pipeline.delay = 0.02
    grid = grids.start(ANN, first)
    while grid.made < 2:
        grid.ended.wait(0.02)
    while grid.job is None or grid.job.evals < 2:
        grid.ended.wait(0.02)
    with pytest.raises(UserError, match="is still running"):
        grids.start(ANN, first)
    grids.stop(ANN)
    ended(grid)
    states = [spot.state for spot in grid.spots]
    assert states == ["done", "done", "stopped", "stopped"]
    assert grid.spots[2].run_id is not None
    assert jobs.runs.open(ANN, grid.spots[2].run_id).stopped
    assert grid.words().startswith("stopped: 3 of 4 images")
    assert jobs.live(ANN) is None
    ended(grids.start(ANN, plan(jobs, ("seed", "1"))))


def test_stopped_in_the_queue_is_stopped_altogether(jobs: Jobs, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.02
    grid = Grids(jobs).start(ANN, plan(jobs, ("seed", "1-9"), steps=50))
    while grid.job is None or grid.job.evals < 1:
        grid.ended.wait(0.01)
    jobs.stop(ANN)
    ended(grid)
    assert grid.made <= 1


def test_models_are_loaded_once_each_and_one_that_is_gone_fails_alone(tmp_path: Path) -> None:
    asked: list[str] = []
    pipelines = {"first": FakePipeline(), "second": FakePipeline()}

    def load(name: str) -> FakePipeline:
        asked.append(name)
        if name not in pipelines:
            raise UserError(f"Model {name!r} is not there.")
        return pipelines[name]

    engine = ModelThread(load, "first")
    engine.start()
    assert engine.wait(PATIENCE)
    jobs = Jobs(engine, RunStore(tmp_path))
    grid = ended(Grids(jobs).start(ANN, plan(jobs, ("model", "second, gone, first"), ("seed", "1, 2"))))
    assert asked == ["first", "second", "gone", "gone"]
    states = {spot.cell.model: spot.state for spot in grid.spots}
    assert states == {"first": "done", "second": "done", "gone": "failed"}
    assert all("is not there" in spot.error for spot in grid.spots if spot.state == "failed")
    assert grid.words() == "4 of 6 images, 2 failed"


def test_a_full_line_is_waited_for(pipeline: FakePipeline, tmp_path: Path) -> None:
    jobs = Jobs(loaded(pipeline), RunStore(tmp_path), lambda: OwnLimits(queue=1))
    opened = threading.Event()
    jobs.submit_task(BOB, "hold", lambda pipeline, job: opened.wait(PATIENCE))
    grid = Grids(jobs).start(ANN, plan(jobs, ("seed", "1")))
    assert not grid.ended.wait(0.3)
    opened.set()
    assert ended(grid).made == 1


def test_what_is_beyond_the_limits_fails_with_its_sentence(pipeline: FakePipeline, tmp_path: Path) -> None:
    jobs = Jobs(loaded(pipeline), RunStore(tmp_path), lambda: OwnLimits(steps=3))
    grid = ended(Grids(jobs).start(ANN, plan(jobs, ("steps", "2, 5"))))
    assert [spot.state for spot in grid.spots] == ["done", "failed"]
    assert "at most 3" in grid.spots[1].error


def test_the_sheet_holds_every_picture_and_the_recipe(jobs: Jobs) -> None:
    grids = Grids(jobs)
    grid = ended(grids.start(ANN, plan(jobs, ("steps", "1, 2"), ("cfg_scale", "1-3"))))
    data, words = grids.sheet(grid)
    with Image.open(io.BytesIO(data)) as image:
        assert f"{image.width}×{image.height}" in words
        said = json.loads(image.info["latentcanvas grid"])
        assert image.info["parameters"].startswith("a red circle\nSteps: 1")
    assert all((jobs.runs.folder / cell["picture"]).exists() for cell in said["cells"])


def test_a_sheet_of_nothing_is_a_sentence(jobs: Jobs, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    grids = Grids(jobs)
    grid = grids.start(ANN, plan(jobs, ("seed", "1"), steps=50))
    with pytest.raises(UserError, match="no image"):
        grids.sheet(grid)
    grids.stop(ANN)
    ended(grid)


def test_only_the_newest_comparisons_are_held(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.service.comparisons.MAX_GRIDS", 1)
    grids = Grids(jobs)
    ended(grids.start(ANN, plan(jobs, ("seed", "1"))))
    ended(grids.start(BOB, plan(jobs, ("seed", "1"))))
    assert grids.latest(ANN) is None
