"""DDPM and DDIM against diffusers' schedulers step for step, against each other's identities, and against the
closed form for Gaussian latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from core.conformance import gaussian, points
from core.sampling.contract import Noise, Step
from core.sampling.denoiser import Denoiser
from core.sampling.schedule import NoiseSchedule, Schedule
from samplers.ddim import ddim
from samplers.ddpm import ddpm
from samplers.schedules import karras, leading, linspace, trailing

MODEL = NoiseSchedule.from_betas("scaled_linear")
SHAPE = (2, 4, 8, 8)
SPACINGS = [leading, linspace, trailing]
ETAS = [0.0, 0.4, 1.0]


class SmoothNetwork:
    """A random smooth epsilon(x, t): what a trained network is like, without one. x (B, C, h, w)."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64) * 0.6
        self.inner, self.outer = weights.to(dtype)

    def __call__(self, x: Tensor, timestep: Tensor, context: Tensor | None = None) -> Tensor:
        phase = (timestep / 160).to(x.dtype)[:, None, None, None]
        hidden = torch.sin(torch.einsum("oc,bchw->bohw", self.inner, x) + phase)
        return 0.7 * x + 0.3 * torch.einsum("oc,bchw->bohw", self.outer, hidden)


def randn(count: int, dtype: torch.dtype, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def fed(draws: list[Tensor]) -> Noise:
    """A noise source that hands out `draws` in order."""
    rest: Iterator[Tensor] = iter(draws)
    return lambda sigma, target: next(rest)


def no_noise(sigma: float, target: float) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def our_states(
    sampler: Callable[..., Iterator[Step]], schedule: Schedule, draws: list[Tensor], **options: Any
) -> list[Tensor]:
    """The start and every state, in DDPM's coordinates, from the first of `draws` and the rest as noise."""
    dtype = draws[0].dtype
    text = torch.zeros(1, 1, 1)
    denoise = Denoiser(
        SmoothNetwork(dtype),
        MODEL,
        prediction="epsilon",
        conditional=text,
        unconditional=None,
        cfg_scale=1.0,
        dtype=dtype,
    )
    sigmas = schedule(MODEL, len(draws) - 1)
    x = math.sqrt(1 + sigmas[0] ** 2) * draws[0]
    steps = list(sampler(denoise, x, sigmas, fed(draws[1:]), **options))
    assert [(step.index, step.sigma) for step in steps] == list(enumerate(sigmas[1:]))
    return [draws[0], *(step.x / math.sqrt(1 + step.sigma**2) for step in steps)]


def their_scheduler(name: str, schedule: Schedule, count: int, dtype: torch.dtype, **config: Any) -> Any:
    module = pytest.importorskip(f"diffusers.schedulers.scheduling_{name}")
    scheduler = getattr(module, f"{name.upper()}Scheduler")(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing=schedule.__name__,
        steps_offset=1,
        clip_sample=False,
        **config,
    )
    # diffusers makes its table in single precision, 1e-4 off in the last of the thousand products.
    scheduler.alphas_cumprod = torch.tensor(MODEL.alphas_cumprod, dtype=torch.float64).to(dtype)
    scheduler.set_timesteps(count)
    return scheduler


def diffusers_ddpm(schedule: Schedule, draws: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    scheduler = their_scheduler("ddpm", schedule, len(draws) - 1, draws[0].dtype)
    rest = iter(draws[1:])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(rest))
    network = SmoothNetwork(draws[0].dtype)
    states = [draws[0]]
    for t in scheduler.timesteps:
        output = network(states[-1], t.float().expand(SHAPE[0]))
        states.append(scheduler.step(output, t, states[-1]).prev_sample)
    return states


def diffusers_ddim(schedule: Schedule, draws: list[Tensor], eta: float, **config: Any) -> list[Tensor]:
    scheduler = their_scheduler("ddim", schedule, len(draws) - 1, draws[0].dtype, **config)
    network = SmoothNetwork(draws[0].dtype)
    states = [draws[0]]
    timesteps = [*scheduler.timesteps.tolist(), -1]
    for (t, following), draw in zip(pairwise(timesteps), draws[1:], strict=True):
        # Deliberate difference: diffusers steps from t to t - 1000 // N, where the next step starts only with
        # `leading`. This number of steps makes it go there with the other spacings too.
        scheduler.num_inference_steps = Fraction(1000, t - following)
        output = network(states[-1], torch.full((SHAPE[0],), float(t)))
        states.append(scheduler.step(output, t, states[-1], eta=eta, variance_noise=draw).prev_sample)
    return states


def assert_same_path(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


PRECISIONS = [
    pytest.param(torch.float64, 1e-9, id="float64"),
    pytest.param(torch.float32, 1e-5, id="float32"),
]


@pytest.mark.parametrize("schedule", SPACINGS)
@pytest.mark.parametrize("count", [10, 30])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_ddpm_is_diffusers_ddpm(
    schedule: Schedule, count: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliberate difference: diffusers adds noise of variance 1e-20 in the last step, we add none.

    That is the largest difference there is in float64.
    """
    draws = randn(count + 1, dtype)
    theirs = diffusers_ddpm(schedule, draws, monkeypatch)
    assert_same_path(our_states(ddpm, schedule, draws), theirs, tolerance)


@pytest.mark.parametrize("schedule", SPACINGS)
@pytest.mark.parametrize("count", [10, 30])
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_ddim_is_diffusers_ddim(
    schedule: Schedule, count: int, eta: float, dtype: torch.dtype, tolerance: float
) -> None:
    draws = randn(count + 1, dtype)
    theirs = diffusers_ddim(schedule, draws, eta)
    assert_same_path(our_states(ddim, schedule, draws, eta=eta), theirs, tolerance)


def test_the_last_step_goes_to_the_clean_latent() -> None:
    """Deliberate difference: with `set_alpha_to_one=False` (Stable Diffusion's own setting) diffusers ends at
    the noise level of timestep 0, we at 0. Every state before the last is the same.
    """
    draws = randn(11, torch.float64)
    ours = our_states(ddim, leading, draws)
    theirs = diffusers_ddim(leading, draws, 0.0, set_alpha_to_one=False)
    scheduler = their_scheduler("ddim", leading, 10, torch.float64, set_alpha_to_one=False)
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(MODEL.alphas_cumprod[0])
    assert_same_path(ours[:-1], theirs[:-1], 1e-10)
    assert 1e-5 < (ours[-1] - theirs[-1]).norm() / ours[-1].norm() < 0.1


# Identities between the methods, written here the short way in sigma.


def euler(denoise: Any, x: Tensor, sigmas: tuple[float, ...], noise: Noise) -> Iterator[Tensor]:
    for sigma, target in pairwise(sigmas):
        x = x + (target - sigma) * (x - denoise(x, sigma)) / sigma
        yield x


def euler_ancestral(denoise: Any, x: Tensor, sigmas: tuple[float, ...], noise: Noise) -> Iterator[Tensor]:
    """With eta 1: down to the level that, with `up` of fresh noise, is `target`."""
    for sigma, target in pairwise(sigmas):
        up = target * math.sqrt(sigma**2 - target**2) / sigma
        down = math.sqrt(target**2 - up**2)
        x = x + (down - sigma) * (x - denoise(x, sigma)) / sigma
        if target > 0:
            x = x + up * noise(sigma, target)
        yield x


@pytest.mark.parametrize("schedule", [*SPACINGS, karras])
def test_ddim_without_eta_is_euler(schedule: Schedule) -> None:
    sigmas = tuple(schedule(MODEL, 12))
    (x,) = randn(1, torch.float64)
    denoise = points(torch.stack([tensor[0] for tensor in randn(5, torch.float64, seed=9)]))
    ours = [step.x for step in ddim(denoise, sigmas[0] * x, sigmas, no_noise, eta=0.0)]
    assert_same_path(ours, list(euler(denoise, sigmas[0] * x, sigmas, no_noise)), 1e-12)


@pytest.mark.parametrize("schedule", [*SPACINGS, karras])
def test_ddpm_is_ancestral_euler_and_ddim_with_eta_one(schedule: Schedule) -> None:
    sigmas = tuple(schedule(MODEL, 12))
    x, *draws = randn(13, torch.float64)
    denoise = points(torch.stack([tensor[0] for tensor in randn(5, torch.float64, seed=9)]))
    ours = [step.x for step in ddpm(denoise, sigmas[0] * x, sigmas, fed(draws))]
    assert_same_path(ours, list(euler_ancestral(denoise, sigmas[0] * x, sigmas, fed(draws))), 1e-10)
    also = [step.x for step in ddim(denoise, sigmas[0] * x, sigmas, fed(draws), eta=1.0)]
    assert_same_path(also, ours, 1e-10)


# Gaussian latents N(MEAN, STD^2), for which the denoiser and the result are known exactly.

MEAN, STD = 0.7, 0.5


def test_ddim_is_first_order_on_the_exact_solution() -> None:
    """Halving the steps' width halves the error against the closed form of the probability-flow ODE.

    At the last level above 0, because the step from there to 0 is the same one on every grid.
    """
    (draw,) = randn(1, torch.float64)
    errors = []
    for count in (50, 100, 200, 400):
        sigmas = karras(MODEL, count)
        x = MEAN + math.sqrt(STD**2 + sigmas[0] ** 2) * draw
        *_, step, _ = ddim(gaussian(MEAN, STD), x, sigmas, no_noise)
        exact = MEAN + math.sqrt(STD**2 + step.sigma**2) * draw
        errors.append((step.x - exact).norm().item())
    for wide, narrow in pairwise(errors):
        assert math.log2(wide / narrow) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_stochastic_samplers_reach_the_targets_mean_and_variance(
    sampler: Callable[..., Iterator[Step]],
) -> None:
    """Six standard errors of 65536 values: a bias of 2% in the mean or in the spread fails."""
    options = {} if sampler is ddpm else {"eta": 1.0}
    generator = torch.Generator().manual_seed(4)
    shape = (16, 4, 32, 32)

    def noise(sigma: float, target: float) -> Tensor:
        return torch.randn(shape, generator=generator)

    sigmas = karras(MODEL, 200)
    x = MEAN + math.sqrt(STD**2 + sigmas[0] ** 2) * noise(0, 0)
    *_, last = sampler(gaussian(MEAN, STD), x, sigmas, noise, **options)
    count = last.x.numel()
    assert last.x.mean().item() == pytest.approx(MEAN, abs=6 * STD / math.sqrt(count))
    assert last.x.std().item() == pytest.approx(STD, abs=6 * STD / math.sqrt(2 * count) + 0.001)


def test_noise_is_drawn_where_it_is_used_and_nowhere_else() -> None:
    sigmas = leading(MODEL, 6)
    (x,) = randn(1, torch.float32)
    for sampler, options, due in ((ddpm, {}, 5), (ddim, {"eta": 0.5}, 5), (ddim, {"eta": 0.0}, 0)):
        asked: list[tuple[float, float]] = []

        def noise(sigma: float, target: float, asked: list[tuple[float, float]] = asked) -> Tensor:
            asked.append((sigma, target))
            return torch.zeros(SHAPE)

        list(sampler(gaussian(), x, sigmas, noise, **options))
        assert asked == list(pairwise(sigmas))[:due]


def test_steps_keep_their_tensors_and_start_anywhere() -> None:
    """A run resumed from a step's state goes on as the whole one did."""
    sigmas = trailing(MODEL, 8)
    x, *draws = randn(9, torch.float32)
    for sampler, options in ((ddpm, {}), (ddim, {"eta": 0.3})):
        kept: list[tuple[Step, Tensor, Tensor]] = []
        for step in sampler(gaussian(MEAN, STD), sigmas[0] * x, sigmas, fed(draws), **options):
            kept.append((step, step.x.clone(), step.denoised.clone()))
        assert all(torch.equal(step.x, a) and torch.equal(step.denoised, b) for step, a, b in kept)
        later = sampler(gaussian(MEAN, STD), kept[3][0].x, sigmas[4:], fed(draws[4:]), **options)
        assert all(torch.equal(a.x, b[0].x) for a, b in zip(later, kept[4:], strict=True))
