"""DPM-Solver-2, plain and ancestral."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Churn, ChurnHigh, ChurnLow, Eta, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def dpm2(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    s_churn: Churn = 0.0,
    s_tmin: ChurnLow = 0.0,
    s_tmax: ChurnHigh = 1000.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """Uses the slope at the middle of each step, in log sigma: accurate, with two evaluations per step.

    DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) with r1 = 1/2 in k-diffusion's form, where
    the slope at the middle is used over the whole step, with the churn of Karras et al. 2022
    (arXiv:2206.00364).
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x, hat = maths.churned(x, (sigma, target), noise, len(sigmas) - 1, s_churn, (s_tmin, s_tmax), s_noise)
        x, x0 = midpoint_step(denoise, x, hat, target)
        yield Step(i, target, x, x0)


def dpm2_a(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """DPM2 with fresh noise at each step.

    k-diffusion's ancestral sampling: a DPM-Solver-2 step to the lower level, then noise up to the next one.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        down, up = maths.ancestral(sigma, target, eta)
        x, x0 = midpoint_step(denoise, x, sigma, down)
        if up > 0:
            x = x + up * s_noise * noise(sigma, target)
        yield Step(i, target, x, x0)


def midpoint_step(denoise: Denoise, x: Tensor, sigma: float, target: float) -> tuple[Tensor, Tensor]:
    """(x (B, C, h, w) at `target`, clean estimate at `sigma`); to 0 Euler, as log sigma has no middle."""
    x0 = denoise(x, sigma)
    d = (x - x0) / sigma
    if target > 0:
        middle = math.sqrt(sigma * target)
        x_middle = x + (middle - sigma) * d
        d = (x_middle - denoise(x_middle, middle)) / middle
    return x + (target - sigma) * d, x0


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    shared: dict[str, Any] = {"evals": 2, "paper": "arXiv:2206.00927", "schedule": "karras"}
    register("dpm2", dpm2, title="DPM2", order=2, stochastic="s_churn", **shared)
    register("dpm2_a", dpm2_a, title="DPM2 a", order=1, stochastic="eta", **shared)
