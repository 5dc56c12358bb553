"""Schedules that choose timesteps of the model's training: Lin et al. 2023, arXiv:2305.08891, table 2.

Rounded as diffusers does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from samplers.schedules.step_count import checked, levels

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


def leading(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the clean end, shifted by steps_offset; does not start at full noise."""
    gap = len(model) // checked(model, steps)
    last = (steps - 1) * gap
    offset = min(model.steps_offset, len(model) - 1 - last)  # with all timesteps there is no room to shift
    return levels(model, (last + offset - i * gap for i in range(steps)))


def linspace(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps from the noisiest timestep to the cleanest, both included."""
    top = len(model) - 1
    if checked(model, steps) == 1:
        return levels(model, [top])  # a single step must start at the noisy end
    gap = top / (steps - 1)
    return levels(model, (round(i * gap) for i in reversed(range(steps))))


def trailing(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the noisiest timestep; the best of the three for few steps."""
    count = len(model)
    gap = count - (count - count / checked(model, steps))  # rounded like numpy.arange, so that ties are equal
    return levels(model, (round(count - i * gap) - 1 for i in range(steps)))
