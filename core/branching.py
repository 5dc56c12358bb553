"""Runs that go on from a step of another: what a recipe says of it, and the noise levels that are left.

A branch takes over after `step` steps of its parent's settings, which may be a branch themselves. So a recipe
holds all that its picture comes from. Pictures, size and batch are the parent's all along.

This module never imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.checks import check_keys, check_whole, shown
from core.errors import UserError
from core.sampling.schedule import NoiseSchedule, last_part

if TYPE_CHECKING:
    from core.picture_settings import Given
    from core.request import Request, Settings
    from core.sampling.registry import Registry, SamplerInfo

MOST_STEPS = 10_000  # of a run, those that adaptive samplers choose included
MOST_BRANCHES = 50  # one out of the other
_TOO_DEEP = f"branch: more than {MOST_BRANCHES} out of each other; begin again from a picture"
# What a branch cannot change, for its state is made of it.
SHARED = (
    *("width", "height", "batch", "strength", "resize", "outpaint", "mask_blur", "masked_content"),
    *("only_masked", "keep_unmasked", "invert_mask", "image_sha256", "mask_sha256"),
)
_CHOICES = ("sampler", "schedule", "steps", "cfg_scale", "seed")
# A level so near below the state's own is no step of its own.
_APART = 1 - 1e-4


@dataclass(frozen=True)
class Branch:
    """The first `step` steps are those of a run of `settings`.

    Where these are a branch that begins no earlier, they are those of its parent, and are said so.
    """

    step: int
    settings: Settings

    def __post_init__(self) -> None:
        check_whole("branch step", self.step, 0, MOST_STEPS - 1)
        settings = self.settings
        while settings.branch is not None and self.step <= settings.branch.step:
            settings = settings.branch.settings
        if settings.stop_after is not None:
            settings = dataclasses.replace(settings, stop_after=None)
        object.__setattr__(self, "settings", settings)
        if self.depth > MOST_BRANCHES:
            raise UserError(_TOO_DEEP)

    @property
    def depth(self) -> int:
        """How many branches there are out of each other."""
        before = self.settings.branch
        return 1 if before is None else 1 + before.depth

    @classmethod
    def read(cls, value: object) -> Branch:
        """A branch, or what `to_dict` made of one. Raises UserError for anything else."""
        from core.request import Settings

        if isinstance(value, Branch):
            return value
        fields = check_keys("branch", value, cls)
        try:
            return cls(fields["step"], Settings.from_dict(fields["settings"]))
        except RecursionError:
            raise UserError(_TOO_DEEP) from None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {"step": self.step, "settings": self.settings.to_dict()}

    def for_image(self, index: int) -> Branch:
        """That of image `index` of the batch alone."""
        return Branch(self.step, self.settings.for_image(index))

    def with_pictures(self, given: Given | None) -> Branch:
        """The same with the pictures that are there: other ones are welcome, and make another picture."""
        if given is None:
            return self
        before = self.settings.branch
        settings = dataclasses.replace(
            self.settings,
            image_sha256=given.image_sha256,
            mask_sha256=given.mask_sha256,
            branch=None if before is None else before.with_pictures(given),
        )
        return Branch(self.step, settings)

    @property
    def given(self) -> Given | None:
        """What was known of the pictures of the parent; None without any."""
        from core.picture_settings import Given

        settings = self.settings
        if settings.image_sha256 is None:
            return None
        return Given(settings.width, settings.height, settings.image_sha256, settings.mask_sha256)

    def taking_over(self, known: Settings, request: Request | None, changes: Mapping[str, Any]) -> Request:
        """The request of a run that goes on here: that of `known` with changes, or another one whose gaps are
        filled from there.
        """
        from core.request import Request

        if request is not None:
            return dataclasses.replace(_filled(request, known, _shared(self.settings)), branch=self)
        for name in SHARED:
            if name in changes and changes[name] != getattr(self.settings, name):
                raise _unlike(name, changes[name], getattr(self.settings, name))
        values = known.as_request().to_dict() | {"branch": None, "stop_after": None}
        if changes.get("sampler", known.sampler) != known.sampler:
            del values["options"]
        if any(name in changes for name in ("schedule", "steps", "sigmas")):
            values.pop("sigmas", None)
        if "sigmas" in changes:
            del values["steps"]
        asked = Request.from_mapping({**values, **changes})
        return dataclasses.replace(asked, **_shared(self.settings), branch=self)

    def filled(self, request: Request) -> Request:
        """The request with everything from the parent that it leaves open."""
        return _filled(request, self.settings, _shared(self.settings))


def _shared(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in SHARED}


def _filled(request: Request, known: Settings, gaps: dict[str, Any]) -> Request:
    for name in _CHOICES:
        if getattr(request, name) is None:
            gaps[name] = getattr(known, name)
    if request.sampler is None:
        gaps["options"] = {**known.options, **request.options}
    if request.schedule is None and request.steps is None and request.sigmas is None:
        gaps["sigmas"] = known.sigmas
    return dataclasses.replace(request, **gaps)


def check_branch(record: Request | Settings) -> None:
    """Refuse a branch that does not fit what it is in; make one out of a mapping. Raises UserError."""
    if record.stop_after is not None:
        check_whole("stop after", record.stop_after, 1, MOST_STEPS)
    if record.branch is None:
        return
    branch = Branch.read(record.branch)
    object.__setattr__(record, "branch", branch)
    if record.stop_after is not None and record.stop_after <= branch.step:
        raise UserError(f"stop after {record.stop_after}: the branch begins after step {branch.step}")
    open_values = {f.name: f.default for f in dataclasses.fields(record)} if _is_request(record) else {}
    for name in SHARED:
        value, wanted = getattr(record, name), getattr(branch.settings, name)
        if value != wanted and (name not in open_values or value != open_values[name]):
            raise _unlike(name, value, wanted)


def _unlike(name: str, value: object, wanted: object) -> UserError:
    spoken = name.replace("_", " ")
    return UserError(f"{spoken} {shown(value)}: a branch has that of the run it comes from, {shown(wanted)}")


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


def _is_request(record: Request | Settings) -> bool:
    from core.request import Request

    return isinstance(record, Request)
