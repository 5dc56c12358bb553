"""Classifier-free guidance, its rescaling, and the interval of noise levels that it acts in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Away from the unconditional estimate, by `scale` (Ho and Salimans 2022, arXiv:2207.12598, eq. 6).

    Here `scale` is 1 + w of the paper: 1 gives the conditional estimate, 0 the unconditional one. It is
    linear, so it may be applied to clean estimates as well as to predicted noise.
    """
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give guided predictions back the contrast of the conditional ones, by `share` 0 (as is) to 1 (all).

    Lin et al. 2023, arXiv:2305.08891, section 3.4: the standard deviation of each image's (C, h, w) as
    guidance left it, and as it was. It is of the network's own predictions, be they noise, v or x0, as in the
    paper: for clean estimates the same formula would be another method.
    """
    dims = list(range(1, guided.ndim))
    wanted, found = (x.std(dim=dims, keepdim=True) for x in (conditional, guided))
    return guided * (share * wanted / found.clamp(min=1e-12) + (1 - share))


def interval(sigmas: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """(low, high) for guidance from `start` to `end`, fractions of a whole grid's steps: it is on where
    low < sigma <= high.

    In noise levels, so that samplers with several evaluations a step, and runs that begin in the middle of
    the grid, mean the same by it (Kynkaanniemi et al. 2024, arXiv:2404.07724). Nothing is cut off at 0 and 1.
    """
    low = 0.0 if end >= 1 else _level(sigmas, end)
    high = math.inf if start <= 0 else _level(sigmas, start)
    return low, high


def _level(sigmas: Sequence[float], fraction: float) -> float:
    """The level after a fraction of the steps; between two of the grid, on a straight line."""
    place = round(fraction * (len(sigmas) - 1), 9)  # 0.7 * 10 is a little above 7, and so past step 7
    before = int(place)
    share = place - before
    return sigmas[before] if share == 0 else sigmas[before] * (1 - share) + sigmas[before + 1] * share
