"""What runs: settings in which nothing is open, and the branches they may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.checks import (
    check_keys,
    check_number,
    check_options,
    check_present,
    check_text,
    check_whole,
    shown,
)
from core.errors import UserError
from core.prompts.emphasis import check_prompt
from core.request.fields import RequestFields
from core.request.image_settings import InputInfo, check_image_settings
from core.request.model_defaults import MAX_BATCH, MAX_CLIP_SKIP, MAX_MERGING, MAX_REUSE, check_choices
from core.request.sigmas import check_sigmas

MOST_STEPS = 10_000  # of a run, those that adaptive samplers choose included
MOST_BRANCHES = 50  # one out of the other
_TOO_DEEP = f"branch: more than {MOST_BRANCHES} nested branches; start again from an init image"
# What a branch cannot change, for its state is made of it.
SHARED = (
    *("width", "height", "batch", "strength", "resize", "outpaint", "mask_blur", "masked_content"),
    *("only_masked", "keep_unmasked", "invert_mask", "image_sha256", "mask_sha256"),
)


def max_seed(batch: int) -> int:
    """The largest seed of a batch: image i takes seed + i, and each of them fits a signed 64-bit integer."""
    return 2**63 - 1 - batch


@dataclass(frozen=True, kw_only=True)
class Settings(RequestFields):
    """What runs: a request with nothing left open. The ranges are those of `Request`.

    None only for what has no use: everything about images when there is none, about masks without a mask.
    `sigmas` are None where the noise levels are the schedule's; where they are given, it has no say.
    """

    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    seed: int
    branch: Branch | None = None

    def __post_init__(self) -> None:
        check_present(self)
        check_choices(self)
        check_fields(self, complete=True)

    def for_image(self, index: int) -> Settings:
        """The settings that give image `index` of this batch alone."""
        if not 0 <= index < self.batch:
            raise IndexError(f"image {index} of a batch of {self.batch}")
        branch = None if self.branch is None else self.branch.for_image(index)
        return dataclasses.replace(self, seed=self.seed + index, batch=1, branch=branch)

    @classmethod
    def from_dict(cls, mapping: object) -> Settings:
        """The settings that `to_dict` wrote. Raises UserError for anything else."""
        return cls(**check_keys("settings", mapping, cls))


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

    def with_pictures(self, given: InputInfo | None) -> Branch:
        """The same with the images that are there: other ones are welcome, and make another image."""
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
    def given(self) -> InputInfo | None:
        """What was known of the images of the parent; None without any."""
        settings = self.settings
        if settings.image_sha256 is None:
            return None
        return InputInfo(settings.width, settings.height, settings.image_sha256, settings.mask_sha256)

    @property
    def shared(self) -> dict[str, Any]:
        """What the run has in common with its parent, by name."""
        return {name: getattr(self.settings, name) for name in SHARED}

    def check_unchanged(self, changes: Mapping[str, Any]) -> None:
        """Refuse changes of what is shared with the parent. Raises UserError."""
        for name, wanted in self.shared.items():
            if name in changes and changes[name] != wanted:
                raise _unlike(name, changes[name], wanted)


def check_fields(record: RequestFields, *, complete: bool) -> None:
    """Refuse bad values of the fields that only a person chooses, and normalise good ones. Raises UserError.

    complete: of settings, where nothing that a branch shares with its parent may be left open.
    """
    check_prompt("prompt", check_text("prompt", record.prompt))
    check_prompt("negative prompt", check_text("negative prompt", record.negative))
    check_whole("clip skip", record.clip_skip, 1, MAX_CLIP_SKIP)
    check_whole("batch", record.batch, 1, MAX_BATCH)
    _check_levels(record)
    if record.seed is not None:
        check_whole("seed", record.seed, 0, max_seed(record.batch))
    _check_guidance(record)
    _check_savings(record)
    check_image_settings(record)
    _check_branch(record, complete=complete)
    # A copy of its own, and a plain one: it is pickled, compared and written as JSON.
    object.__setattr__(record, "options", check_options(record.options))


def _check_guidance(record: RequestFields) -> None:
    for name in ("cfg_rescale", "cfg_from", "cfg_to"):
        value = check_number(name.replace("_", " "), getattr(record, name), 0.0, 1.0)
        object.__setattr__(record, name, value)
    if not record.cfg_from < record.cfg_to:
        raise UserError(
            f"cfg from {record.cfg_from:g} to {record.cfg_to:g}: must rise; cfg scale 1 turns guidance off"
        )


def _check_savings(record: RequestFields) -> None:
    check_whole("feature reuse", record.feature_reuse, 1, MAX_REUSE)
    merging = check_number("token merging", record.token_merging, 0.0, MAX_MERGING)
    object.__setattr__(record, "token_merging", merging)


def _check_levels(record: RequestFields) -> None:
    """Typed noise levels, and that the number of steps is theirs."""
    if record.sigmas is None:
        return
    sigmas = check_sigmas(record.sigmas)
    if record.steps not in (None, len(sigmas) - 1):
        raise UserError(f"steps {record.steps}: the sigmas make {len(sigmas) - 1} steps; leave steps out")
    object.__setattr__(record, "sigmas", sigmas)
    object.__setattr__(record, "steps", len(sigmas) - 1)


def _check_branch(record: RequestFields, *, complete: bool) -> None:
    """Refuse a branch that does not fit what it is in; make one out of a mapping. Raises UserError."""
    if record.stop_after is not None:
        check_whole("stop after", record.stop_after, 1, MOST_STEPS)
    if record.branch is None:
        return
    branch = Branch.read(record.branch)
    object.__setattr__(record, "branch", branch)
    if record.stop_after is not None and record.stop_after <= branch.step:
        raise UserError(f"stop after {record.stop_after}: the branch starts after step {branch.step}")
    open_values = {} if complete else {f.name: f.default for f in dataclasses.fields(record)}
    for name in SHARED:
        value, wanted = getattr(record, name), getattr(branch.settings, name)
        if value != wanted and (name not in open_values or value != open_values[name]):
            raise _unlike(name, value, wanted)


def _unlike(name: str, value: object, wanted: object) -> UserError:
    spoken = name.replace("_", " ")
    return UserError(f"{spoken} {shown(value)}: a branch must use its parent's, {shown(wanted)}")
