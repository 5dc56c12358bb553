"""A sampler for LatentCanvas: the second-order Runge-Kutta methods, midpoint and its relatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:  # for type checkers alone: listing samplers must not load torch
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler

Share = Annotated[float, Range(0.1, 0.9), "where in the step to look again: 0.5 is the midpoint method"]


def rk2(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, share: Share = 0.5
) -> Iterator[Step]:
    """Looks a second time part of the way down each step: two evaluations, second order.

    Any `share` a gives the second order, with the weights 1 - 1 / (2 a) and 1 / (2 a) of the two slopes; 2/3
    is Ralston's method.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        slope = (x - clean) / sigma  # dx/dsigma of the probability-flow ODE
        between = sigma + share * (target - sigma)
        guess = x + (between - sigma) * slope
        second = (guess - denoise(guess, between)) / between
        x = x + (target - sigma) * (slope + (second - slope) / (2 * share))
        yield Step(i, target, x, clean)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("rk2", rk2, title="Runge-Kutta 2", order=2, evals=2, schedule="karras")
