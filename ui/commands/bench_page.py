"""Overhead of the page: a run from Python and the same run through the queue with previews, in alternation.

Ratios are taken within a pair, so that a machine that slows down slows both. Wall time is what a user waits;
processor time is also right where the machine is busy with something else.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from ui.service.job_queue import Jobs
from ui.service.model_thread import ModelThread
from ui.service.run_store import RunStore

if TYPE_CHECKING:
    from core.inference.pipeline import Pipeline
    from core.inference.run import RunStep
    from core.request.request import Request

WATCH_SECONDS = 0.25
OWNER = "bench"


@dataclass(frozen=True)
class Cost:
    """Seconds of a run: wall time, and processor time of all threads."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Overhead:
    """The same runs from Python (`plain`) and with previews (`watched`).

    `looks` is how often previews were made in all of them, four times a second of wall time, and
    `look_seconds` the processor time of one: on a busy machine a run takes longer and has more of them.
    """

    plain: list[Cost]
    watched: list[Cost]
    looks: int
    look_seconds: float

    @property
    def clock(self) -> float:
        """Wall time of watched / plain, the median of the pairs."""
        return statistics.median(b.clock / a.clock for a, b in zip(self.plain, self.watched, strict=True))

    @property
    def processor(self) -> float:
        """The same ratio of processor time."""
        pairs = zip(self.plain, self.watched, strict=True)
        return statistics.median(b.processor / a.processor for a, b in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"ratio": self.clock, "processor_ratio": self.processor, **asdict(self)}


def measure(
    pipeline: Pipeline, request: Request, rounds: int, told: Callable[[], object] = lambda: None
) -> Overhead:
    """Measure `rounds` pairs, each with its own seed, after a warm-up pair. `told` is called after each.

    Both save their images; the watched run also saves its steps and a row of the history. Raises
    UserError when a run fails.
    """
    plain, watched = [], []
    looks: list[float] = []
    with tempfile.TemporaryDirectory(prefix="latentcanvas-bench-") as name:
        folder = Path(name)
        engine = ModelThread(lambda name: pipeline)
        engine.start()
        jobs = Jobs(engine, RunStore(folder / "page"))
        for seed in range(rounds + 1):
            asked = replace(request, seed=seed)
            began = _now()
            pipeline.generate(asked).save(folder / "plain")
            between = _now()
            looked = _watch(jobs, asked)
            plain.append(_cost(began, between))
            watched.append(_cost(between, _now()))
            looks += looked if seed else []
            told()
    return Overhead(plain[1:], watched[1:], len(looks), statistics.fmean(looks or [0.0]))


def _watch(jobs: Jobs, request: Request) -> list[float]:
    """Run it as the page does; the processor seconds of each preview."""
    looks = []
    job = jobs.submit_run(OWNER, request)
    while not job.ended.wait(WATCH_SECONDS):
        steps = job.steps
        if steps:
            began = time.thread_time()
            _look(steps[-1], request.batch)
            looks.append(time.thread_time() - began)
    if job.error or job.trouble:
        raise UserError(job.error or job.trouble)
    return looks


def _look(step: RunStep, batch: int) -> None:
    """Make what a page is sent of a step: two views of each image as JPEG."""
    for image in range(batch):
        step.preview(image).save(io.BytesIO(), "JPEG")
        step.preview(image, "noisy").save(io.BytesIO(), "JPEG")


def _now() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def _cost(since: Cost, until: Cost) -> Cost:
    return Cost(until.clock - since.clock, until.processor - since.processor)
