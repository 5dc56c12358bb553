"""Gradient estimation: Euler with a slope extrapolated from the last two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Gamma = Annotated[float, Range(1, 5, 0.1), "extrapolation of the slope; 1 is Euler"]


def gradient_estimation(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, gamma: Gamma = 2.0
) -> Iterator[Step]:
    """Euler with an extrapolated slope: better than Euler at the same cost.

    Permenter and Yuan 2023, arXiv:2306.04848: epsilon_bar = gamma epsilon_t + (1 - gamma)
    epsilon_(t+1), with gamma 2. The first step and the one to 0 are Euler's, as in ComfyUI.
    """
    last = None
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        epsilon = (x - x0) / sigma
        direction = epsilon
        if last is not None and target > 0:
            direction = gamma * epsilon + (1 - gamma) * last
        x = x + (target - sigma) * direction
        last = epsilon
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "gradient_estimation",
        gradient_estimation,
        title="Gradient estimation",
        paper="arXiv:2306.04848",
        schedule="karras",
    )
