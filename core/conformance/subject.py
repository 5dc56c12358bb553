"""The sampler under test, and the denoisers, grids and noise that it is run with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from core.checks import OptionValue
from core.sampling.contract import Denoise, Noise, Step
from core.sampling.exact import Exact, consistency, gaussian
from core.sampling.noise import noise_source, start_noise
from core.sampling.registry import SamplerInfo

SHAPE = (4, 8, 8)  # (C, h, w)
HIGH = 14.6  # Stable Diffusion's largest sigma; all grids but one start there
LOW = 0.03
MEAN, STD = 0.5, 0.7  # of the clean latents
MOST_EVALS = 100_000  # of a whole run; with more, the sampler does not stop
MOST_STEPS = 10_000


class Wrong(Exception):
    """The rule is broken: how, and the measured value if there is one."""

    def __init__(self, sentence: str, figure: float | None = None) -> None:
        super().__init__(sentence)
        self.figure = figure


class NotJudged(Exception):
    """The rule cannot be checked: why."""


class Endless(Exception):
    """The sampler does not stop."""


def grid(steps: int, high: float = HIGH, low: float = LOW) -> list[float]:
    """`steps` intervals from `high` to `low` spaced as by Karras et al., the last one to 0."""
    rho = 7.0
    roots = (high ** (1 / rho), low ** (1 / rho))
    between = max(steps - 1, 1)
    return [(roots[0] + i / between * (roots[1] - roots[0])) ** rho for i in range(steps)] + [0.0]


def normal(count: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """(count, C, h, w) float32, the initial noise of runs with these seeds."""
    return start_noise(seed, count, shape)


def start(count: int = 1, seed: int = 0, sigma: float = HIGH) -> Tensor:
    """Noisy latents (count, C, h, w): clean latents N(MEAN, STD^2) with noise of level `sigma`."""
    return MEAN + math.hypot(STD, sigma) * normal(count, seed)


class Counted:
    """A denoiser that counts its calls and stops endless samplers."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.calls = denoise, 0
        self.unconditional: Tensor

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The clean estimate of x (B, C, h, w) at `sigma`. Raises Endless: more than MOST_EVALS calls."""
        self.calls += 1
        if self.calls > MOST_EVALS:
            raise Endless(f"does not stop: it called denoise {MOST_EVALS} times")
        clean = self.denoise(x, sigma)
        self.unconditional = getattr(self.denoise, "unconditional", clean)
        return clean


@dataclass(frozen=True)
class Subject:
    """A sampler with the options it is checked with."""

    info: SamplerInfo
    options: dict[str, OptionValue]

    @property
    def adaptive(self) -> bool:
        return self.info.adaptive

    @cached_property
    def draws(self) -> bool:
        """Whether it is declared to draw noise with these options."""
        return self.info.draws_noise(self.options)

    def as_declared(self) -> Subject:
        """With the default options, where the given ones make a deterministic sampler draw noise.

        Order and evaluations are declared for the default options.
        """
        if self.draws and not self.info.draws_noise({}):
            return Subject(self.info, self.info.check_options({}))
        return self

    def knowing(self, exact: Exact) -> Exact:
        """The exact denoiser of the kind of model that this sampler is made for."""
        return consistency(exact) if self.info.distilled else exact

    def denoiser(self) -> Exact:
        """The default denoiser: every value of a clean latent is N(MEAN, STD^2)."""
        return self.knowing(gaussian(MEAN, STD))

    def noise(self, seed: int = 0, count: int = 1, shape: tuple[int, int, int] = SHAPE) -> Noise:
        """The noise source of a run with this seed."""
        return noise_source(self.info.noise, seed, count, shape)

    def steps(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        """The running sampler from x (B, C, h, w), started as by the engine, without the engine's checks."""
        function: Callable[..., Iterator[Step]] = torch.no_grad()(self.info.function)
        return function(Counted(denoise), x, list(sigmas), noise, **self.options)

    def run(
        self,
        sigmas: Sequence[float],
        *,
        x: Tensor | None = None,
        denoise: Denoise | None = None,
        noise: Noise | None = None,
        seed: int = 0,
    ) -> list[Step]:
        """All steps, with copies of their tensors (B, C, h, w); of image `seed` by default."""
        x = start(seed=seed, sigma=sigmas[0]) if x is None else x.clone()
        noise = noise or self.noise(seed, len(x))
        return collect(self.steps(denoise or self.denoiser(), x, sigmas, noise), self.most(sigmas))

    def most(self, sigmas: Sequence[float]) -> int:
        """The maximum number of steps: one too many, to detect it."""
        return MOST_STEPS if self.adaptive else len(sigmas)

    @cached_property
    def repeatable(self) -> bool:
        """Whether one seed gives one result."""
        first, second = self.run(grid(6))[-1], self.run(grid(6))[-1]
        return same(first.x, second.x)

    def insist_on_repeatable(self) -> None:
        if not self.repeatable:
            raise NotJudged("depends on rule 4: one seed does not give one result")


def collect(steps: Iterator[Step], most: int) -> list[Step]:
    """Up to `most` steps, each copied when it is yielded."""
    taken = []
    for step in steps:
        taken.append(Step(step.index, step.sigma, step.x.clone(), step.denoised.clone()))
        if len(taken) >= most:
            break
    return taken


def same(a: Tensor, b: Tensor) -> bool:
    """Whether a and b, of any shape, are equal bit for bit, or both NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def rms(x: Tensor) -> float:
    """Root mean square of x, of any shape."""
    return float(x.double().square().mean().sqrt())


def largest(x: Tensor) -> float:
    """Largest absolute value of x, of any shape."""
    return float(x.abs().max())
