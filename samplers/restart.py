"""Restart: adds noise back near the end and denoises again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl
from samplers.heun import heun_step
from samplers.shared_options import NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Times = Annotated[int, Range(0, 20, 1), "number of restarts (K)"]
Inner = Annotated[int, Range(1, 50, 1), "steps of each restart (N_Restart)"]
Low = Annotated[float, Range(0.01, 10, 0.01), "noise level at which it restarts (t_min)"]
High = Annotated[float, Range(0.02, 100, 0.01), "noise level that it restarts from (t_max)"]


def restart(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    times: Times = 1,
    inner: Inner = 9,
    low: Low = 0.1,
    high: High = 2.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """Heun's method that adds noise near the end and denoises again, which corrects earlier errors.

    Xu et al. 2023, arXiv:2306.14878, with one interval [t_min, t_max]: on the first level of the
    grid at or below t_min, K times up to t_max and down to the same level in `inner` steps of Heun's method,
    spaced as in Karras et al. 2022, eq. 5. All of it is part of the step that reaches that level. A
    step that itself starts at t_min or below does not restart, so a resumed run equals the whole one.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x, x0 = heun_step(denoise, x, sigma, target)
        if sigma > low >= target > 0 and high > target:
            for _ in range(times):
                x = x + math.sqrt(high**2 - target**2) * s_noise * noise(target, high)
                for a, b in pairwise(_between(high, target, inner)):
                    x, x0 = heun_step(denoise, x, a, b)
        yield Step(i, target, x, x0)


def _between(high: float, low: float, steps: int, rho: float = 7.0) -> list[float]:
    """`steps` + 1 levels from `high` to `low`, both exactly."""
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    inside = [(top + i / steps * (bottom - top)) ** rho for i in range(1, steps)]
    return [high, *inside, low]


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "restart",
        restart,
        title="Restart",
        order=2,
        evals=2,
        paper="arXiv:2306.14878",
        schedule="karras",
        stochastic="times",
    )
