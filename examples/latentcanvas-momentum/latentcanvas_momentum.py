"""Diffusion sampling with momentum: Wizadwongsa et al. 2023, arXiv:2307.11118."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler

Beta = Annotated[float, Range(0.1, 1, 0.05), "less is calmer and less exact; 1 is without momentum"]


def heavy_ball(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, beta: Beta = 0.8
) -> Iterator[Step]:
    """Euler's method along an average of the slopes so far: the calmest, of first order.

    Polyak's heavy ball as the paper has it: v' = (1 - beta) v + beta epsilon. Beta 1 is Euler's method.
    """
    velocity: Tensor | None = None
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        epsilon = (x - clean) / sigma
        velocity = epsilon if velocity is None else (1 - beta) * velocity + beta * epsilon
        x = x + (target - sigma) * velocity
        yield Step(i, target, x, clean)


def ghvb(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, beta: Beta = 0.8
) -> Iterator[Step]:
    """Momentum that keeps the second order: fewer artifacts than Adams-Bashforth at few steps.

    The paper's generalised heavy ball of order 2, its velocity divided by beta. The average v of the slopes
    is (1 - beta) / beta steps old; the weights of the last two bring it to half a step ahead, where a step's
    mean slope is. Beta 1 is Adams-Bashforth's method, as PLMS has it.
    """
    before: Tensor | None = None
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        epsilon = (x - clean) / sigma
        if before is None:
            velocity = slope = epsilon
        else:
            velocity = (1 - beta) * before + beta * epsilon
            slope = ((2 + beta) * velocity - (2 - beta) * before) / (2 * beta)
        x, before = x + (target - sigma) * slope, velocity
        yield Step(i, target, x, clean)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    paper = "arXiv:2307.11118"
    register("heavy_ball", heavy_ball, title="Heavy ball", paper=paper)
    register("ghvb", ghvb, title="Heavy ball 2", order=2, paper=paper)
