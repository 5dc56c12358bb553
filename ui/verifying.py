"""Verification of a kept run, as a task for the queue: run it again, and compare step by step."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from core.trajectory import Trajectory
    from ui.jobs import Job

# The verdict in words, and whether everything is the same to the bit.
Verdict = tuple[str, bool]


def task(steps: Trajectory, png: bytes) -> Callable[[Any, Job], Verdict]:
    """The task for a run's kept steps and its first picture file. It raises what the run raises."""

    def check(pipeline: Any, job: Job) -> Verdict:
        from core.verify import verify

        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
        verification = verify(pipeline, steps, picture=picture, cancel=job.cancel)
        job.evals_due = verification.total
        for checked in verification:
            job.evals = checked.step
        verdict = verification.verdict()
        return verdict.words, verdict.identical

    return check


def progress(job: Job) -> str:
    """How far it is."""
    return f"Running it again: step {job.evals} of {max(job.evals_due - 1, 1)}"
