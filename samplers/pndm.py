"""Pseudo linear multistep methods: PLMS and iPNDM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl, maths

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def plms(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """The sampler of the first Stable Diffusion: combines the last four slopes with fixed weights.

    Pseudo linear multistep: Liu et al. 2022, arXiv:2202.09778, eq. 12 with the transfer of eq. 9, which is
    Euler's step in sigma. As CompVis and diffusers (`skip_prk_steps`) run it, it starts with the mean of two
    slopes where the paper has Runge-Kutta steps, so the first step costs two evaluations. The weights
    are for equal gaps in time; with any smooth grid it is second order.
    """
    slopes: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        d = _mixed(slopes)
        if i == 0 and target > 0:
            x_next = x + (target - sigma) * d
            d = (d + (x_next - denoise(x_next, target)) / target) / 2
        x = x + (target - sigma) * d
        yield Step(i, target, x, x0)


def ipndm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """PLMS that starts with Euler's step: one evaluation in every step.

    Improved PNDM: Zhang and Chen 2022, arXiv:2204.13902, with slopes and steps in sigma.
    """
    slopes: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        x = x + (target - sigma) * _mixed(slopes)
        yield Step(i, target, x, x0)


# Adams-Bashforth with equal gaps, by the number of slopes, the newest first.
SHARES = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def _mixed(slopes: Sequence[Tensor]) -> Tensor:
    return maths.weighted(SHARES[len(slopes) - 1], slopes)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("plms", plms, title="PLMS", order=2, paper="arXiv:2202.09778", schedule="leading")
    register("ipndm", ipndm, title="iPNDM", order=2, paper="arXiv:2204.13902", schedule="trailing")
