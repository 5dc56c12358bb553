"""The resolved settings of a run, and the branches they may have."""

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

MOST_STEPS = 10_000  # of a run, also with adaptive samplers
MOST_BRANCHES = 50  # nested
_TOO_DEEP = f"branch: more than {MOST_BRANCHES} nested branches; start again from an init image"
# The fields that a branch cannot change, because its state depends on them.
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

    None only for fields without an effect: those of the init image without one, those of the mask without
    one. `sigmas` replace the levels of the schedule unless None.
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
        """The settings of image `index` of this batch alone."""
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

    If `settings` are a branch that starts at `step` or later, they are replaced by those of its parent.
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
        """The number of nested branches."""
        before = self.settings.branch
        return 1 if before is None else 1 + before.depth

    @classmethod
    def read(cls, value: object) -> Branch:
        """A branch, or one from its `to_dict`. Raises UserError for anything else."""
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
        """The branch of image `index` of the batch alone."""
        return Branch(self.step, self.settings.for_image(index))

    def with_pictures(self, given: InputInfo | None) -> Branch:
        """The same branch with the hashes of the given images, which may differ from the original ones."""
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
        """The images of the parent; None without any."""
        settings = self.settings
        if settings.image_sha256 is None:
            return None
        return InputInfo(settings.width, settings.height, settings.image_sha256, settings.mask_sha256)

    @property
    def shared(self) -> dict[str, Any]:
        """The fields that the run shares with its parent, by name."""
        return {name: getattr(self.settings, name) for name in SHARED}

    def check_unchanged(self, changes: Mapping[str, Any]) -> None:
        """Refuse changes of fields shared with the parent. Raises UserError."""
        for name, wanted in self.shared.items():
            if name in changes and changes[name] != wanted:
                raise _unlike(name, changes[name], wanted)


def check_fields(record: RequestFields, *, complete: bool) -> None:
    """Refuse bad values of the fields without model defaults, and normalise good ones. Raises UserError.

    complete: for Settings, where the fields that a branch shares with its parent may not be open.
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
    # Its own plain dict, which can be pickled, compared and written as JSON.
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
    """Check typed noise levels, and set the number of steps from them."""
    if record.sigmas is None:
        return
    sigmas = check_sigmas(record.sigmas)
    if record.steps not in (None, len(sigmas) - 1):
        raise UserError(f"steps {record.steps}: the sigmas make {len(sigmas) - 1} steps; leave steps out")
    object.__setattr__(record, "sigmas", sigmas)
    object.__setattr__(record, "steps", len(sigmas) - 1)


def _check_branch(record: RequestFields, *, complete: bool) -> None:
    """Refuse a branch that does not fit `record`; convert one from a mapping. Raises UserError."""
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
