"""The built-in schedules: what every grid must be, and diffusers' own timesteps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.sampling.registry import ScheduleInfo
from core.sampling.schedule import NoiseSchedule, Schedule
from samplers.schedules import (
    align_your_steps,
    beta,
    exponential,
    karras,
    kl_optimal,
    laplace,
    leading,
    linear_quadratic,
    linspace,
    normal,
    polyexponential,
    sgm_uniform,
    simple,
    trailing,
)
from samplers.schedules.align_your_steps import STABLE_DIFFUSION_LEVELS

MODEL = NoiseSchedule.from_betas("scaled_linear")
SHORT = NoiseSchedule.from_betas("linear", start=0.001, end=0.2, count=60, steps_offset=0)
CURVES = [exponential, polyexponential, kl_optimal, laplace]
OTHERS = [sgm_uniform, simple, normal, beta]
BUILTIN = [leading, linspace, trailing, karras, *CURVES, *OTHERS]
# These have levels of their own, which need not lie between the model's.
FREE = [align_your_steps, linear_quadratic]
SPACINGS = [leading, linspace, trailing]


@pytest.mark.parametrize("schedule", BUILTIN)
@pytest.mark.parametrize("model", [MODEL, SHORT])
@given(data=st.data())
@settings(deadline=None)
def test_a_grid_falls_from_the_models_noise_to_zero(
    schedule: Schedule, model: NoiseSchedule, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, len(model)))
    sigmas = schedule(model, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in pairwise(sigmas))
    assert all(type(sigma) is float for sigma in sigmas)
    slack = 1 + 1e-12  # karras' curve passes through the ends only to rounding
    assert model.sigma_min / slack <= sigmas[-2] <= sigmas[0] <= model.sigma_max * slack


@pytest.mark.parametrize("schedule", SPACINGS)
def test_every_count_of_steps_works(schedule: Schedule) -> None:
    for steps in range(1, 1001):
        sigmas = schedule(MODEL, steps)
        assert len(sigmas) == steps + 1
        assert all(a > b for a, b in pairwise(sigmas))
        assert set(sigmas[:-1]) <= set(MODEL.sigmas)


@pytest.mark.parametrize("schedule", [*BUILTIN, *FREE])
@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_too_many_or_no_steps_is_a_sentence(schedule: Schedule, steps: int) -> None:
    with pytest.raises(UserError, match=f"{steps} steps .* 1 to 1000"):
        schedule(MODEL, steps)


@pytest.mark.parametrize("schedule", [linspace, trailing, karras, *CURVES, *OTHERS, linear_quadratic])
def test_these_start_at_full_noise(schedule: Schedule) -> None:
    for steps in (1, 2, 10, 1000):
        assert schedule(MODEL, steps)[0] == pytest.approx(MODEL.sigma_max, rel=1e-12)


def test_leading_uses_the_models_offset() -> None:
    without = NoiseSchedule(MODEL.alphas_cumprod, steps_offset=0)
    assert leading(MODEL, 4) == (*(MODEL.sigmas[t] for t in (751, 501, 251, 1)), 0.0)
    assert leading(without, 4) == (*(MODEL.sigmas[t] for t in (750, 500, 250, 0)), 0.0)


def test_karras_is_equation_5() -> None:
    sigmas = karras(MODEL, 5)
    roots = [sigma ** (1 / 7) for sigma in sigmas[:-1]]
    gaps = [a - b for a, b in pairwise(roots)]
    assert gaps == pytest.approx([gaps[0]] * 4, rel=1e-9)
    assert (sigmas[0], sigmas[4]) == pytest.approx((MODEL.sigma_max, MODEL.sigma_min))


@pytest.mark.parametrize("schedule", SPACINGS)
def test_timesteps_are_those_of_diffusers(schedule: Schedule) -> None:
    """For every count of steps but these, which are deliberate.

    leading with 1000 steps: diffusers' offset leaves the table of 1000 timesteps. linspace with 1: diffusers'
    only step is at the clean end, of no use. trailing: diffusers has one step too many for some counts.
    """
    scheduling_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    different = []
    for steps in range(1, 1001):
        scheduler: Any = scheduling_ddim.DDIMScheduler(timestep_spacing=schedule.__name__, steps_offset=1)
        scheduler.set_timesteps(steps)
        ours = [MODEL.timestep(sigma) for sigma in schedule(MODEL, steps)[:-1]]
        if not numpy.array_equal(scheduler.timesteps.numpy(), numpy.array(ours)):
            different.append(steps)
    if schedule is trailing:
        assert all(numpy.arange(1000, 0, -1000 / steps).size == steps + 1 for steps in different)
    else:
        assert different == {"leading": [1000], "linspace": [1]}[schedule.__name__]


@pytest.mark.parametrize("schedule", FREE)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 11, 30, 1000])
def test_the_free_ones_fall_to_zero(schedule: Schedule, steps: int) -> None:
    assert len(info(schedule).sigmas(MODEL, steps)) == steps + 1


def gaps(values: list[float]) -> list[float]:
    return [a - b for a, b in pairwise(values)]


def test_exponential_and_kl_optimal_are_even_in_their_variables() -> None:
    for schedule, place in ((exponential, math.log), (kl_optimal, math.atan), (polyexponential, math.log)):
        steps = gaps([place(sigma) for sigma in schedule(MODEL, 12)[:-1]])
        assert steps == pytest.approx([steps[0]] * 11)
        assert schedule(MODEL, 12)[-2] == pytest.approx(MODEL.sigma_min)
    roots = gaps([math.sqrt(math.log(s / MODEL.sigma_min)) for s in polyexponential(MODEL, 9, rho=2.0)[:-2]])
    assert roots == pytest.approx([roots[0]] * 7)


def test_time_grids() -> None:
    """sgm_uniform stops a step before the end, normal at it; simple takes rows of the table."""
    assert [MODEL.timestep(s) for s in sgm_uniform(MODEL, 9)[:-1]] == pytest.approx(
        [111 * k for k in range(9, 0, -1)]
    )
    assert [MODEL.timestep(s) for s in normal(MODEL, 10)[:-1]] == pytest.approx(
        [111 * k for k in range(9, -1, -1)]
    )
    assert [MODEL.timestep(s) for s in simple(MODEL, 3)[:-1]] == [999, 666, 333]


def test_beta_is_the_quantile_function() -> None:
    """The share of Beta(0.6, 0.6) below each timestep, by substituting u = sin^2 v in the integral."""

    def share(x: float) -> float:
        pieces = 20_000
        end = math.asin(math.sqrt(x))
        inside = (end * (i + 0.5) / pieces for i in range(pieces))
        return end / pieces * sum(2 * math.pow(math.sin(v) * math.cos(v), 0.2) for v in inside)

    places = [MODEL.timestep(sigma) / 999 for sigma in beta(MODEL, 8)[:-1]]
    assert places[0] == 1
    whole = share(1.0)
    for i, place in enumerate(places):
        assert share(place) / whole == pytest.approx(1 - i / 8, abs=2e-6)


def test_laplace_is_the_quantile_function() -> None:
    """Shares of the distribution are even between those of the model's ends, and sigma 1 is the middle."""

    def share(sigma: float) -> float:
        z = math.log(sigma) / 0.5
        return math.exp(z) / 2 if z < 0 else 1 - math.exp(-z) / 2

    steps = gaps([share(sigma) for sigma in laplace(MODEL, 15)[:-1]])
    assert steps == pytest.approx([steps[0]] * 14)


def test_align_your_steps_is_the_papers_table() -> None:
    """At ten steps; at others log-linear: at twenty every second level is the table's."""
    assert align_your_steps(MODEL, 10)[:-1] == pytest.approx(STABLE_DIFFUSION_LEVELS[:-1])
    assert align_your_steps(MODEL, 20)[:-1:2] == pytest.approx(STABLE_DIFFUSION_LEVELS[:-1])
    between = align_your_steps(MODEL, 20)
    assert between[1] == pytest.approx(math.sqrt(14.615 * 6.475))
    assert between[-2] == pytest.approx(math.sqrt(0.152 * 0.029))


def test_linear_quadratic_is_a_line_and_then_a_parabola_that_touches_it() -> None:
    done = [1 - sigma / MODEL.sigma_max for sigma in linear_quadratic(MODEL, 20)]
    assert done[10] == pytest.approx(0.025)
    assert gaps(done[:11]) == pytest.approx([-0.0025] * 10)
    second = gaps(gaps(done[10:]))
    assert second == pytest.approx([second[0]] * 9)
    # Touches: the first step of the parabola is the line's, plus half of a second difference.
    assert done[11] - done[10] == pytest.approx(0.0025 + second[0] / 2)
    assert done[-1] == 1


def info(schedule: Schedule) -> ScheduleInfo:
    return ScheduleInfo(name="odd", function=schedule, title="Odd", plugin="odd-grids", version="2.1")


def test_the_registry_hands_on_a_good_grid() -> None:
    assert info(lambda model, steps: [2, 1, 0]).sigmas(MODEL, 2) == (2.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "grid",
    [
        [2.0, 1.0],
        [2.0, 1.0, 0.5, 0.0],
        [2.0, 1.0, 0.5],
        [1.0, 1.0, 0.0],
        [1.0, 2.0, 0.0],
        [math.inf, 1.0, 0.0],
        [math.nan, 1.0, 0.0],
        ["much", 1.0, 0.0],
        None,
    ],
)
def test_a_bad_grid_is_a_sentence_with_its_plugin(grid: Any) -> None:
    with pytest.raises(UserError, match=r"Schedule odd \(odd-grids 2\.1\)"):
        info(lambda model, steps: grid).sigmas(MODEL, 2)
