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
from core.registry import ScheduleInfo
from core.schedule import NoiseSchedule, Schedule
from samplers.schedules import karras, leading, linspace, trailing

MODEL = NoiseSchedule.from_betas("scaled_linear")
SHORT = NoiseSchedule.from_betas("linear", start=0.001, end=0.2, count=60, steps_offset=0)
BUILTIN = [leading, linspace, trailing, karras]
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


@pytest.mark.parametrize("schedule", BUILTIN)
@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_too_many_or_no_steps_is_a_sentence(schedule: Schedule, steps: int) -> None:
    with pytest.raises(UserError, match=f"{steps} steps .* 1 to 1000"):
        schedule(MODEL, steps)


@pytest.mark.parametrize("schedule", [linspace, trailing, karras])
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
