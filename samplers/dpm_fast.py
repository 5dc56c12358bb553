"""Third-order DPM-Solver in groups of three steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Third order in groups of three steps, one evaluation per step; no history between groups.

    DPM-Solver-fast: Lu et al. 2022, arXiv:2206.00927, with DPM-Solver-3 (algorithm 2) over three
    intervals, whose r1 and r2 follow from the grid's levels, and DPM-Solver-2 (algorithm 1) over two; on
    the `exponential` schedule r1 = 1/3 and r2 = 2/3, as in the paper. The step to 0 is its own group. The
    remaining intervals form groups of two (for one interval, two of them instead of one of three), which come
    first, where the solution is almost straight; in the paper they come last.
    """
    start = 0
    for size in _groups(len(sigmas) - 1):
        x_first = x
        slopes: list[Tensor] = []
        for k in range(1, size + 1):
            i = start + k - 1
            x0 = denoise(x, sigmas[i])
            slopes.append((x - x0) / sigmas[i])
            x = solver_step(x_first, slopes, sigmas[start : start + k], sigmas[start + k])
            yield Step(i, sigmas[i + 1], x, x0)
        start += size


def _groups(steps: int) -> list[int]:
    """The number of intervals in each group; the last group is the step to 0."""
    whole, rest = divmod(steps - 1, 3)
    if rest == 1 and whole > 0:
        return [2, 2] + [3] * (whole - 1) + [1]
    return [rest] * (rest > 0) + [3] * whole + [1]


def solver_step(x: Tensor, slopes: Sequence[Tensor], levels: Sequence[float], target: float) -> Tensor:
    """From x (B, C, h, w) at levels[0] to `target`, by the slopes (x - x0) / sigma at one to three levels.

    In lambda = -log sigma with h the whole step and r h the part up to the last of the levels, the paper's
    sigma_t (e^h - 1) is sigma_s - sigma_t. One level: DPM-Solver-1. More: the difference of the last and
    the first slope is the correction, with the weights of algorithm 2, also at the end of a group
    of two, where algorithm 1 has (e^h - 1) / 2 for (e^h - 1) / h - 1.
    """
    sigma, *others = levels
    x_next = x + (target - sigma) * slopes[0]
    if not others:
        return x_next
    h, r_h = math.log(sigma / target), math.log(sigma / others[-1])
    weight = (sigma - target) / h - target
    return x_next - h / r_h * weight * (slopes[-1] - slopes[0])


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "dpm_fast", dpm_fast, title="DPM fast", order=3, paper="arXiv:2206.00927", schedule="exponential"
    )
