"""Runs of diffusers' schedulers on our grids of noise levels, with our noise and a smooth denoiser.

diffusers makes its tables in single precision and picks its own levels; here every table of a scheduler is
replaced by one in double precision, on the very grid that our sampler walks. States are in x = x0 + sigma *
noise throughout; schedulers that work in the DDPM's coordinates are handed x / sqrt(1 + sigma^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from core.sampling.contract import Noise, Step
from core.sampling.schedule import NoiseSchedule
from samplers.schedules import karras

MODEL = NoiseSchedule.from_betas("scaled_linear")
SHAPE = (2, 4, 6, 6)
COUNTS = [10, 30]
SINGLE, DOUBLE = 1e-5, 1e-9  # how near a final state must be, by what the other side computes in

# diffusers makes its tables, which are not used here, in a way that new numpy warns of.
NUMPY_WARNINGS = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

Sampler = Callable[..., Iterator[Step]]


class SmoothDenoiser:
    """A random smooth estimate of the clean latent: what a trained network is like, without one."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inner, self.outer = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64) * 0.6

    def epsilon(self, x: Tensor, sigma: float) -> Tensor:
        scaled = x / math.sqrt(1 + sigma**2)
        hidden = torch.sin(torch.einsum("oc,bchw->bohw", self.inner.to(x), scaled) + math.log(sigma))
        return 0.7 * scaled + 0.3 * torch.einsum("oc,bchw->bohw", self.outer.to(x), hidden)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return x - sigma * self.epsilon(x, sigma)


DENOISE = SmoothDenoiser()


def randn(count: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def grid(count: int) -> tuple[float, ...]:
    return karras(MODEL, count)


def start(sigmas: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return math.sqrt(1 + sigmas[0] ** 2) * randn(1, dtype, seed=3)[0]


def no_noise(sigma: float, target: float) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def by_step(sigmas: Sequence[float], draws: Sequence[Tensor]) -> Noise:
    """The draw of the step that starts at `sigma`."""
    return lambda sigma, target: draws[sigmas.index(sigma)]


def ours(
    sampler: Sampler,
    sigmas: Sequence[float],
    noise: Noise = no_noise,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> list[Tensor]:
    """Every state after the start."""
    steps = list(sampler(DENOISE, start(sigmas, dtype), sigmas, noise, **options))
    assert [(step.index, step.sigma) for step in steps] == list(enumerate(sigmas[1:]))
    return [step.x for step in steps]


def scheduler(module: str, name: str, count: int, **config: Any) -> Any:
    """A scheduler of diffusers that is about to take its first step."""
    found = getattr(pytest.importorskip(f"diffusers.schedulers.scheduling_{module}"), f"{name}Scheduler")
    made = found(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **config)
    made.set_timesteps(count)
    return ready(made)


def ready(made: Any) -> Any:
    made._step_index = 0
    made.is_scale_input_called = True
    return made


def draw_from(monkeypatch: pytest.MonkeyPatch, module: str, draws: Sequence[Tensor]) -> None:
    """Let a scheduler of `module` take its random numbers from `draws`, in order."""
    rest = iter(draws)
    home = import_module(f"diffusers.schedulers.scheduling_{module}")
    monkeypatch.setattr(home, "randn_tensor", lambda *args, **kwargs: next(rest))


def table(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def doubled(values: Tensor) -> Tensor:
    """The layout of a table for a scheduler of two evaluations a step."""
    return torch.cat([values[:1], values[1:-1].repeat_interleave(2), values[-1:]])


def drive(made: Any, x: Tensor, levels: Sequence[float], *, ddpm: bool = False, **given: Any) -> list[Tensor]:
    """The states after each call of `step`, which is given the network's output at each of `levels`.

    With `ddpm` the scheduler's own state is in the DDPM's coordinates; its next level is the next of
    `levels`, or 0.
    """
    states = []
    for i, sigma in enumerate(levels):
        following = levels[i + 1] if i + 1 < len(levels) else 0.0
        scale, scale_next = (math.sqrt(1 + level**2) if ddpm else 1.0 for level in (sigma, following))
        output = DENOISE.epsilon(x, sigma)
        x = made.step(output, made.timesteps[min(i, len(made.timesteps) - 1)], x / scale, **given).prev_sample
        x = x * scale_next
        states.append(x)
    return states


def gap(a: Tensor, b: Tensor) -> float:
    """Relative difference."""
    return float((a.double() - b.double()).norm() / b.double().norm())
