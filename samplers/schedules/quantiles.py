"""Schedules whose levels are quantiles of a distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from samplers.schedules.step_count import checked, parts

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


def beta(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """More steps at both ends: quantiles of a Beta distribution with alpha = beta = 0.6.

    Lee et al. 2024, arXiv:2407.12173. Other programs round to whole timesteps, which loses steps when there
    are many.
    """
    top = len(model) - 1
    return (*(model.sigma(top * _beta_quantile(1 - i / steps)) for i in range(checked(model, steps))), 0.0)


def laplace(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Most steps near sigma 1: quantiles of a Laplace distribution of log sigma, with mean 0 and scale 0.5.

    Hang et al. 2024, arXiv:2407.03297. Here the distribution is truncated at the model's limits, where
    ComfyUI clamps its levels.
    """
    scale = 0.5
    high, low = (_laplace(math.log(s) / scale) for s in (model.sigma_max, model.sigma_min))
    places = (high + part * (low - high) for part in parts(model, steps))
    return (*(math.exp(scale * _laplace_quantile(place)) for place in places), 0.0)


def _laplace(z: float) -> float:
    """The cumulative distribution function of the standard Laplace distribution."""
    return math.exp(z) / 2 if z < 0 else 1 - math.exp(-z) / 2


def _laplace_quantile(p: float) -> float:
    return math.log(2 * p) if p < 0.5 else -math.log(2 * (1 - p))


def _beta_quantile(p: float, a: float = 0.6) -> float:
    """The quantile p of the distribution Beta(a, a), by Newton's method; it is symmetric."""
    if p > 0.5:
        return 1 - _beta_quantile(1 - p, a)
    scale = math.gamma(a) ** 2 / math.gamma(2 * a)  # B(a, a)
    x = math.pow(p * a * scale, 1 / a)  # from the first term of the series
    for _ in range(20 if p > 0 else 0):
        density = math.pow(x * (1 - x), a - 1) / scale
        x -= (_beta_share(x, a) / scale - p) / density
    return x


def _beta_share(x: float, a: float) -> float:
    """The integral of (u (1 - u))^(a - 1) from 0 to x <= 1/2: an integrated binomial series."""
    total, factor, n = 0.0, 1.0, 0
    while factor > 1e-17:
        total += factor / (a + n)
        n += 1
        factor *= (n - a) / n * x
    return math.pow(x, a) * total
