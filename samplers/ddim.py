"""Denoising diffusion implicit models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler

Eta = Annotated[float, Range(0, 1, 0.05), "fresh noise at each step: 0 is DDIM, 1 is DDPM"]


def ddim(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, eta: Eta = 0.0
) -> Iterator[Step]:
    """Only rescales the predicted noise: few steps are enough, and one seed gives one image.

    Song et al. 2020, arXiv:2010.02502, eq. 12 with the sigma of eq. 16 (s here, as sigma is our noise level).
    In the paper the state is sqrt(alpha_bar) * x, with alpha for alpha_bar; here eq. 12 is divided by
    sqrt(alpha_bar_next). With eta 0 this is Euler's method in sigma.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        epsilon = (x - x0) / sigma
        alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + target**2)
        s = eta * math.sqrt((1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next))
        x = x0 + math.sqrt((1 - alpha_bar_next - s**2) / alpha_bar_next) * epsilon
        if s > 0:
            x = x + s / math.sqrt(alpha_bar_next) * noise(sigma, target)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("ddim", ddim, title="DDIM", paper="arXiv:2010.02502", stochastic="eta")
