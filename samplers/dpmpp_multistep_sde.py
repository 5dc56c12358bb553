"""DPM-Solver++ for the diffusion SDE, with a history of two or three steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Eta, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Form = Annotated[
    Literal["exact", "k-diffusion"], "weight of the second difference: whole, or half as in k-diffusion"
]
Solver = Annotated[Literal["midpoint", "heun"], "weighting of the extrapolation"]


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    solver: Solver = "midpoint",
) -> Iterator[Step]:
    """Extrapolates the last two clean estimates, with fresh noise: detailed in 20 to 30 steps.

    SDE-DPM-Solver++(2M): Lu et al. 2022, arXiv:2211.01095, appendix, in k-diffusion's form, where eta sets
    the amount of noise (1: the paper's SDE, 0: DPM-Solver++(2M)) and `solver` the weighting of the
    extrapolation.
    """
    old, h_last = None, 0.0
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if target == 0:
            yield Step(i, target, x0, x0)
            return
        h = math.log(sigma / target)
        total = (1 + eta) * h
        gain = -math.expm1(-total)
        x = math.exp(-total) * x + gain * x0
        if old is not None:
            weight = gain / 2 if solver == "midpoint" else 1 - gain / total
            x = x + weight * h / h_last * (x0 - old)
        if eta > 0:
            x = x + _spread(target, h, eta) * s_noise * noise(sigma, target)
        old, h_last = x0, h
        yield Step(i, target, x, x0)


def dpmpp_3m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    form: Form = "exact",
) -> Iterator[Step]:
    """Extrapolates the last three clean estimates, with fresh noise: good from about 30 steps.

    SDE-DPM-Solver++(3M), after k-diffusion. The parabola through the last three clean estimates is integrated
    exactly. k-diffusion halves the weight of its second difference, which loses the third order: `form`
    chooses that, for images of programs that use it.
    """
    history: list[Tensor] = []
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        if target == 0:
            yield Step(i, target, x0, x0)
            return
        h = math.log(sigma / target)
        history = [x0, *history[:2]]
        nodes = [-math.log(sigmas[i - k]) for k in range(len(history))]
        weights = maths.exponential_weights(nodes, -math.log(sigma), -math.log(target), 1 + eta)
        x = math.exp(-(1 + eta) * h) * x + maths.weighted(weights, history)
        if form == "k-diffusion" and len(history) == 3:
            x = x + _half_second_difference(nodes, h, (1 + eta) * h, history)
        if eta > 0:
            x = x + _spread(target, h, eta) * s_noise * noise(sigma, target)
        yield Step(i, target, x, x0)


def _half_second_difference(
    nodes: Sequence[float], h: float, total: float, history: Sequence[Tensor]
) -> Tensor:
    """What the exact step of dpmpp_3m_sde lacks to be k-diffusion's. nodes: -log sigma, the newest first."""
    r0, r1 = (nodes[0] - nodes[1]) / h, (nodes[1] - nodes[2]) / h
    second = ((history[0] - history[1]) / r0 - (history[1] - history[2]) / r1) / (r0 + r1)
    phi2 = math.expm1(-total) / total + 1
    return (phi2 / total - 0.5) * second


def _spread(target: float, h: float, eta: float) -> float:
    """Standard deviation of the noise that a step of length h in log sigma ends with."""
    return target * math.sqrt(-math.expm1(-2 * eta * h))


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    shared: dict[str, Any] = {"paper": "arXiv:2211.01095", "stochastic": "eta", "noise": "brownian"}
    register("dpmpp_2m_sde", dpmpp_2m_sde, title="DPM++ 2M SDE", schedule="karras", **shared)
    register("dpmpp_3m_sde", dpmpp_3m_sde, title="DPM++ 3M SDE", schedule="exponential", **shared)
