"""The registered samplers and schedules, and the status of each plugin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeVar

from core.checks import OptionValue, hint
from core.errors import UserError
from core.sampling.contract import NoiseKind, Sampler
from core.sampling.options import Option, check_options
from core.sampling.schedule import NoiseSchedule, Schedule


@dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """A registered sampler. `RegisterSampler` documents the fields."""

    name: str
    function: Sampler
    title: str
    order: int = 1
    evals: int = 1
    paper: str | None = None
    schedule: str | None = None
    adaptive: bool = False
    stochastic: bool | str = False
    noise: NoiseKind = "fresh"
    distilled: bool = False
    options: tuple[Option, ...] = ()
    plugin: str = ""  # its distribution or file
    version: str = ""
    summary: str = ""  # the first line of the function's docstring

    @property
    def kind(self) -> Literal["deterministic", "stochastic", "adaptive"]:
        """Its kind with every option at its default."""
        if self.adaptive:
            return "adaptive"
        return "stochastic" if self.draws_noise({}) else "deterministic"

    def draws_noise(self, options: Mapping[str, OptionValue]) -> bool:
        """Whether a run with these options draws noise after its start noise."""
        if isinstance(self.stochastic, bool):
            return self.stochastic
        value = self.check_options(options)[self.stochastic]
        return not isinstance(value, str) and value > 0

    def check_options(self, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """A value for every option, with defaults for those not given. Raises UserError."""
        return check_options(f"Sampler {self.name}", self.options, given)

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(filter(None, (self.plugin, self.version)))})"


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """A registered schedule."""

    name: str
    function: Schedule
    title: str
    paper: str | None = None
    plugin: str = ""
    version: str = ""
    summary: str = ""

    def sigmas(self, model: NoiseSchedule, steps: int) -> tuple[float, ...]:
        """Steps + 1 noise levels, strictly falling, the last 0.0. UserError if the plugin returns others."""
        try:
            levels = tuple(float(level) for level in self.function(model, steps))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"Schedule {self} failed with {type(error).__name__}: {error}") from error
        if len(levels) != steps + 1:
            raise UserError(
                f"Schedule {self} gave {len(levels)} noise levels for {steps} steps, not {steps + 1}."
            )
        if levels[-1] != 0 or not math.isfinite(levels[0]) or not all(a > b for a, b in pairwise(levels)):
            raise UserError(
                f"Schedule {self} gave noise levels that do not fall from a finite one down to 0."
            )
        return levels

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(filter(None, (self.plugin, self.version)))})"


@dataclass(frozen=True)
class PluginStatus:
    """One plugin and whether it loaded.

    `samplers` and `schedules` are the names it registered. With an `error` there are none, unless the error
    is only that a name was taken, or that a sampler prefers a schedule that is not registered.
    """

    name: str
    module: str
    distribution: str
    version: str
    builtin: bool
    samplers: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    error: str | None = None
    traceback: str | None = None

    def summary(self) -> str:
        """One line: its name, and what it registered or its error."""
        who = f"{self.name} ({' '.join(filter(None, (self.distribution, self.version)))})"
        return f"{who}: {self.error or ', '.join(self.samplers + self.schedules) or 'nothing'}"


Info = TypeVar("Info", SamplerInfo, ScheduleInfo)


@dataclass(frozen=True)
class Registry:
    """Everything registered, by name, and the status of every plugin, including failed ones."""

    samplers: dict[str, SamplerInfo] = field(default_factory=dict)
    schedules: dict[str, ScheduleInfo] = field(default_factory=dict)
    plugins: list[PluginStatus] = field(default_factory=list)

    def sampler(self, name: str) -> SamplerInfo:
        """The sampler of that name. Raises UserError with the nearest known name."""
        return _named("sampler", name, self.samplers)

    def schedule(self, name: str) -> ScheduleInfo:
        """The schedule of that name. Raises UserError with the nearest known name."""
        return _named("schedule", name, self.schedules)

    @property
    def failed(self) -> list[PluginStatus]:
        return [plugin for plugin in self.plugins if plugin.error is not None]

    def summary(self) -> str:
        """One line for the start: the counts, the third-party plugins, and what failed."""
        others = [p for p in self.plugins if not p.builtin and p.error is None]
        parts = [f"{_count(self.samplers, 'sampler')}, {_count(self.schedules, 'schedule')}"]
        if others:
            parts.append("plugins " + "; ".join(plugin.summary() for plugin in others))
        if self.failed:
            parts.append("failed " + "; ".join(plugin.summary() for plugin in self.failed))
        return ". ".join(parts) + "."


def _named(kind: str, name: str, known: Mapping[str, Info]) -> Info:
    if name not in known:
        raise UserError(f"There is no {kind} {name!r}{hint(name, known)}")
    return known[name]


def _count(things: Mapping[str, object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
