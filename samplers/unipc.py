"""UniPC: a predictor, and a corrector without extra evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from latentcanvas import Range, Step, hookimpl, maths

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Order = Annotated[int, Range(1, 3, 1), "order of the predictor: 2 with guidance, 3 without"]
Variant = Annotated[Literal["bh1", "bh2"], "B(h) of the paper: h, or e^h - 1, which is better for few steps"]


def unipc(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    order: Order = 2,
    variant: Variant = "bh2",
) -> Iterator[Step]:
    """Corrects each step with the next one's clean estimate, at no extra cost.

    UniPC: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2, as multistep methods for the clean
    estimate. Solving their system for the coefficients means integrating the polynomial through the
    estimates, so B(h) cancels and remains only where the paper and its code simplify: in the second-order
    predictor and in the corrector of the first step. `x` is yielded as predicted; its correction comes with
    the next evaluation. The order falls towards the end, so that the step to 0 is first order.
    """
    history: list[tuple[float, Tensor]] = []  # (level, clean estimate), the newest first
    x_last, used = x, 0
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if history:
            x = _corrected(x_last, [(sigma, x0), *history[:used]], variant)
        history = [(sigma, x0), *history[:2]]
        used = min(order, len(history), len(sigmas) - 1 - i)
        x_last = x
        x = _predicted(x, history[:used], target, variant)
        yield Step(i, target, x, x0)


def _predicted(x: Tensor, history: Sequence[tuple[float, Tensor]], target: float, variant: str) -> Tensor:
    """UniP: from x at the newest level of `history` to `target`."""
    (sigma, m0), *older = history
    x_next = m0 + target / sigma * (x - m0)
    if len(older) == 1:
        level, m1 = older[0]
        h = math.log(sigma / target)
        return x_next + _b(h, variant) / 2 * h / math.log(level / sigma) * (m0 - m1)
    if older:
        return _integrated(x, history, sigma, target)
    return x_next


def _corrected(x: Tensor, history: Sequence[tuple[float, Tensor]], variant: str) -> Tensor:
    """UniC: the last step again, from x at the second level of `history` to the first, with all estimates."""
    (target, m), (sigma, m0), *older = history
    if older:
        return _integrated(x, history, sigma, target)
    return m0 + target / sigma * (x - m0) + _b(math.log(sigma / target), variant) / 2 * (m - m0)


def _integrated(x: Tensor, history: Sequence[tuple[float, Tensor]], sigma: float, target: float) -> Tensor:
    nodes = [-math.log(level) for level, _ in history]
    weights = maths.exponential_weights(nodes, -math.log(sigma), -math.log(target))
    return target / sigma * x + maths.weighted(weights, [m for _, m in history])


def _b(h: float, variant: str) -> float:
    return h if variant == "bh1" else -math.expm1(-h)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("unipc", unipc, title="UniPC", order=3, paper="arXiv:2302.04867", schedule="trailing")
