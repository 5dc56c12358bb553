"""The table of noise levels: right values, and sigma and timestep as each other's inverse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.inference.plan import strength_message
from core.sampling.schedule import BetaSchedule, NoiseSchedule, last_part

MODEL = NoiseSchedule.from_betas("scaled_linear")


def test_stable_diffusions_table() -> None:
    """The ends that every implementation of Stable Diffusion's schedule prints, to their digits."""
    assert len(MODEL) == len(MODEL.sigmas) == 1000
    assert MODEL.sigma_min == pytest.approx(0.0292, abs=5e-5)
    assert MODEL.sigma_max == pytest.approx(14.6146, abs=5e-5)


def test_betas_are_kept() -> None:
    linear = NoiseSchedule.from_betas("linear", start=0.1, end=0.3, count=3)
    assert linear.alphas_cumprod == pytest.approx((0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7))
    scaled = NoiseSchedule.from_betas("scaled_linear", start=0.01, end=0.09, count=3)
    assert scaled.alphas_cumprod == pytest.approx((0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91))


def test_sigma_is_the_noise_to_signal_ratio() -> None:
    for alpha_bar, sigma in zip(MODEL.alphas_cumprod, MODEL.sigmas, strict=True):
        assert alpha_bar == pytest.approx(1 / (1 + sigma**2), rel=1e-12)


def test_grid_levels_are_exact_timesteps() -> None:
    assert [MODEL.timestep(sigma) for sigma in MODEL.sigmas] == [float(t) for t in range(1000)]
    assert [MODEL.sigma(t) for t in range(1000)] == list(MODEL.sigmas)


@given(st.floats(0, 999))
@settings(deadline=None)
def test_timestep_inverts_sigma(t: float) -> None:
    assert MODEL.timestep(MODEL.sigma(t)) == pytest.approx(t, abs=1e-6)


@given(st.floats(0, 1000), st.floats(0, 1000))
@settings(deadline=None)
def test_timestep_rises_with_sigma(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= MODEL.timestep(low) <= MODEL.timestep(high) <= 999


def test_between_two_timesteps_log_sigma_is_linear() -> None:
    middle = math.sqrt(MODEL.sigmas[500] * MODEL.sigmas[501])
    assert MODEL.timestep(middle) == pytest.approx(500.5, abs=1e-9)
    assert MODEL.sigma(500.5) == pytest.approx(middle, rel=1e-12)


def test_outside_the_table_is_clamped() -> None:
    assert MODEL.timestep(0.0) == MODEL.timestep(1e-9) == 0.0
    assert MODEL.timestep(1e6) == 999.0
    assert MODEL.sigma(-3) == MODEL.sigma_min
    assert MODEL.sigma(1e6) == MODEL.sigma_max


@pytest.mark.parametrize("alphas", [(), (0.5,), (0.5, 0.5), (0.5, 0.9), (1.0, 0.5), (0.5, 0.0)])
def test_a_table_that_is_none_is_refused(alphas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="alphas_cumprod"):
        NoiseSchedule(alphas)


def test_an_offset_outside_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="steps_offset"):
        NoiseSchedule((0.9, 0.5), steps_offset=2)


def test_unknown_betas_are_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        NoiseSchedule.from_betas("cosine")  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("zero", [False, True])
def test_tables_are_those_of_diffusers(kind: BetaSchedule, zero: bool) -> None:
    """Its arithmetic is in single precision; its last alpha_bar is 0 where ours is next to nothing."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        beta_schedule=kind, beta_start=1e-4, beta_end=0.02, rescale_betas_zero_snr=zero
    ).alphas_cumprod.tolist()
    ours = NoiseSchedule.from_betas(kind, 1e-4, 0.02, zero_terminal_snr=zero).alphas_cumprod
    assert ours[:-1] == pytest.approx(theirs[:-1], rel=2e-3, abs=1e-8)
    assert ours[-1] == pytest.approx(theirs[-1], abs=1e-7)
    assert (theirs[-1] == 0) is zero


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_without_terminal_signal_the_levels_stay_finite(kind: BetaSchedule) -> None:
    model = NoiseSchedule.from_betas(kind, zero_terminal_snr=True)
    plain = NoiseSchedule.from_betas(kind)
    assert model.sigma_min == pytest.approx(plain.sigma_min)
    assert 4000 < model.sigma_max < 100_000  # 1e5 is the most that a person may type
    assert model.timestep(model.sigma_max) == 999


def test_a_strength_takes_the_last_part_of_the_grid() -> None:
    grid = [float(20 - i) for i in range(21)]
    assert last_part(grid, 0.6) == tuple(grid[8:])
    assert last_part(grid, 1.0) == tuple(grid)
    assert last_part(grid, 0.04) == (0.0,)
    assert strength_message(grid, 0.6) == "strength 0.6 x 20 = 12 steps, from sigma 12"
    assert strength_message([14.6, 3.4321, 0.0], 0.5) == "strength 0.5 x 2 = 1 step, from sigma 3.43"
