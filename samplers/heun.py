"""Heun's method, the second-order sampler of the EDM paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Churn, ChurnHigh, ChurnLow, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def heun(
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
    """Averages the slopes at both ends of each step: accurate, with two evaluations per step.

    Karras et al. 2022, arXiv:2206.00364, algorithm 2 (without churn: algorithm 1).
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x, hat = maths.churned(x, (sigma, target), noise, len(sigmas) - 1, s_churn, (s_tmin, s_tmax), s_noise)
        x, x0 = heun_step(denoise, x, hat, target)
        yield Step(i, target, x, x0)


def heun_step(denoise: Denoise, x: Tensor, sigma: float, target: float) -> tuple[Tensor, Tensor]:
    """(x (B, C, h, w) at `target`, clean estimate at `sigma`): lines 4 to 8 of algorithm 1."""
    x0 = denoise(x, sigma)
    d = (x - x0) / sigma
    x_next = x + (target - sigma) * d
    if target > 0:
        d_next = (x_next - denoise(x_next, target)) / target
        x_next = x + (target - sigma) * (d + d_next) / 2
    return x_next, x0


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "heun",
        heun,
        title="Heun",
        order=2,
        evals=2,
        paper="arXiv:2206.00364",
        schedule="karras",
        stochastic="s_churn",
    )
