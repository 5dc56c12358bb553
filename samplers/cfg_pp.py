"""CFG++: the guided estimate, with the noise of the unguided one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from latentcanvas import Range, Step, hookimpl, maths
from samplers.shared_options import Eta

if TYPE_CHECKING:
    from torch import Tensor

    from latentcanvas import Denoise, Noise, RegisterSampler


Divisor = Annotated[float, Range(1, 20, 0.5), "divisor of the cfg scale; 12.5 in A1111"]


def euler_cfg_pp(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Euler with the noise of the unguided estimate: natural colours; use a cfg scale of 1 to 2.

    CFG++: Chung et al. 2024, arXiv:2406.08070, algorithm 2, in sigma. Its lambda is our cfg scale. The
    unguided estimate is `denoise.unconditional`; without guidance this is Euler.
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x0 = denoise(x, sigma)
        d = (x - _unguided(denoise, x0)) / sigma
        x = x0 + target * d
        yield Step(i, target, x, x0)


def ddim_cfg_pp(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Eta = 0.0,
    divisor: Divisor = 12.5,
) -> Iterator[Step]:
    """DDIM with the noise of the unguided estimate, for the usual cfg scales of 5 to 12.

    CFG++: Chung et al. 2024, arXiv:2406.08070, algorithm 2 (and its stochastic form for eta above 0), with
    lambda = cfg scale / `divisor`, as A1111's "DDIM CFG++". Without guidance this is DDIM
    (Song et al. 2020, arXiv:2010.02502, eq. 12).
    """
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        guided = denoise(x, sigma)
        unguided = _unguided(denoise, guided)
        x0 = unguided + (guided - unguided) / divisor
        down, up = maths.ancestral(sigma, target, eta)
        x = x0 + down / sigma * (x - unguided)
        if up > 0:
            x = x + up * noise(sigma, target)
        yield Step(i, target, x, x0)


def _unguided(denoise: Denoise, guided: Tensor) -> Tensor:
    unconditional = getattr(denoise, "unconditional", None)
    return guided if unconditional is None else unconditional


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register("euler_cfg_pp", euler_cfg_pp, title="Euler CFG++", paper="arXiv:2406.08070")
    register("ddim_cfg_pp", ddim_cfg_pp, title="DDIM CFG++", paper="arXiv:2406.08070", stochastic="eta")
