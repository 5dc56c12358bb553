"""A model's defaults for fields that a request leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from core.checks import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, check_size, check_whole
from core.request.fields import check_values


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
        check_values(self)
        check_whole("multiple", self.multiple, 1, MIN_SIDE)
        check_whole("smallest", self.smallest, 1, MAX_SIDE)
        self.check_size(self.width, self.height)

    def check_size(self, width: int | None, height: int | None) -> None:
        """Refuse sides that the model does not support. Raises UserError."""
        check_size(width, height, self.multiple, self.smallest)
