"""Verification of a saved run, as a task for the queue: run it again and compare step by step."""

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

# The verdict as text, and whether everything is identical to the bit.
Verdict = tuple[str, bool]
Check = Callable[[Any, "Job"], Verdict]


def task(kept: Trajectory | Recipe, png: bytes, inputs: Inputs | None = None) -> Check:
    """A task for a run's first image file and its saved steps, or its recipe if they were not saved.

    inputs: its init image and mask. The task raises what the run raises.
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
    """Its progress."""
    return f"Verifying: step {job.evals} of {max(job.evals_due - 1, 1)}"
