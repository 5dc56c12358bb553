"""The resolved settings of a run, and the branches they may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.checks import check_keys, check_size, check_whole, shown, spoken
from core.errors import UserError
from core.request.fields import MOST_STEPS, RequestFields, check_values
from core.request.image_settings import InputInfo, check_room

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
        check_record(self, complete=True)

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


def check_record(record: RequestFields, *, complete: bool) -> None:
    """Refuse bad values and fields that contradict each other; normalise good ones. Raises UserError.

    complete: for Settings, where the fields that a branch shares with its parent may not be open.
    """
    check_values(record)
    check_size(record.width, record.height)
    if record.seed is not None:
        check_whole("seed", record.seed, 0, max_seed(record.batch))
    if not record.cfg_from < record.cfg_to:
        raise UserError(
            f"cfg from {record.cfg_from:g} to {record.cfg_to:g}: must rise; cfg scale 1 turns guidance off"
        )
    if record.sigmas is not None:
        steps = len(record.sigmas) - 1
        if record.steps not in (None, steps):
            raise UserError(f"steps {record.steps}: the sigmas make {steps} steps; leave steps out")
        object.__setattr__(record, "steps", steps)
    check_room(record)
    if record.branch is not None:
        _check_branch(record, complete=complete)


def _check_branch(record: RequestFields, *, complete: bool) -> None:
    """Refuse a branch that does not fit `record`; convert one from a mapping. Raises UserError."""
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
    return UserError(f"{spoken(name)} {shown(value)}: a branch must use its parent's, {shown(wanted)}")
