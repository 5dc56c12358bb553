"""The sigmas of recipes of A1111 and ComfyUI are those that made the image: their rules, written out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from core.plugins import current
from core.recipes.readers import a1111, comfyui
from core.request.request import Request
from core.sampling.schedule import NoiseSchedule, last_part
from tests.core.test_recipes_comfyui import PLAIN

# Stable Diffusion's: the square roots of its betas are evenly spaced.
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2)
TABLE = ((1 - ALPHAS) / ALPHAS) ** 0.5
Sigmas = list[float]


def even(steps: int) -> Sigmas:
    times = np.linspace(999, 0, steps)
    return [*np.exp(np.interp(times, np.arange(1000), np.log(TABLE))), 0.0]


def karras(steps: int) -> Sigmas:
    most, least = TABLE[-1] ** (1 / 7), TABLE[0] ** (1 / 7)
    return [*(most + np.linspace(0, 1, steps) * (least - most)) ** 7, 0.0]


def exponential(steps: int) -> Sigmas:
    return [*np.exp(np.linspace(math.log(TABLE[-1]), math.log(TABLE[0]), steps)), 0.0]


GRIDS = {"Uniform": even, "Karras": karras, "Exponential": exponential}
COMFY_GRIDS = {"normal": even, "karras": karras, "exponential": exponential}
# By A1111's name: the schedule of "Automatic", and whether the last sigma but one is left out.
A1111 = {
    "DPM++ 2M": ("Karras", False),
    "DPM++ SDE": ("Karras", False),
    "DPM++ 2M SDE": ("Exponential", False),
    "DPM++ 2M SDE Heun": ("Exponential", False),
    "DPM++ 2S a": ("Karras", False),
    "DPM++ 3M SDE": ("Exponential", True),
    "Euler a": ("Uniform", False),
    "Euler": ("Uniform", False),
    "LMS": ("Uniform", False),
    "Heun": ("Uniform", False),
    "DPM2": ("Karras", True),
    "DPM2 a": ("Karras", True),
    "Restart": ("Karras", False),
}
COMFY = [
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde",
    "dpmpp_2m", "dpmpp_2m_sde",
    "dpmpp_3m_sde", "ipndm", "deis", "lcm", "ddim", "uni_pc", "uni_pc_bh2", "res_multistep",
]  # fmt: skip


def run_here(asked: Request) -> list[float]:
    assert asked.steps is not None or asked.sigmas is not None
    model = NoiseSchedule.from_betas()
    if asked.sigmas is not None:
        levels = tuple(asked.sigmas)
    else:
        assert asked.schedule is not None
        assert asked.steps is not None
        levels = tuple(current.registry().schedules[asked.schedule].function(model, asked.steps))
    return list(levels if asked.strength is None else last_part(levels, asked.strength))


@pytest.mark.parametrize("strength", [None, 0.75, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("sampler", A1111)
def test_a1111s_grids(sampler: str, steps: int, strength: float | None) -> None:
    automatic, leaves_out = A1111[sampler]
    for kind in ("Automatic", *GRIDS):
        text = f"a\nSteps: {steps}, Sampler: {sampler}, Schedule type: {kind}, Seed: 1, Version: v1.10.1"
        text += "" if strength is None else f", Denoising strength: {strength}"
        sigmas = GRIDS[automatic if kind == "Automatic" else kind](steps + leaves_out)
        sigmas = [*sigmas[:-2], sigmas[-1]] if leaves_out else sigmas
        if strength is not None:
            sigmas = sigmas[steps - int(min(strength, 0.999) * steps) - 1 :]
        assert run_here(a1111.read(text, current.registry()).request) == pytest.approx(sigmas, rel=1e-4)


@pytest.mark.parametrize(
    ("sampler", "grid"),
    [
        ("DPM++ 2M", even),
        ("DPM++ SDE", even),
        ("DPM++ 2M SDE", even),
        ("DPM++ 2M Karras", karras),
        ("Restart", karras),
    ],
)
@pytest.mark.parametrize("version", ["v1.6.0", "1.8.0-RC", "v1.3.2"])
def test_before_1_9_the_schedule_was_in_the_samplers_name(version: str, sampler: str, grid: Any) -> None:
    text = f"a\nSteps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 1, Version: {version}"
    assert run_here(a1111.read(text, current.registry()).request) == pytest.approx(grid(20), rel=1e-4)


@pytest.mark.parametrize("denoise", [1.0, 0.75, 0.5])
@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("sampler", COMFY)
def test_comfyuis_grids(sampler: str, steps: int, denoise: float) -> None:
    for scheduler, grid in COMFY_GRIDS.items():
        graph = json.loads(json.dumps(PLAIN))
        node = next(node for node in graph.values() if node["class_type"] == "KSampler")
        node["inputs"] |= {
            "sampler_name": sampler,
            "scheduler": scheduler,
            "steps": steps,
            "denoise": denoise,
        }
        if denoise < 1:
            latent = graph[node["inputs"]["latent_image"][0]]
            latent |= {"class_type": "VAEEncode", "inputs": {"pixels": ["50", 0], "vae": ["4", 2]}}
            graph["50"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
        leaves_out = sampler in ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")
        sigmas = grid(int(steps / denoise) + leaves_out)
        sigmas = ([*sigmas[:-2], sigmas[-1]] if leaves_out else sigmas)[-(steps + 1) :]
        asked = comfyui.read(graph, current.registry()).request
        assert run_here(asked) == pytest.approx(sigmas, rel=1e-4)
