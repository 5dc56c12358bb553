"""RES: a refined exponential integrator with a history of one step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl, maths

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def res_multistep(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Extrapolates the last two clean estimates with the exact solution's weights.

    RES, multistep of order two: Zhang et al. 2023, arXiv:2308.02157, with phi_1 and phi_2
    integrated exactly. It is DPM-Solver++(2M) with the weight of its "heun" variant.
    """
    history: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        history = [x0, *history[:1]]
        if target == 0:
            x = x0
        else:
            nodes = [-math.log(sigmas[i - k]) for k in range(len(history))]
            weights = maths.exponential_weights(nodes, -math.log(sigma), -math.log(target))
            x = target / sigma * x + maths.weighted(weights, history)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "res_multistep",
        res_multistep,
        title="RES multistep",
        order=2,
        paper="arXiv:2308.02157",
        schedule="karras",
    )
