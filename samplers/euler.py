"""Euler's method, plain and ancestral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Churn, ChurnHigh, ChurnLow, Eta, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def euler(
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
    """One straight line per step: simple, predictable, the baseline for other samplers.

    Karras et al. 2022, arXiv:2206.00364, algorithm 2 without its second-order correction (lines 9 to 11).
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x, hat = maths.churned(x, (sigma, target), noise, len(sigmas) - 1, s_churn, (s_tmin, s_tmax), s_noise)
        x0 = denoise(x, hat)
        d = (x - x0) / hat
        x = x + (target - hat) * d
        yield Step(i, target, x, x0)


def euler_a(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """Euler with fresh noise at each step: varied images that keep changing with the number of steps.

    k-diffusion's ancestral sampling; with eta 1 it is DDPM (Ho et al. 2020, arXiv:2006.11239) in sigma.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        down, up = maths.ancestral(sigma, target, eta)
        x0 = denoise(x, sigma)
        x = x + (down - sigma) * (x - x0) / sigma
        if up > 0:
            x = x + up * s_noise * noise(sigma, target)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("euler", euler, title="Euler", paper="arXiv:2206.00364", stochastic="s_churn")
    register("euler_a", euler_a, title="Euler a", paper="arXiv:2206.00364", stochastic="eta")
