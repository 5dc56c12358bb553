"""SA-Solver: stochastic Adams, predictor and corrector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Tau = Annotated[float, Range(0, 2, 0.05), "amount of fresh noise: 0 is none, 1 is the usual SDE"]
Low = Annotated[float, Range(0, 100, 0.01), "noise level at and below which no noise is added"]
High = Annotated[float, Range(0, 1000, 0.01), "noise level above which no noise is added"]


def sa_solver(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    tau: Tau = 1.0,
    low: Low = 0.0,
    high: High = 1000.0,
) -> Iterator[Step]:
    """Predicts, then corrects with the next estimate; the amount of fresh noise can be set.

    SA-Solver: Xue et al. 2023, arXiv:2309.05019, algorithm 1, two steps in predictor and corrector, with the
    authors' simplification for two (the slope's weight is taken where the exponential is 1). tau(t) is `tau`
    at all levels, or between two and else 0: 0.57 and 5.12 are timesteps 200 and 800 of Stable Diffusion.
    `x` is yielded as predicted; its correction, with the same noise, comes with the next evaluation.
    """
    start, m0, rate, h_last = x, None, 1.0, 0.0
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        m = denoise(x, sigma)
        if m0 is not None:  # the last step again, from `start`, with both of its ends known
            x = start + rate * h_last / 2 * (m - m0)
        if target == 0:
            yield Step(i, target, m, m)
            return
        h = math.log(sigma / target)
        strength = tau if low < sigma <= high else 0.0
        rate = 1 + strength**2
        # Shared by predictor and corrector: decay, the estimate held constant, and noise.
        start = math.exp(-rate * h) * x - math.expm1(-rate * h) * m
        if strength > 0:
            start = start + target * math.sqrt(-math.expm1(-2 * strength**2 * h)) * noise(sigma, target)
        x = start
        if m0 is not None:
            x = start + rate * h**2 / 2 * (m - m0) / h_last
        m0, h_last = m, h
        yield Step(i, target, x, m)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "sa_solver",
        sa_solver,
        title="SA-Solver",
        paper="arXiv:2309.05019",
        schedule="karras",
        stochastic="tau",
        noise="brownian",
    )
