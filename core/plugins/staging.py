"""Checks and stages what one plugin registers, until all of it has succeeded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from core.sampling.contract import NoiseKind, Sampler
from core.sampling.options import RegistrationError, check_positional, read_options
from core.sampling.registry import PluginStatus, SamplerInfo, ScheduleInfo
from core.sampling.schedule import Schedule

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")


@dataclass(frozen=True)
class FoundPlugin:
    """A plugin that was found but not loaded."""

    name: str
    module: str
    distribution: str
    version: str
    builtin: bool
    load: Callable[[], object]

    def status(self) -> PluginStatus:
        return PluginStatus(self.name, self.module, self.distribution, self.version, self.builtin)


@dataclass
class Staged:
    """What one plugin registers, staged until all of it has succeeded."""

    source: FoundPlugin
    samplers: dict[str, SamplerInfo] = field(default_factory=dict)
    schedules: dict[str, ScheduleInfo] = field(default_factory=dict)

    def sampler(self, name: str, function: Sampler, *, title: str, **details: Any) -> None:
        """The `register` of `register_samplers`, which names the details."""
        _check_entry(name, title, self.samplers)
        found = {"options": read_options(function), "summary": _first_line(function)}
        origin = {"plugin": self.source.distribution, "version": self.source.version}
        info = SamplerInfo(name=name, function=function, title=title, **details, **found, **origin)
        _check_texts(name, info.paper, info.schedule)
        _check_count(f"sampler {name}: order", info.order)
        _check_count(f"sampler {name}: evals", info.evals)
        named = [option.name for option in info.options]
        if not isinstance(info.stochastic, bool) and info.stochastic not in named:
            raise RegistrationError(
                f"sampler {name}: stochastic must be true, false or an option, not {info.stochastic!r}"
            )
        if info.noise not in get_args(NoiseKind):
            raise RegistrationError(f"sampler {name}: noise must be fresh or brownian, not {info.noise!r}")
        self.samplers[name] = info

    def schedule(self, name: str, function: Schedule, *, title: str, paper: str | None = None) -> None:
        """The `register` of `register_schedules`."""
        _check_entry(name, title, self.schedules)
        _check_texts(name, paper)
        check_positional(function, 2, "model, steps")
        self.schedules[name] = ScheduleInfo(
            name=name,
            function=function,
            title=title,
            paper=paper,
            plugin=self.source.distribution,
            version=self.source.version,
            summary=_first_line(function),
        )


def _check_entry(name: object, title: object, staged: Iterable[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(f"{name!r} is not a valid name: use lower-case letters, digits and _ . + -")
    if not isinstance(title, str) or not title.strip():
        raise RegistrationError(f"{name} needs a title")
    if name in staged:
        raise RegistrationError(f"it registers {name!r} twice")


def _check_texts(name: str, *texts: object) -> None:
    if not all(text is None or isinstance(text, str) for text in texts):
        raise RegistrationError(f"{name}: paper and schedule must be text or None")


def _check_count(what: str, number: object) -> None:
    if not isinstance(number, int) or number < 1:
        raise RegistrationError(f"{what} must be a whole number from 1, not {number!r}")


def _first_line(function: object) -> str:
    return next(iter((getattr(function, "__doc__", None) or "").strip().splitlines()), "").strip()
