"""The plan of a run: its parts, and the noise levels of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import UserError
from core.sampling.schedule import NoiseSchedule, last_part

if TYPE_CHECKING:
    from core.request.settings import Settings
    from core.sampling.registry import Registry, SamplerInfo


# A level closer than this below the state's own is skipped.
_APART = 1 - 1e-4


@dataclass(frozen=True)
class Leg:
    """A part of a run with one set of settings; without branches, the whole run.

    grid: the levels of its whole schedule. first: the number of steps before it. levels: those it runs, to 0.
    """

    settings: Settings
    sampler: SamplerInfo
    grid: tuple[float, ...]
    first: int
    levels: tuple[float, ...]

    @property
    def total(self) -> int:
        """The steps of a run that ends with this leg, including those before it."""
        return self.first + len(self.levels) - 1

    def beginning_at(self, sigma: float) -> Leg:
        """The same leg from the level at which an adaptive sampler has left the state."""
        if sigma == self.levels[0]:
            return self
        return dataclasses.replace(self, levels=(sigma, *_below(self.grid, sigma)))


def legs(settings: Settings, model: NoiseSchedule, registry: Registry) -> list[Leg]:
    """The parts of a run, first to last. Raises UserError for a branch where nothing is left to run.

    After an adaptive sampler the levels are an estimate: see `Leg.beginning_at`.
    """
    sampler = registry.sampler(settings.sampler)
    schedule = registry.schedule(settings.schedule)
    grid = tuple(settings.sigmas or schedule.sigmas(model, settings.steps))
    if settings.branch is None:
        levels = grid if settings.strength is None else last_part(grid, settings.strength)
        return [Leg(settings, sampler, grid, 0, tuple(levels))]
    before = legs(settings.branch.settings, model, registry)
    levels = _rest(before, settings, grid)
    return [*before, Leg(settings, sampler, grid, settings.branch.step, levels)]


def _rest(before: Sequence[Leg], settings: Settings, grid: Sequence[float]) -> tuple[float, ...]:
    """The levels left after the branch point: the parent's own, unless the schedule changes."""
    assert settings.branch is not None
    step, parent = settings.branch.step, before[-1]
    if any(leg.sampler.adaptive for leg in before):
        sigma = parent.levels[min(step - parent.first, len(parent.levels) - 2)]
    elif step >= parent.total:
        raise UserError(
            f"branch after step {step}: the run has {parent.total} steps, so nothing is left to run; "
            "choose an earlier step"
        )
    else:
        left = parent.levels[step - parent.first :]
        if _same_levels(settings, parent.settings):
            return left
        sigma = left[0]
    return (sigma, *_below(grid, sigma))


def _below(grid: Sequence[float], sigma: float) -> tuple[float, ...]:
    return tuple(level for level in grid if level < sigma * _APART)


def _same_levels(a: Settings, b: Settings) -> bool:
    return (a.schedule, a.steps, a.sigmas) == (b.schedule, b.steps, b.sigmas)


@dataclass(frozen=True)
class RunPlan:
    """What a run of `settings` will do.

    legs: the parts to run, first to last. before: the number of steps taken from another run. end: the step
    to stop after, if it is not the last. sigmas: the levels of all legs in sequence. message: for a run that
    does not run the whole grid from noise, such as "strength 0.6 x 20 = 12 steps, from sigma 3.4".
    """

    settings: Settings
    legs: tuple[Leg, ...]
    before: int
    end: int | None
    sigmas: tuple[float, ...]
    message: str


def plan_run(
    settings: Settings, model: NoiseSchedule, registry: Registry, branched_at: float | None = None
) -> RunPlan:
    """The plan of a run, before anything is computed.

    branched_at: the level of the state taken from another run after `settings.branch.step` steps; without it
    these steps are run too. What comes after an adaptive sampler is an estimate. Raises UserError for a
    branch or an end that the steps do not have.
    """
    parts = legs(settings, model, registry)
    before = 0
    if branched_at is not None and settings.branch is not None:
        before, parts = settings.branch.step, [parts[-1].beginning_at(branched_at)]
    levels: tuple[float, ...] = ()
    for leg in parts:
        levels = levels[: leg.first - parts[0].first] + leg.levels
    return RunPlan(settings, tuple(parts), before, _end_of(parts, settings), levels, _message(parts[-1]))


def _end_of(parts: list[Leg], settings: Settings) -> int | None:
    """The step to stop after. Raises UserError if the run is known to have fewer steps."""
    end, total = settings.stop_after, parts[-1].total
    if end is not None and end > total and not any(leg.sampler.adaptive for leg in parts):
        raise UserError(f"stop after {end}: the run has {total} steps; choose at most {total}")
    return end


def _message(leg: Leg) -> str:
    """The message of a run that does not run the whole grid from noise; else empty."""
    settings = leg.settings
    if settings.branch is not None:
        return f"branched after step {leg.first} of {leg.total}, at sigma {leg.levels[0]:.3g}"
    return "" if settings.strength is None else strength_message(leg.grid, settings.strength)


def strength_message(sigmas: Sequence[float], strength: float) -> str:
    """The steps that a denoising strength runs: "strength 0.6 x 20 = 12 steps, from sigma 3.4"."""
    part = last_part(sigmas, strength)
    count = len(part) - 1
    steps = f"{count} step{'' if count == 1 else 's'}"
    return f"strength {strength:g} x {len(sigmas) - 1} = {steps}, from sigma {part[0]:.3g}"
