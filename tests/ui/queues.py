"""A queue on a fake model, and what its tests wait with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.request.request import Request
from tests.ui.fakes import FakePipeline, loaded
from ui.service.job_queue import Job, Jobs
from ui.service.run_store import RunStore

ANN, BOB = "ann's token", "bob's token"
PATIENCE = 60.0


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def runs(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "outputs", see_all=lambda: False)


@pytest.fixture
def jobs(pipeline: FakePipeline, runs: RunStore) -> Jobs:
    return Jobs(loaded(pipeline), runs)


def asked(**fields: Any) -> Request:
    usual: dict[str, Any] = {"prompt": "a red circle", "steps": 3, "width": 64, "height": 64, "seed": 1}
    return Request(**(usual | fields))


def done(job: Job) -> Job:
    assert job.ended.wait(PATIENCE)
    return job


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


class Gate:
    """A task that holds the model until it is opened."""

    def __init__(self, jobs: Jobs, owner: str = "somebody") -> None:
        self.opened = threading.Event()
        self.job = jobs.submit_task(owner, "hold", lambda pipeline, job: self.opened.wait(PATIENCE))
        until(lambda: self.job.state == "running")
