"""The built-in schedules: which noise levels N steps visit.

Three pick timesteps of the model's training (Lin et al. 2023, arXiv:2305.08891, table 2, with the rounding
that diffusers uses), one is a curve through the noise levels. All end with 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from latentcanvas import UserError, hookimpl

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule, RegisterSchedule


def leading(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the clean end, shifted by the model's offset; does not start at full noise."""
    gap = _count(model) // _checked(model, steps)
    last = (steps - 1) * gap
    offset = min(
        model.steps_offset, _count(model) - 1 - last
    )  # a step for every timestep leaves no room to shift
    return _levels(model, (last + offset - i * gap for i in range(steps)))


def linspace(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps from the noisiest timestep to the cleanest, both included."""
    top = _count(model) - 1
    if _checked(model, steps) == 1:
        return _levels(model, [top])  # one step is of use only from the noisy end
    gap = top / (steps - 1)
    return _levels(model, (round(i * gap) for i in reversed(range(steps))))


def trailing(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the noisiest timestep; the best of the three for few steps."""
    count = _count(model)
    gap = count - (
        count - count / _checked(model, steps)
    )  # rounded as numpy.arange does it: ties then fall alike
    return _levels(model, (round(count - i * gap) - 1 for i in range(steps)))


def karras(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """More steps at low noise, where details form: Karras et al. 2022, arXiv:2206.00364, eq. 5, rho 7."""
    rho, intervals = 7.0, max(_checked(model, steps) - 1, 1)
    high, low = model.sigma_max ** (1 / rho), model.sigma_min ** (1 / rho)
    return (*((high + i / intervals * (low - high)) ** rho for i in range(steps)), 0.0)


@hookimpl
def register_schedules(register: RegisterSchedule) -> None:
    spacings = "arXiv:2305.08891"
    register("leading", leading, title="Leading", paper=spacings)
    register("linspace", linspace, title="Linspace", paper=spacings)
    register("trailing", trailing, title="Trailing", paper=spacings)
    register("karras", karras, title="Karras", paper="arXiv:2206.00364")


def _count(model: NoiseSchedule) -> int:
    return len(model.sigmas)


def _checked(model: NoiseSchedule, steps: int) -> int:
    if not 1 <= steps <= _count(model):
        raise UserError(f"{steps} steps do not fit this model; ask for 1 to {_count(model)} steps.")
    return steps


def _levels(model: NoiseSchedule, timesteps: Iterable[int]) -> tuple[float, ...]:
    return (*(model.sigmas[t] for t in timesteps), 0.0)
