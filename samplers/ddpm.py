"""Denoising diffusion probabilistic models: the ancestral sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def ddpm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Draws each step from the posterior of the forward process: slow, with fresh noise at every step.

    Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, with the posterior's own variance (there: the second choice
    of section 3.2, "fixed small" in the authors' code), between any two levels of the grid. In the paper the
    state is sqrt(alpha_bar) * x; here both sides of eq. 6 and 7 are divided by sqrt(alpha_bar_next).
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + target**2)
        alpha = alpha_bar / alpha_bar_next
        beta = 1 - alpha
        keep = alpha * (1 - alpha_bar_next) / (1 - alpha_bar)
        mean = beta / (1 - alpha_bar) * x0 + keep * x
        variance = (1 - alpha_bar_next) / (1 - alpha_bar) * beta
        x = mean
        if target > 0:
            x = mean + math.sqrt(variance / alpha_bar_next) * noise(sigma, target)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("ddpm", ddpm, title="DDPM", paper="arXiv:2006.11239", stochastic=True)
