"""Katherine Crowson's linear multistep method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl, maths

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Order = Annotated[int, Range(1, 4, 1), "number of slopes in the history"]


def lms(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, order: Order = 4
) -> Iterator[Step]:
    """Extrapolates the last four slopes: one evaluation per step, smooth, weak at few steps.

    Adams-Bashforth on a grid of any spacing, as in k-diffusion: the polynomial in sigma through the last
    `order` slopes, fewer at the start, is integrated over the step. Zhang and Chen 2022, arXiv:2204.13902,
    call it rho-AB.
    """
    slopes: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma, *slopes[: order - 1]]
        nodes = [sigmas[i - k] for k in range(len(slopes))]
        x = x + maths.weighted(maths.history_weights(nodes, sigma, target), slopes)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("lms", lms, title="LMS", order=4, paper="arXiv:2204.13902", schedule="karras")
