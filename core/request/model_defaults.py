"""A model's defaults for fields that a request leaves open, and the ranges of these fields."""

from __future__ import annotations

from dataclasses import dataclass

from core.checks import (
    MAX_SIDE,
    MIN_SIDE,
    SIDE_MULTIPLE,
    check_number,
    check_present,
    check_size,
    check_text,
    check_whole,
)
from core.request.fields import RequestFields

MAX_STEPS = 1000
MAX_CFG_SCALE = 100.0
MAX_BATCH = 64
MAX_CLIP_SKIP = 100
MAX_REUSE = 20
MAX_MERGING = 0.75  # three tokens of four: core/models/fast/token_merging.py


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """A model's defaults, and the sizes it supports: sides are multiples of `multiple`, from `smallest` to
    2048.
    """

    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    multiple: int = SIDE_MULTIPLE
    smallest: int = MIN_SIDE

    def __post_init__(self) -> None:
        check_present(self)
        check_whole("multiple", self.multiple, 1, MIN_SIDE)
        check_whole("smallest", self.smallest, 1, MAX_SIDE)
        check_choices(self)
        self.check_size(self.width, self.height)

    def check_size(self, width: int | None, height: int | None) -> None:
        """Refuse sides that the model does not support. Raises UserError."""
        check_size(width, height, self.multiple, self.smallest)


def check_choices(record: Defaults | RequestFields) -> None:
    """Refuse bad values of the fields that have model defaults. Raises UserError."""
    for name in ("sampler", "schedule"):
        if getattr(record, name) is not None:
            check_text(name, getattr(record, name), empty=False)
    if record.steps is not None:
        check_whole("steps", record.steps, 1, MAX_STEPS)
    if record.cfg_scale is not None:
        cfg_scale = check_number("cfg scale", record.cfg_scale, 0.0, MAX_CFG_SCALE)
        object.__setattr__(record, "cfg_scale", cfg_scale)
    check_size(record.width, record.height)
