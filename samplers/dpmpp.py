"""DPM-Solver++, single-step and multistep: 2S ancestral, 2M."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Eta, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def dpmpp_2s_a(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """Two evaluations and fresh noise per step; DPM-Solver++(2S) with eta 0.

    Lu et al. 2022, arXiv:2211.01095, algorithm 1 with r = 1/2, to the lower level of k-diffusion's ancestral
    sampling. With alpha = 1 its exponentials are ratios of noise levels: exp(-h) = down / sigma.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        down, up = maths.ancestral(sigma, target, eta)
        x0 = clean = denoise(x, sigma)
        if down > 0:
            middle = math.sqrt(sigma * down)
            u = x0 + middle / sigma * (x - x0)
            clean = denoise(u, middle)
        x = clean + down / sigma * (x - clean)
        if up > 0:
            x = x + up * s_noise * noise(sigma, target)
        yield Step(i, target, x, x0)


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Extrapolates the last two clean estimates: sharp in 15 to 25 steps of one evaluation each.

    DPM-Solver++(2M): Lu et al. 2022, arXiv:2211.01095, algorithm 2. The first step and the one to 0, which is
    infinitely long in lambda = -log sigma, are first order.
    """
    old, h_last = None, 0.0
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        h = math.log(sigma / target) if target > 0 else math.inf
        D = x0
        if old is not None and target > 0:
            D = x0 + (x0 - old) * h / (2 * h_last)
        x = D + target / sigma * (x - D)
        old, h_last = x0, h
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    shared: dict[str, Any] = {"paper": "arXiv:2211.01095", "schedule": "karras"}
    register("dpmpp_2m", dpmpp_2m, title="DPM++ 2M", order=2, **shared)
    register("dpmpp_2s_a", dpmpp_2s_a, title="DPM++ 2S a", order=1, evals=2, stochastic="eta", **shared)
