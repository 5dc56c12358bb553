"""What a run will do before it begins: its parts, and the noise levels of each."""

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


# A level so near below the state's own is no step of its own.
_APART = 1 - 1e-4


@dataclass(frozen=True)
class Leg:
    """A part of a run by one set of settings: all of most runs.

    grid: the whole of its schedule. first: the steps before it. levels: those from there to 0.
    """

    settings: Settings
    sampler: SamplerInfo
    grid: tuple[float, ...]
    first: int
    levels: tuple[float, ...]

    @property
    def total(self) -> int:
        """The steps of a run that ends with it, those before it included."""
        return self.first + len(self.levels) - 1

    def beginning_at(self, sigma: float) -> Leg:
        """The same from the level at which a sampler that chooses its steps has left the state."""
        if sigma == self.levels[0]:
            return self
        return dataclasses.replace(self, levels=(sigma, *_below(self.grid, sigma)))


def legs(settings: Settings, model: NoiseSchedule, registry: Registry) -> list[Leg]:
    """The parts of a run, first to last. Raises UserError for a branch where nothing is left to run.

    After a sampler that chooses its own steps the levels are a guess: see `Leg.beginning_at`.
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
    """The levels that are left after the branch: the parent's own, unless the schedule changes there."""
    assert settings.branch is not None
    step, parent = settings.branch.step, before[-1]
    if any(leg.sampler.adaptive for leg in before):
        sigma = parent.levels[min(step - parent.first, len(parent.levels) - 2)]
    elif step >= parent.total:
        raise UserError(
            f"branch after step {step}: the run has {parent.total} and nothing is left; choose one before"
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
