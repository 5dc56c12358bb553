"""Our side: the same code path as the page and `generate`."""

from __future__ import annotations

import statistics
import time

from core.bench import BenchJob
from core.bench.inside import Inside
from core.bench.peak import peak_percent
from core.inference.pipeline import Pipeline
from core.memory import peak_memory_mb


def measure(job: BenchJob) -> dict[str, float]:
    """The figures of one image; meant to run in a new process."""
    marks = [time.perf_counter()]

    marks.append(time.perf_counter())
    pipeline = Pipeline.load(job.model, dtype=job.dtype, memory=job.memory)
    marks.append(time.perf_counter())
    inside = Inside(pipeline.device)
    inside.watch(pipeline.model.networks, "run")
    run = pipeline.stream(
        prompt=job.prompt, sampler="ddim", schedule="leading", steps=job.steps, cfg_scale=job.cfg_scale,
        width=job.width, height=job.height, seed=job.seed,
    )  # fmt: skip
    began, ends = time.perf_counter(), []
    for _ in run:
        ends.append(time.perf_counter())
    result = run.result()
    # The text encoder runs before the first step.
    starts = [began + result.seconds["encode"], *ends[:-1]]
    step = statistics.median(end - start for start, end in zip(starts, ends, strict=True))
    picture, memory = time.perf_counter() - began, peak_memory_mb(pipeline.device) or 0.0

    config = pipeline.model.config
    size = (job.height // config.vae.reduction, job.width // config.vae.reduction)
    return {
        "import": marks[1] - marks[0],
        "load": marks[2] - marks[1],
        "encode": result.seconds["encode"],
        "step": step,
        "decode": result.seconds["decode"],
        "picture": picture,
        "outside_percent": inside.rest_percent(picture),
        "peak_memory_mb": memory,
        "peak_percent": peak_percent(config.unet, config.vae, size, pipeline.dtype, step),
    }
