"""The schedule that was optimised for Stable Diffusion 1.5: Sabour et al. 2024, arXiv:2404.14507."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from samplers.schedules.step_count import checked

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


# Table of the paper.
STABLE_DIFFUSION_LEVELS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)


def align_your_steps(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Ten steps optimised for Stable Diffusion 1.5: Sabour et al. 2024, arXiv:2404.14507.

    Other counts are log-linear between them. The eleventh level is the end, and so 0 here.
    """
    logs = [math.log(level) for level in STABLE_DIFFUSION_LEVELS]
    places = (i / steps * (len(logs) - 1) for i in range(checked(model, steps)))
    return (*(math.exp(_between(logs, place)) for place in places), 0.0)


def _between(values: Sequence[float], place: float) -> float:
    """The value at a place between two of `values`, linearly."""
    below = min(int(place), len(values) - 2)
    return values[below] + (place - below) * (values[below + 1] - values[below])
