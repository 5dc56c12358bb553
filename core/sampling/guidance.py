"""Classifier-free guidance, its rescaling, and the interval of noise levels that it acts in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance by `scale` (Ho and Salimans 2022, arXiv:2207.12598, eq. 6).

    `scale` is the paper's 1 + w: 1 gives the conditional estimate, 0 the unconditional one. Guidance is
    linear, so it works on clean estimates as well as on predicted noise.
    """
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Rescale guided predictions to the contrast of the conditional ones, by `share` 0 (off) to 1 (full).

    Lin et al. 2023, arXiv:2305.08891, section 3.4, with the standard deviation over each image's (C, h, w).
    As in the paper it applies to the network's own predictions (noise, v or x0): for clean estimates the same
    formula would be another method.
    """
    dims = list(range(1, guided.ndim))
    wanted, found = (x.std(dim=dims, keepdim=True) for x in (conditional, guided))
    return guided * (share * wanted / found.clamp(min=1e-12) + (1 - share))


def interval(sigmas: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """(low, high) for guidance from `start` to `end`, fractions of the steps of a whole grid: guidance is on
    where low < sigma <= high.

    In noise levels, so that it means the same for samplers with several evaluations a step and for runs that
    start in the middle of the grid (Kynkaanniemi et al. 2024, arXiv:2404.07724). 0 and 1 cut nothing off.
    """
    low = 0.0 if end >= 1 else _level(sigmas, end)
    high = math.inf if start <= 0 else _level(sigmas, start)
    return low, high


def _level(sigmas: Sequence[float], fraction: float) -> float:
    """The level after a fraction of the steps, interpolated linearly between two levels of the grid."""
    place = round(fraction * (len(sigmas) - 1), 9)  # 0.7 * 10 is a little above 7, and so past step 7
    before = int(place)
    share = place - before
    return sigmas[before] if share == 0 else sigmas[before] * (1 - share) + sigmas[before + 1] * share
