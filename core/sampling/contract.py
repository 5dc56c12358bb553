"""The sampler contract: what a sampler receives and what it yields.

A sampler is a generator function `sampler(denoise, x, sigmas, noise, *, options)` that yields one `Step` for
each interval of `sigmas`. State is in the coordinates of Karras et al. 2022 (arXiv:2206.00364): x = x0 +
sigma * noise. Nothing here imports torch at run time, so listing samplers is fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Denoise(Protocol):
    """The network as a sampler sees it: it estimates the clean latent from a noisy one."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The clean estimate (B, C, h, w) of `x` (B, C, h, w) at noise level `sigma` > 0, both float32."""
        ...


class GuidedDenoise(Denoise, Protocol):
    """A `Denoise` that also has the unconditional estimate, for solvers such as CFG++.

    `core.sampling.loop.run_sampler` passes one to every sampler; a bare function in a test need not be one.
    """

    @property
    def unconditional(self) -> Tensor:
        """The unconditional clean estimate (B, C, h, w) of the last call; not set before the first call.

        If that call had no guidance, it is what the call returned. Never changed afterwards.
        """
        ...


class Noise(Protocol):
    """A sampler's only source of randomness. A sampler draws only what it uses."""

    def __call__(self, sigma: float, target: float, /) -> Tensor:
        """Noise (B, C, h, w) of unit variance for the step from `sigma` down to `target`.

        Fresh at each call; with `noise="brownian"` at registration the increment of a Brownian path over the
        interval, in time log sigma, which is the same for the same interval.
        """
        ...


# A fresh draw each call, or the increments of a Brownian path (core/sampling/noise.py).
NoiseKind = Literal["fresh", "brownian"]

# (denoise, x, sigmas, noise, **options) -> steps. The options differ between samplers, hence the dots.
Sampler = Callable[..., Iterator["Step"]]


@dataclass(frozen=True)
class Range:
    """The bounds of a sampler's option: `eta: Annotated[float, Range(0, 1)] = 1.0`.

    Both ends are allowed values. `step` is that of a slider; it does not restrict typed values.
    """

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Range({self.low}, {self.high}) needs two finite ends, the lower one first")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(
                f"Range({self.low}, {self.high}, step={self.step}) needs a step inside the range"
            )


@dataclass(frozen=True, eq=False)  # eq: comparing tensors gives tensors, not a truth value
class Step:
    """What a sampler yields after each interval. The tensors are never changed afterwards."""

    index: int  # counts from 0
    sigma: float  # the noise level that x is at now
    x: Tensor  # (B, C, h, w) state after the step
    denoised: Tensor  # (B, C, h, w) clean estimate that the step used


class RegisterSampler(Protocol):
    """The function that the hook `register_samplers` receives."""

    def __call__(
        self,
        name: str,
        function: Sampler,
        *,
        title: str,
        order: int = 1,
        evals: int = 1,
        paper: str | None = None,
        schedule: str | None = None,
        adaptive: bool = False,
        stochastic: bool | str = False,
        noise: NoiseKind = "fresh",
        distilled: bool = False,
    ) -> Any:
        """Register a sampler under `name`, which commands and saved images use.

        title: its name in menus; the first line of the function's docstring becomes its description.
        order: of convergence, for the error at a given time. evals: calls of `denoise` in a usual step.
        paper: such as "arXiv:2006.11239". schedule: the schedule it works best with.
        adaptive: chooses its own steps, so it may yield any number of them.
        stochastic: it draws noise; or the name of the option that must be above zero for it to draw noise.
        noise: the kind of its `noise`. "fresh": every draw is new. "brownian": the increments of one path per
        seed, so that a sampler of a diffusion SDE converges to one image as the steps get smaller; two draws
        for one interval are then the same.
        distilled: only correct for models distilled to predict the clean image directly (LCM, TCD).
        """
        ...
