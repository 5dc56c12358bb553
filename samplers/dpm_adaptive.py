"""DPM-Solver with adaptive steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl
from samplers.dpm_fast import solver_step

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Tolerance = Annotated[float, Range(0.0001, 1, 0.001), "relative error allowed in a step"]
Floor = Annotated[float, Range(0.0001, 1, 0.0001), "absolute error allowed where the latents are near 0"]


def dpm_adaptive(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    rtol: Tolerance = 0.05,
    atol: Floor = 0.0078,
) -> Iterator[Step]:
    """Chooses its own steps, short where the image changes and long where it does not; batch size 1.

    DPM-Solver-23: Lu et al. 2022, arXiv:2206.00927, with k-diffusion's step control: the length
    changes by a limited function of error^(-1/3). It uses only the ends of the grid: from the first level to
    the last above 0, or 0.03 if that is lower, and from there to 0. Reading the error synchronises the device
    at each attempt.
    """
    i, sigma, end, h = 0, sigmas[0], min(sigmas[-2], 0.03), 0.05
    previous = x
    while sigma > end:
        x0 = denoise(x, sigma)
        slopes = [(x - x0) / sigma]
        while True:
            target = max(end, sigma * math.exp(-h))
            h = math.log(sigma / target)
            levels = [sigma, sigma * math.exp(-h / 3), sigma * math.exp(-2 * h / 3)]
            for k in (1, 2):
                u = solver_step(x, slopes[:k], levels[:k], levels[k])
                slopes = [*slopes[:k], (u - denoise(u, levels[k])) / levels[k]]
            low = solver_step(x, slopes[:2], levels[:2], target)
            high = solver_step(x, slopes, levels, target)
            allowed = (rtol * low.abs().maximum(previous.abs())).clamp(min=atol)
            error = float(((low - high) / allowed).square().mean().sqrt())
            factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
            h *= factor
            if factor >= 0.81:
                break
        x, previous, sigma = high, low, target
        if sigma > end:
            yield Step(i, sigma, x, x0)
            i += 1
    x0 = denoise(x, sigma)
    yield Step(i, 0.0, x0, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "dpm_adaptive",
        dpm_adaptive,
        title="DPM adaptive",
        order=3,
        evals=3,
        paper="arXiv:2206.00927",
        schedule="exponential",
        adaptive=True,
    )
