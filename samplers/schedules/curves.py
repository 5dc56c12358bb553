"""Schedules that are curves through the noise levels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from samplers.schedules.step_count import checked, parts

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule


def karras(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """More steps at low noise, where details form: Karras et al. 2022, arXiv:2206.00364, eq. 5, rho 7."""
    rho, intervals = 7.0, max(checked(model, steps) - 1, 1)
    high, low = model.sigma_max ** (1 / rho), model.sigma_min ** (1 / rho)
    return (*((high + i / intervals * (low - high)) ** rho for i in range(steps)), 0.0)


def exponential(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal steps in log sigma, which is the time that the DPM-Solvers count in."""
    return polyexponential(model, steps, rho=1.0)


def polyexponential(model: NoiseSchedule, steps: int, *, rho: float = 1.0) -> tuple[float, ...]:
    """A power of equal steps in log sigma; rho 1, the default everywhere, is exponential."""
    high, low = math.log(model.sigma_max), math.log(model.sigma_min)
    return (*(math.exp(low + (1 - part) ** rho * (high - low)) for part in parts(model, steps)), 0.0)


def kl_optimal(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal steps in arctan sigma: Sabour et al. 2024, arXiv:2404.14507, the optimum for Gaussian data."""
    high, low = math.atan(model.sigma_max), math.atan(model.sigma_min)
    return (*(math.tan(high + part * (low - high)) for part in parts(model, steps)), 0.0)


def linear_quadratic(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Half of the steps evenly in the noisiest 1/40, then growing ones; made for video models.

    Polyak et al. 2024, arXiv:2410.13720, in the form of Mochi's code, as ComfyUI scales it: by the model's
    largest sigma.
    """
    threshold, half = 0.025, checked(model, steps) // 2
    if half == 0:
        return (model.sigma_max, 0.0)
    rest, slope = steps - half, threshold / half
    bend = (1 - threshold - slope * rest) / rest**2
    done = (i * slope + bend * max(i - half, 0) ** 2 for i in range(steps))
    return (*(model.sigma_max * (1 - part) for part in done), 0.0)
