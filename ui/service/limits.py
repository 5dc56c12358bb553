"""How much may be asked of a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.checks import MAX_SIDE
from core.errors import UserError
from core.request.model_defaults import MAX_BATCH
from core.request.settings import MOST_STEPS

if TYPE_CHECKING:
    from core.request.request import Request
    from core.request.settings import Settings


class Limits(Protocol):
    """The most that one may ask for: jobs in line, in all and of one owner, and the size of a run."""

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
    """Those of a page that nobody else can reach: what the program itself can do."""

    queue: int = 1000
    queue_owner: int = 1000
    pixels: int = MAX_SIDE**2
    steps: int = MOST_STEPS
    batch: int = MAX_BATCH


def check_limits(limits: Limits, asked: Request | Settings, total: int | None = None) -> None:
    """Raises UserError for a run that is too large; what a request leaves open is found in its settings.

    total: the steps that would be run. A recipe of branches may have many more than each of them says.
    """
    if asked.batch > limits.batch:
        raise UserError(f"batch {asked.batch}: this page makes at most {limits.batch} pictures at once")
    steps = max(asked.steps or 0, total or 0)
    if steps > limits.steps:
        raise UserError(f"steps {steps}: this page runs at most {limits.steps}")
    if asked.width is not None and asked.height is not None and asked.width * asked.height > limits.pixels:
        side = math.isqrt(limits.pixels) // 8 * 8
        raise UserError(
            f"size {asked.width}x{asked.height}: this page makes at most {limits.pixels} pixels, "
            f"such as {side}x{side}"
        )
