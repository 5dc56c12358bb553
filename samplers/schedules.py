"""The built-in schedules: the noise levels of N steps.

Some choose timesteps of the model's training (leading, linspace, trailing: Lin et al. 2023, arXiv:2305.08891,
table 2, with the rounding that diffusers uses), others are curves through the noise levels. All end with 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from latentcanvas import UserError, hookimpl

if TYPE_CHECKING:
    from latentcanvas import NoiseSchedule, RegisterSchedule


# Table of the paper for Stable Diffusion 1.5.
STABLE_DIFFUSION_LEVELS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)


def leading(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the clean end, shifted by steps_offset; does not start at full noise."""
    gap = _count(model) // _checked(model, steps)
    last = (steps - 1) * gap
    offset = min(model.steps_offset, _count(model) - 1 - last)  # with all timesteps there is no room to shift
    return _levels(model, (last + offset - i * gap for i in range(steps)))


def linspace(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps from the noisiest timestep to the cleanest, both included."""
    top = _count(model) - 1
    if _checked(model, steps) == 1:
        return _levels(model, [top])  # a single step must start at the noisy end
    gap = top / (steps - 1)
    return _levels(model, (round(i * gap) for i in reversed(range(steps))))


def trailing(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps counted from the noisiest timestep; the best of the three for few steps."""
    count = _count(model)
    gap = count - (
        count - count / _checked(model, steps)
    )  # rounded like numpy.arange, so that ties are equal
    return _levels(model, (round(count - i * gap) - 1 for i in range(steps)))


def karras(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """More steps at low noise, where details form: Karras et al. 2022, arXiv:2206.00364, eq. 5, rho 7."""
    rho, intervals = 7.0, max(_checked(model, steps) - 1, 1)
    high, low = model.sigma_max ** (1 / rho), model.sigma_min ** (1 / rho)
    return (*((high + i / intervals * (low - high)) ** rho for i in range(steps)), 0.0)


def exponential(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal steps in log sigma, which is the time that the DPM-Solvers count in."""
    return polyexponential(model, steps, rho=1.0)


def polyexponential(model: NoiseSchedule, steps: int, *, rho: float = 1.0) -> tuple[float, ...]:
    """A power of equal steps in log sigma; rho 1, the default everywhere, is exponential."""
    high, low = math.log(model.sigma_max), math.log(model.sigma_min)
    return (*(math.exp(low + (1 - part) ** rho * (high - low)) for part in _parts(model, steps)), 0.0)


def sgm_uniform(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps in time from the noisiest timestep to just above the cleanest, not rounded to timesteps."""
    top = _count(model) - 1
    return (*(model.sigma(top * (1 - i / steps)) for i in range(_checked(model, steps))), 0.0)


def simple(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Every n-th sigma of the model, counted from the noisiest."""
    gap = _count(model) / _checked(model, steps)
    return _levels(model, (_count(model) - 1 - int(i * gap) for i in range(steps)))


def normal(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal gaps in time, both ends included, not rounded to timesteps: k-diffusion's own."""
    top = _count(model) - 1
    return (*(model.sigma(top * (1 - part)) for part in _parts(model, steps)), 0.0)


def beta(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """More steps at both ends: quantiles of a Beta distribution with alpha = beta = 0.6.

    Lee et al. 2024, arXiv:2407.12173. Other programs round to whole timesteps, which loses steps when there
    are many.
    """
    top = _count(model) - 1
    return (*(model.sigma(top * _beta_quantile(1 - i / steps)) for i in range(_checked(model, steps))), 0.0)


def kl_optimal(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Equal steps in arctan sigma: Sabour et al. 2024, arXiv:2404.14507, the optimum for Gaussian data."""
    high, low = math.atan(model.sigma_max), math.atan(model.sigma_min)
    return (*(math.tan(high + part * (low - high)) for part in _parts(model, steps)), 0.0)


def align_your_steps(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Ten steps optimised for Stable Diffusion 1.5: Sabour et al. 2024, arXiv:2404.14507.

    Other counts are log-linear between them. The eleventh level is the end, and so 0 here.
    """
    logs = [math.log(level) for level in STABLE_DIFFUSION_LEVELS]
    places = (i / steps * (len(logs) - 1) for i in range(_checked(model, steps)))
    return (*(math.exp(_between(logs, place)) for place in places), 0.0)


def laplace(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Most steps near sigma 1: quantiles of a Laplace distribution of log sigma, with mean 0 and scale 0.5.

    Hang et al. 2024, arXiv:2407.03297. Here the distribution is truncated at the model's limits, where
    ComfyUI clamps its levels.
    """
    scale = 0.5
    high, low = (_laplace(math.log(s) / scale) for s in (model.sigma_max, model.sigma_min))
    places = (high + part * (low - high) for part in _parts(model, steps))
    return (*(math.exp(scale * _laplace_quantile(place)) for place in places), 0.0)


def linear_quadratic(model: NoiseSchedule, steps: int) -> tuple[float, ...]:
    """Half of the steps evenly in the noisiest 1/40, then growing ones; made for video models.

    Polyak et al. 2024, arXiv:2410.13720, in the form of Mochi's code, as ComfyUI scales it: by the model's
    largest sigma.
    """
    threshold, half = 0.025, _checked(model, steps) // 2
    if half == 0:
        return (model.sigma_max, 0.0)
    rest, slope = steps - half, threshold / half
    bend = (1 - threshold - slope * rest) / rest**2
    done = (i * slope + bend * max(i - half, 0) ** 2 for i in range(steps))
    return (*(model.sigma_max * (1 - part) for part in done), 0.0)


@hookimpl
def register_schedules(register: RegisterSchedule) -> None:
    spacings = "arXiv:2305.08891"
    register("leading", leading, title="Leading", paper=spacings)
    register("linspace", linspace, title="Linspace", paper=spacings)
    register("trailing", trailing, title="Trailing", paper=spacings)
    register("karras", karras, title="Karras", paper="arXiv:2206.00364")
    register("exponential", exponential, title="Exponential", paper="arXiv:2206.00927")
    register("polyexponential", polyexponential, title="Polyexponential")
    register("sgm_uniform", sgm_uniform, title="SGM Uniform", paper="arXiv:2307.01952")
    register("simple", simple, title="Simple")
    register("normal", normal, title="Normal")
    register("beta", beta, title="Beta", paper="arXiv:2407.12173")
    register("kl_optimal", kl_optimal, title="KL Optimal", paper="arXiv:2404.14507")
    register("align_your_steps", align_your_steps, title="Align Your Steps", paper="arXiv:2404.14507")
    register("laplace", laplace, title="Laplace", paper="arXiv:2407.03297")
    register("linear_quadratic", linear_quadratic, title="Linear Quadratic", paper="arXiv:2410.13720")


def _count(model: NoiseSchedule) -> int:
    return len(model.sigmas)


def _checked(model: NoiseSchedule, steps: int) -> int:
    if not 1 <= steps <= _count(model):
        raise UserError(f"{steps} steps do not fit this model; use 1 to {_count(model)} steps.")
    return steps


def _levels(model: NoiseSchedule, timesteps: Iterable[int]) -> tuple[float, ...]:
    return (*(model.sigmas[t] for t in timesteps), 0.0)


def _parts(model: NoiseSchedule, steps: int) -> Iterator[float]:
    """`steps` numbers evenly from 0 to 1, both included; only 0 for one step."""
    return (i / max(steps - 1, 1) for i in range(_checked(model, steps)))


def _between(values: Sequence[float], place: float) -> float:
    """The value at a place between two of `values`, linearly."""
    below = min(int(place), len(values) - 2)
    return values[below] + (place - below) * (values[below + 1] - values[below])


def _laplace(z: float) -> float:
    """The cumulative distribution function of the standard Laplace distribution."""
    return math.exp(z) / 2 if z < 0 else 1 - math.exp(-z) / 2


def _laplace_quantile(p: float) -> float:
    return math.log(2 * p) if p < 0.5 else -math.log(2 * (1 - p))


def _beta_quantile(p: float, a: float = 0.6) -> float:
    """The quantile p of the distribution Beta(a, a), by Newton's method; it is symmetric."""
    if p > 0.5:
        return 1 - _beta_quantile(1 - p, a)
    scale = math.gamma(a) ** 2 / math.gamma(2 * a)  # B(a, a)
    x = math.pow(p * a * scale, 1 / a)  # from the first term of the series
    for _ in range(20 if p > 0 else 0):
        density = math.pow(x * (1 - x), a - 1) / scale
        x -= (_beta_share(x, a) / scale - p) / density
    return x


def _beta_share(x: float, a: float) -> float:
    """The integral of (u (1 - u))^(a - 1) from 0 to x <= 1/2: an integrated binomial series."""
    total, factor, n = 0.0, 1.0, 0
    while factor > 1e-17:
        total += factor / (a + n)
        n += 1
        factor *= (n - a) / n * x
    return math.pow(x, a) * total
