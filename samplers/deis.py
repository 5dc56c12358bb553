"""DEIS: an exponential integrator with a history of slopes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl, maths

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Order = Annotated[int, Range(1, 3, 1), "number of slopes in the history"]


def deis(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, order: Order = 3
) -> Iterator[Step]:
    """Extrapolates the last slopes in log sigma: good at few steps.

    DEIS, log-rho-AB: Zhang and Chen 2022, arXiv:2204.13902, with rho = sigma and a polynomial in log rho, as
    in diffusers. The step to 0 is Euler's.
    """
    slopes: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[: order - 1]]
        if target == 0:
            slopes = slopes[:1]
            weights = [-sigma]
        else:
            nodes = [math.log(sigmas[i - k]) for k in range(len(slopes))]
            weights = maths.history_weights(nodes, math.log(sigma), math.log(target), math.exp)
        x = x + maths.weighted(weights, slopes)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("deis", deis, title="DEIS", order=3, paper="arXiv:2204.13902", schedule="trailing")
