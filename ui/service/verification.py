"""Verification of a kept run, as a task for the queue: run it again, and compare step by step."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from core.images.source_images import Inputs
    from core.inference.trajectory import Trajectory
    from core.recipes.recipe import Recipe
    from ui.service.job_queue import Job

# The verdict in words, and whether everything is the same to the bit.
Verdict = tuple[str, bool]
Check = Callable[[Any, "Job"], Verdict]


def task(kept: Trajectory | Recipe, png: bytes, inputs: Inputs | None = None) -> Check:
    """The task for a run's first picture file and its kept steps, or its recipe where they were not kept.

    inputs: what it started from.

    The task raises what the run raises.
    """

    def check(pipeline: Any, job: Job) -> Verdict:
        from core.inference.verify import verify

        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
        image, mask = (None, None) if inputs is None else (inputs.image, inputs.mask)
        verification = verify(pipeline, kept, picture=picture, image=image, mask=mask, cancel=job.cancel)
        job.evals_due = verification.total
        for checked in verification:
            job.evals = checked.step
        verdict = verification.verdict()
        return verdict.words, verdict.identical

    return check


def progress(job: Job) -> str:
    """How far it is."""
    return f"Running it again: step {job.evals} of {max(job.evals_due - 1, 1)}"
