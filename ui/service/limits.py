"""Limits on the size of a run and the length of the queue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.checks import MAX_SIDE
from core.errors import UserError
from core.request.fields import MAX_BATCH, MOST_STEPS

if TYPE_CHECKING:
    from core.request.request import Request
    from core.request.settings import Settings


class Limits(Protocol):
    """Upper limits: queued jobs, of all owners and of one, and the size of a run."""

    @property
    def queue(self) -> int: ...
    @property
    def queue_owner(self) -> int: ...
    @property
    def pixels(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class OwnLimits:
    """The limits of a page that is not shared: those of the program itself."""

    queue: int = 1000
    queue_owner: int = 1000
    pixels: int = MAX_SIDE**2
    steps: int = MOST_STEPS
    batch: int = MAX_BATCH


def check_limits(limits: Limits, asked: Request | Settings, total: int | None = None) -> None:
    """Raise UserError for a run that is too large; fields that a request leaves open pass.

    total: the steps that would run. A recipe of branches may have many more than each of them states.
    """
    if asked.batch > limits.batch:
        raise UserError(f"batch {asked.batch}: must be at most {limits.batch} on this page")
    steps = max(asked.steps or 0, total or 0)
    if steps > limits.steps:
        raise UserError(f"steps {steps}: must be at most {limits.steps} on this page")
    if asked.width is not None and asked.height is not None and asked.width * asked.height > limits.pixels:
        side = math.isqrt(limits.pixels) // 8 * 8
        raise UserError(
            f"size {asked.width}x{asked.height}: must be at most {limits.pixels} pixels on this page, "
            f"such as {side}x{side}"
        )
