"""Maths that samplers share, as `latentcanvas.maths`: ancestral noise, churn, and multistep weights.

Noise levels are plain floats. numpy and torch are not imported before a sampler runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from core.sampling.contract import Noise


def ancestral(sigma: float, target: float, eta: float = 1.0) -> tuple[float, float]:
    """(down, up): step down to the level `down`, then add `up` times fresh noise to reach `target`.

    down^2 + up^2 = target^2. With eta 1 this is DDPM's posterior (Ho et al. 2020, arXiv:2006.11239, eq. 7) in
    x = x0 + sigma * noise, with eta 0 there is no noise; as in k-diffusion, eta scales `up`.
    """
    up = min(target, eta * target * math.sqrt(sigma**2 - target**2) / sigma)
    return math.sqrt(target**2 - up**2), up


def churned(
    x: Tensor,
    interval: tuple[float, float],
    noise: Noise,
    steps: int,
    churn: float,
    window: tuple[float, float],
    scale: float,
) -> tuple[Tensor, float]:
    """(x, sigma) with noise added before the step over `interval`: lines 4 to 6 of algorithm 2.

    Karras et al. 2022, arXiv:2206.00364: gamma = min(S_churn / N, sqrt(2) - 1) for sigma in [S_tmin, S_tmax],
    here `churn`, `steps` and `window`; `scale` is S_noise. No noise is drawn if gamma is 0.
    """
    sigma = interval[0]
    gamma = min(churn / steps, math.sqrt(2) - 1) if window[0] <= sigma <= window[1] else 0.0
    if gamma == 0:
        return x, sigma
    higher = sigma * (1 + gamma)
    return x + math.sqrt(higher**2 - sigma**2) * scale * noise(*interval), higher


def history_weights(
    nodes: Sequence[float], start: float, end: float, weight: Callable[[float], float] = lambda u: 1.0
) -> list[float]:
    """For each node j the integral from `start` to `end` of weight(u) L_j(u) du.

    L_j is the Lagrange polynomial that is 1 at node j and 0 at the others, so the sum of these weights times
    values at the nodes integrates the polynomial through the values: a linear multistep method
    (Adams-Bashforth without `weight`, an exponential integrator with one). By Gauss-Legendre quadrature,
    without the cancellation that the closed forms have for short steps.
    """
    middle, half = (start + end) / 2, (end - start) / 2
    totals = [0.0] * len(nodes)
    for point, share in _legendre():
        u = middle + half * point
        factor = half * share * weight(u)
        for j, node in enumerate(nodes):
            totals[j] += factor * math.prod((u - other) / (node - other) for other in nodes if other != node)
    return totals


def exponential_weights(nodes: Sequence[float], start: float, end: float, rate: float = 1.0) -> list[float]:
    """`history_weights` of an exponential integrator: weight(u) = rate * exp(-rate * (end - u)).

    In lambda = -log sigma the exact solution of the diffusion ODE (rate 1) or SDE (rate above 1) between two
    levels is exp(-rate * h) x plus the integral of this weight times the clean estimate: Lu et al. 2022,
    arXiv:2211.01095, prop. 4.1. The weights add up to 1 - exp(-rate * h).
    """
    return history_weights(nodes, start, end, lambda u: rate * math.exp(-rate * (end - u)))


def weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """The sum of weights times values, all of the same shape."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


@cache
def _legendre() -> list[tuple[float, float]]:
    """Points and weights on [-1, 1]; enough of them for a weight that falls by a factor of 50 in a step."""
    from numpy.polynomial.legendre import leggauss

    points, weights = leggauss(32)
    return list(zip(points.tolist(), weights.tolist(), strict=True))
