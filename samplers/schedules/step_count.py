"""What the schedules share: the check of the number of steps, and lists of levels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from latentcanvas import UserError

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


def checked(model: NoiseSchedule, steps: int) -> int:
    """`steps` if the model's table has that many levels. Raises UserError."""
    if not 1 <= steps <= len(model):
        raise UserError(f"{steps} steps do not fit this model; use 1 to {len(model)} steps.")
    return steps


def levels(model: NoiseSchedule, timesteps: Iterable[int]) -> tuple[float, ...]:
    """The sigmas of `timesteps` in the model's table, and 0."""
    return (*(model.sigmas[t] for t in timesteps), 0.0)


def parts(model: NoiseSchedule, steps: int) -> Iterator[float]:
    """`steps` numbers evenly from 0 to 1, both included; only 0 for one step."""
    return (i / max(steps - 1, 1) for i in range(checked(model, steps)))
