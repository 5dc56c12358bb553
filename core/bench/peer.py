"""The other side: diffusers, if installed. Nothing else in the project uses it."""

from __future__ import annotations

import statistics
import time
from importlib import import_module
from typing import Any

from core.bench import BenchJob
from core.bench.inside import Inside
from core.bench.peak import peak_percent
from core.errors import UserError
from core.memory import peak_memory_mb
from core.weights.find import find_model
from core.weights.model_files import open_model


def measure(job: BenchJob) -> dict[str, float]:
    """The figures of the same image by StableDiffusionPipeline with DDIM."""
    marks = [time.perf_counter()]
    try:
        import torch

        diffusers: Any = import_module("diffusers")
    except ImportError:
        raise UserError("diffusers is not installed: pip install diffusers transformers.") from None
    marks.append(time.perf_counter())
    dtype: torch.dtype = getattr(torch, job.dtype or "float32")  # float32 is its default
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        job.model,
        torch_dtype=dtype,
        local_files_only=True,
        safety_checker=None,
        requires_safety_checker=False,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.to(device).set_progress_bar_config(disable=True)
    if job.channels_last:
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=torch.channels_last)
    marks.append(time.perf_counter())

    inside = Inside(device)
    inside.watch(pipeline.text_encoder, "forward")
    inside.watch(pipeline.unet, "forward")
    inside.watch(pipeline.vae, "decode")
    began, ends = time.perf_counter(), []

    def at_end(_pipe: Any, _index: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        ends.append(time.perf_counter())
        return values

    with torch.no_grad():
        positive, negative = pipeline.encode_prompt(job.prompt, device, 1, True, "")
    encoded = time.perf_counter()
    pipeline(
        prompt_embeds=positive, negative_prompt_embeds=negative, num_inference_steps=job.steps,
        guidance_scale=job.cfg_scale, width=job.width, height=job.height, callback_on_step_end=at_end,
        generator=torch.Generator("cpu").manual_seed(job.seed),
    )  # fmt: skip
    end = time.perf_counter()
    starts = [encoded, *ends[:-1]]
    step = statistics.median(after - before for before, after in zip(starts, ends, strict=True))
    memory = peak_memory_mb(device) or 0.0

    config = open_model(find_model(job.model)).config
    size = (job.height // config.vae.reduction, job.width // config.vae.reduction)
    return {
        "import": marks[1] - marks[0],
        "load": marks[2] - marks[1],
        "encode": encoded - began,
        "step": step,
        "decode": end - ends[-1],
        "picture": end - began,
        "outside_percent": inside.rest_percent(end - began),
        "peak_memory_mb": memory,
        "peak_percent": peak_percent(config.unet, config.vae, size, dtype, step),
    }
