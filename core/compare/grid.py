"""Planning a comparison: the runs of a grid of settings, all checked before the first one starts.

A grid has one to three axes, each a setting with its typed values (core/compare/ranges.py). A race has
samplers as its axis, each with as many steps as a common number of model evaluations allows. Every cell is an
ordinary request with a seed, so that it can be run again alone. No torch here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from core.compare.axes import OPTION, Axis, Value, read_axis, title_of
from core.compare.ranges import Mistakes
from core.errors import UserError
from core.request import aliases
from core.request.model_defaults import Defaults
from core.request.request import Request, random_seed
from core.request.settings import Settings

if TYPE_CHECKING:
    from core.request.image_settings import InputInfo
    from core.sampling.registry import Registry, SamplerInfo

MOST_CELLS = 500
MOST_SAID = 6
MOST_AXES = 3


@dataclass(frozen=True)
class AxisRequest:
    """An axis as typed: the name of a setting (core/compare/axes.py) and the text of its values."""

    setting: str
    text: str


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, at (column, row, sheet). `evals` is an estimate."""

    at: tuple[int, int, int]
    request: Request
    settings: Settings
    model: str | None
    evals: int


@dataclass(frozen=True)
class GridPlan:
    """The runs of a comparison. `cells` are in the order they run: all of one model, then all of the next.

    axes: columns, then rows, then sheets. loads: how many models have to be loaded. about: whether the cost
    is only a guess because a sampler chooses its own steps. kind: "grid" or "race".
    """

    kind: str
    base: Request
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    loads: int
    about: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and sheets."""
        columns, rows, sheets = (*(len(axis.values) for axis in self.axes), 1, 1)[:3]
        return columns, rows, sheets

    @property
    def evals(self) -> int:
        """Model evaluations of all cells."""
        return sum(cell.evals for cell in self.cells)

    def label(self, cell: Cell) -> str:
        """The values of a cell on each axis."""
        return ", ".join(
            f"{axis.title}: {axis.values[i].label}" for axis, i in zip(self.axes, cell.at, strict=False)
        )


@dataclass(frozen=True)
class Speed:
    """The speed of this machine: seconds per evaluation, pixel and pass of the network."""

    seconds: float

    @classmethod
    def measured(cls, settings: Settings, evals: int, seconds: float) -> Speed | None:
        """The speed measured by a finished run; None if it had no evaluations or took no time."""
        work = evals * _size(settings)
        return cls(seconds / work) if work > 0 and seconds > 0 else None

    def of(self, cells: Iterable[Cell]) -> float:
        """Seconds that these cells will take, without loading models."""
        return self.seconds * sum(cell.evals * _size(cell.settings) for cell in cells)


@dataclass(frozen=True)
class Surroundings:
    """The context of a plan: plugins, the loaded model and its defaults, all models, and the init image."""

    registry: Registry
    defaults: Defaults
    models: tuple[str, ...] = ()
    loaded: str = ""
    given: InputInfo | None = None


def plan_grid(
    base: Request, asked: Sequence[AxisRequest], around: Surroundings, most: int = MOST_CELLS
) -> GridPlan:
    """Plan a grid of variations of `base`. Raises Mistakes with a sentence for each error."""
    base = _settled(base)
    axes = _axes(base, asked, around)
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > most:
        raise Mistakes([f"the grid has {count} cells: at most {most}; remove some values"])
    found: dict[tuple[int, int, int], Cell] = {}
    mistakes: list[str] = []
    for at in product(*(range(len(axis.values)) for axis in axes)):
        place = _place(at)
        try:
            values = [axis.values[i] for axis, i in zip(axes, at, strict=True)]
            found[place] = _cell(place, base, axes, values, around)
        except UserError as error:
            mistakes.append(str(error))
    _refuse(mistakes)
    return _plan("grid", base, axes, list(found.values()), around)


def plan_race(
    base: Request,
    samplers: Sequence[str],
    evals: int,
    around: Surroundings,
    fit: Callable[[SamplerInfo, str, float], tuple[int, int]],
    *,
    schedule: str | None = None,
) -> GridPlan:
    """Plan a race of samplers at the same number of evaluations. Raises Mistakes.

    fit: (steps, their evaluations) for a sampler, a schedule and a denoising strength (1 without an init
    image). schedule: for all samplers; None for the one each prefers.
    """
    base = dataclasses.replace(_settled(base), steps=None, sigmas=None, schedule=schedule)
    if evals < 1:
        raise Mistakes(["evaluations: must be a whole number from 1"])
    if not samplers:
        raise Mistakes(["choose the samplers to compare"])
    values, cells, mistakes = [], [], []
    for i, name in enumerate(dict.fromkeys(samplers)):
        try:
            info = around.registry.sampler(name)
            request = _with_sampler(base, info.name, around.registry)
            first = request.resolve(around.defaults, around.registry, around.given)
            steps, takes = fit(info, first.schedule, first.strength or 1.0)
            request = dataclasses.replace(request, schedule=first.schedule, steps=steps)
            settings = request.resolve(around.defaults, around.registry, around.given)
            cells.append(Cell((i, 0, 0), request, settings, around.loaded or None, takes))
            values.append(Value(info.name, f"{info.title}, {_race_words(info, steps, takes)}"))
        except UserError as error:
            mistakes.append(str(error))
    _refuse(mistakes)
    axis = Axis("sampler", "Sampler", tuple(values), ", ".join(samplers))
    return _plan("race", base, (axis,), cells, around)


def cost_words(plan: GridPlan, speed: Speed | None) -> str:
    """The cost of a plan in words, shown before it starts."""
    count = len(plan.cells)
    shape = " × ".join(str(len(axis.values)) for axis in plan.axes)
    cells = f"{count} image{'' if count == 1 else 's'}" + (f" ({shape})" if len(plan.axes) > 1 else "")
    about = "about " if plan.about else ""
    said = [cells, f"{about}{plan.evals} model evaluations"]
    if speed is not None:
        said.append(f"about {duration(speed.of(plan.cells))} at the last run's speed")
    if plan.loads:
        said.append(f"{plan.loads} model{'' if plan.loads == 1 else 's'} to load")
    return ", ".join(said)


def duration(seconds: float) -> str:
    """Seconds in readable form."""
    if seconds < 99.5:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def _axes(base: Request, asked: Sequence[AxisRequest], around: Surroundings) -> tuple[Axis, ...]:
    """The axes, with each value checked alone."""
    chosen = [one for one in asked if one.setting]
    if not chosen:
        raise Mistakes(["choose a setting to compare, and type its values"])
    mistakes = []
    for name in {one.setting for one in chosen if one.setting != "prompt"}:
        if [one.setting for one in chosen].count(name) > 1:
            mistakes.append(f"{name} is on two axes: choose another setting for one of them")
    if around.given is None and any(one.setting == "strength" for one in chosen):
        mistakes.append("Strength: needs an init image; add one in img2img or inpaint")
    axes = []
    for one in chosen[:MOST_AXES]:
        try:
            axes.append(read_axis(one.setting, one.text, base, around.registry, around.models))
        except Mistakes as error:
            mistakes += [f"{title_of(one.setting)}: {sentence}" for sentence in error.sentences]
        except UserError as error:
            mistakes.append(f"{title_of(one.setting)}: {error}")
    _refuse(mistakes)
    return tuple(axes)


def _cell(
    at: tuple[int, int, int],
    base: Request,
    axes: Sequence[Axis],
    values: Sequence[Value],
    around: Surroundings,
) -> Cell:
    """The request of one cell: the sampler is set first, because options depend on it."""
    pairs = list(zip(axes, values, strict=True))
    own_schedule = any(axis.setting == "schedule" for axis in axes)
    request, model = base, around.loaded or None
    for axis, value in pairs:
        if axis.setting == "sampler":
            request = _with_sampler(request, value.value, around.registry, keep_schedule=own_schedule)
        elif axis.setting == "model":
            model = value.value
    for axis, value in pairs:
        request = _changed(request, axis.setting, value.value)
    settings = request.resolve(around.defaults, around.registry, around.given)
    return Cell(at, request, settings, model, _evals(settings, around.registry))


def _changed(request: Request, setting: str, value: Any) -> Request:
    """The request with one setting changed; sampler and model are already set by `_cell`."""
    if setting in ("sampler", "model"):
        return request
    if setting == "size":
        return dataclasses.replace(request, width=value[0], height=value[1])
    if setting == "prompt":
        prompt, negative = (words.replace(*value) for words in (request.prompt, request.negative))
        return dataclasses.replace(request, prompt=prompt, negative=negative)
    if setting.startswith(OPTION):
        options = {**request.options, setting.removeprefix(OPTION): value}
        return dataclasses.replace(request, options=options)
    return dataclasses.replace(request, **{setting: value})


def _with_sampler(request: Request, name: str, registry: Registry, *, keep_schedule: bool = False) -> Request:
    """The request with another sampler, the options it knows, and the schedule in its name, if any."""
    named = aliases.resolve(name, None, registry)
    info = registry.sampler(named.sampler or name)
    known = {option.name for option in info.options}
    same = aliases.resolve(request.sampler, None, registry).sampler == info.name
    kept = {key: value for key, value in request.options.items() if key in known} if same else {}
    schedule = request.schedule if keep_schedule or named.schedule is None else named.schedule
    return dataclasses.replace(
        request, sampler=info.name, schedule=schedule, options={**kept, **named.options}
    )


def _plan(
    kind: str, base: Request, axes: tuple[Axis, ...], cells: list[Cell], around: Surroundings
) -> GridPlan:
    """The plan with cells ordered so that each model is loaded once, starting with the loaded one."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    models.sort(key=lambda name: name != around.loaded)
    ordered = [cell for name in models for cell in cells if cell.model == name]
    loads = sum(name not in (None, around.loaded) for name in models)
    adaptive = any(around.registry.sampler(cell.settings.sampler).adaptive for cell in cells)
    return GridPlan(kind, base, axes, tuple(ordered), loads, adaptive)


def _place(at: Sequence[int]) -> tuple[int, int, int]:
    """(column, row, sheet) of the positions on one to three axes."""
    column, row, sheet = (*at, 0, 0)[:3]
    return column, row, sheet


def _settled(base: Request) -> Request:
    """The base request with batch size 1 and one seed for all cells."""
    seed = random_seed() if base.seed is None else base.seed
    return dataclasses.replace(base, batch=1, seed=seed)


def _evals(settings: Settings, registry: Registry) -> int:
    steps = settings.steps if settings.strength is None else int(settings.steps * settings.strength)
    return steps * registry.sampler(settings.sampler).evals


def _size(settings: Settings) -> int:
    """The work of one evaluation: pixels, twice if guidance needs two passes of the network."""
    passes = 1 if settings.cfg_scale == 1 else 2
    return settings.width * settings.height * settings.batch * passes


def _race_words(info: SamplerInfo, steps: int, evals: int) -> str:
    if info.adaptive:
        return "its own steps"
    return f"{steps} step{'' if steps == 1 else 's'}, {evals} evaluation{'' if evals == 1 else 's'}"


def _refuse(mistakes: Iterable[str]) -> None:
    sentences = list(dict.fromkeys(mistakes))
    if len(sentences) > MOST_SAID:
        sentences[MOST_SAID:] = [f"and {len(sentences) - MOST_SAID} more errors"]
    if sentences:
        raise Mistakes(sentences)


def by_place(plan: GridPlan) -> Mapping[tuple[int, int, int], Cell]:
    """The cells by their position."""
    return {cell.at: cell for cell in plan.cells}


def sheets(plan: GridPlan) -> Iterator[tuple[str, list[list[Cell]]]]:
    """Each sheet's title, and its rows of cells."""
    columns, rows, count = plan.shape
    found = by_place(plan)
    for z in range(count):
        axis = plan.axes[2] if len(plan.axes) == MOST_AXES else None
        title = "" if axis is None else f"{axis.title}: {axis.values[z].label}"
        yield title, [[found[x, y, z] for x in range(columns)] for y in range(rows)]


def described(plan: GridPlan) -> dict[str, Any]:
    """The plan as JSON-ready values, for the recipe in its sheet."""
    return {
        "format": 1,
        "kind": plan.kind,
        "base": plan.base.to_dict(),
        "axes": [
            {
                "setting": axis.setting,
                "typed": axis.text,
                "values": [value.label for value in axis.values],
            }
            for axis in plan.axes
        ],
        "cells": [
            {"at": list(cell.at), "model": cell.model, "request": cell.request.to_dict()}
            for cell in plan.cells
        ],
    }
