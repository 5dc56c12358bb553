"""Schedules with equal gaps in time, as k-diffusion, ComfyUI and Stability AI's code space them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samplers.schedules.step_count import checked, levels, parts

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


def sgm_uniform(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps in time from the noisiest timestep to just above the cleanest, not rounded to timesteps."""
    top = len(model) - 1
    return (*(model.sigma(top * (1 - i / steps)) for i in range(checked(model, steps))), 0.0)


def simple(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Every n-th sigma of the model, counted from the noisiest."""
    gap = len(model) / checked(model, steps)
    return levels(model, (len(model) - 1 - int(i * gap) for i in range(steps)))


def normal(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps in time, both ends included, not rounded to timesteps: k-diffusion's own."""
    top = len(model) - 1
    return (*(model.sigma(top * (1 - part)) for part in parts(model, steps)), 0.0)
