"""DPM-Solver++ for the diffusion SDE, in single steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from latentcanvas import Step, hookimpl, maths
from samplers.shared_options import Eta, NoiseScale

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


def dpmpp_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
) -> Iterator[Step]:
    """Fresh noise, two evaluations per step: rich detail, slow.

    k-diffusion's stochastic DPM-Solver++(2S) (Lu et al. 2022, arXiv:2211.01095) with r = 1/2: an ancestral
    step to the middle in log sigma, then one over the whole step with the clean estimate from there. The
    noise of both comes from one Brownian path.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = clean = denoise(x, sigma)
        if target > 0:
            middle = math.sqrt(sigma * target)
            u = _ancestral_step(x, x0, sigma, middle, noise, eta, s_noise)
            clean = denoise(u, middle)
        x = _ancestral_step(x, clean, sigma, target, noise, eta, s_noise)
        yield Step(i, target, x, x0)


def _ancestral_step(
    x: Tensor, x0: Tensor, sigma: float, target: float, noise: Noise, eta: float, s_noise: float
) -> Tensor:
    down, up = maths.ancestral(sigma, target, eta)
    x = x0 + down / sigma * (x - x0)
    return x + up * s_noise * noise(sigma, target) if up > 0 else x


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "dpmpp_sde",
        dpmpp_sde,
        title="DPM++ SDE",
        evals=2,
        paper="arXiv:2211.01095",
        schedule="karras",
        stochastic="eta",
        noise="brownian",
    )
