"""Samplers for models distilled to predict the clean image in one step: LCM and TCD."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from latentcanvas import Range, Step, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Gamma = Annotated[float, Range(0, 1, 0.05), "fresh noise in each step: 1 is LCM, 0 is DDIM"]


def lcm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Jumps to the clean image and adds noise for the next step: 2 to 8 steps with a distilled model.

    Multistep consistency sampling: Song et al. 2023, arXiv:2303.01469, algorithm 1; Luo et al. 2023,
    arXiv:2310.04378. The clean estimate is used as the consistency function: the boundary scalings
    c_skip and c_out differ from 0 and 1 by less than 1e-5 at the visited levels.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        x = x0 + target * noise(sigma, target) if target > 0 else x0
        yield Step(i, target, x, x0)


def tcd(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, *, gamma: Gamma = 0.3
) -> Iterator[Step]:
    """Jumps below the next level and adds noise up to it: keeps more detail over several steps than LCM.

    Strategic stochastic sampling: Zheng et al. 2024, arXiv:2402.19159, where the jump goes to
    the time s = (1 - gamma) t. Time here is that of a process whose beta grows linearly from 0, for which
    log(1 + sigma^2) is proportional to t^2; the timesteps of Stable Diffusion are within 5% of this.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        s = math.sqrt(math.expm1((1 - gamma) ** 2 * math.log1p(target**2)))
        x = x0 + s / sigma * (x - x0)
        if gamma > 0 and target > 0:
            x = x + math.sqrt(target**2 - s**2) * noise(sigma, target)
        yield Step(i, target, x, x0)


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    shared: dict[str, Any] = {"schedule": "trailing", "distilled": True}
    register("lcm", lcm, title="LCM", paper="arXiv:2310.04378", stochastic=True, **shared)
    register("tcd", tcd, title="TCD", paper="arXiv:2402.19159", stochastic="gamma", **shared)
