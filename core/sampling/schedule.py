"""Noise levels: a model's betas as a table of sigmas, and the type of a schedule.

In x = x0 + sigma * noise, the DDPM state is x * sqrt(alpha_bar) with alpha_bar = 1 / (1 + sigma^2). Pure
Python floats: schedules run without torch, and every table is in double precision.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from operator import mul
from typing import Any, Literal, Protocol

# Names as diffusers writes them in scheduler_config.json; squaredcos_cap_v2 is the cosine schedule.
BetaSchedule = Literal["scaled_linear", "linear", "squaredcos_cap_v2", "sigmoid"]
# Stands for the alpha_bar of 0 of zero-terminal SNR: the least signal that float16 can hold, and a sigma
# (4096) that every sampler can divide by.
_LEAST_ALPHA_BAR = 2.0**-24
_MOST_BETA = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise level of each timestep of a model's training.

    alphas_cumprod: alpha_bar (Ho et al. 2020, arXiv:2006.11239) for t = 0, 1, ...: strictly falling, inside
        (0, 1).
    steps_offset: added to the timesteps of the `leading` spacing (1 for Stable Diffusion).
    """

    alphas_cumprod: tuple[float, ...]
    steps_offset: int = 1

    def __post_init__(self) -> None:
        inside = all(0 < a < 1 for a in self.alphas_cumprod)
        falling = all(a > b for a, b in pairwise(self.alphas_cumprod))
        if len(self.alphas_cumprod) < 2 or not (inside and falling):
            raise ValueError("alphas_cumprod needs two or more values, strictly falling between 1 and 0")
        if not 0 <= self.steps_offset < len(self.alphas_cumprod):
            raise ValueError(
                f"steps_offset {self.steps_offset} is outside the table of {len(self.alphas_cumprod)}"
            )

    @classmethod
    def from_betas(
        cls,
        kind: BetaSchedule = "scaled_linear",
        start: float = 0.00085,
        end: float = 0.012,
        count: int = 1000,
        steps_offset: int = 1,
        zero_terminal_snr: bool = False,
    ) -> NoiseSchedule:
        """The table for `count` betas from `start` to `end`: evenly spaced, evenly spaced square roots, or
        along a sigmoid; the cosine schedule (arXiv:2102.09672, eq. 17) has its own ends.

        zero_terminal_snr: rescaled so that nothing of the image is left at the last timestep (Lin et al.
        2023, arXiv:2305.08891, algorithm 1). Its alpha_bar is 2**-24 instead of 0, or half of the one before
        it if that is less.
        """
        betas = _betas(kind, start, end, count)
        alphas: tuple[float, ...] = tuple(accumulate((1 - beta for beta in betas), mul))
        return cls(_without_end(alphas) if zero_terminal_snr else alphas, steps_offset)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels by timestep, ascending."""
        return tuple(math.sqrt((1 - a) / a) for a in self.alphas_cumprod)

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    @cached_property
    def _logs(self) -> tuple[float, ...]:
        return tuple(math.log(sigma) for sigma in self.sigmas)

    def sigma(self, t: float) -> float:
        """Noise level at timestep `t`, interpolated linearly in log sigma and clamped at the ends."""
        t = min(max(t, 0.0), len(self) - 1.0)
        below = int(t)
        if below == t:
            return self.sigmas[below]
        share = t - below
        return math.exp((1 - share) * self._logs[below] + share * self._logs[below + 1])

    def timestep(self, sigma: float) -> float:
        """The timestep whose noise level is `sigma`, the inverse of `sigma(t)`, clamped at the ends."""
        above = bisect_left(self.sigmas, sigma)
        if above == 0:
            return 0.0
        if above == len(self):
            return len(self) - 1.0
        if self.sigmas[above] == sigma:
            return float(above)
        low, high = self._logs[above - 1], self._logs[above]
        return above - 1 + (math.log(sigma) - low) / (high - low)


# (the model's table, number of steps N) -> N + 1 noise levels, strictly falling, the last one 0.0.
Schedule = Callable[[NoiseSchedule, int], Sequence[float]]


class RegisterSchedule(Protocol):
    """The function that the hook `register_schedules` receives."""

    def __call__(self, name: str, function: Schedule, *, title: str, paper: str | None = None) -> Any:
        """Register a schedule under `name`, described by the first line of the function's docstring."""
        ...


def last_part(sigmas: Sequence[float], strength: float) -> tuple[float, ...]:
    """The part of a grid that an img2img run uses: its last int(steps * strength) intervals."""
    steps = len(sigmas) - 1
    return tuple(sigmas[steps - int(steps * strength) :])


def _betas(kind: BetaSchedule, start: float, end: float, count: int) -> list[float]:
    if kind == "linear":
        return list(_line(start, end, count))
    if kind == "scaled_linear":
        return [root**2 for root in _line(math.sqrt(start), math.sqrt(end), count)]
    if kind == "sigmoid":
        return [start + (end - start) / (1 + math.exp(-place)) for place in _line(-6, 6, count)]
    if kind == "squaredcos_cap_v2":
        left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return [min(1 - after / before, _MOST_BETA) for before, after in pairwise(left)]
    raise ValueError(f"betas are scaled_linear, linear, squaredcos_cap_v2 or sigmoid, not {kind!r}")


def _without_end(alphas: Sequence[float]) -> tuple[float, ...]:
    """Square roots of alpha_bar, shifted and scaled to end in 0 and start as before."""
    roots = [math.sqrt(alpha) for alpha in alphas]
    first, last = roots[0], roots[-1]
    *rescaled, _ = (((root - last) * first / (first - last)) ** 2 for root in roots)
    return (*rescaled, min(_LEAST_ALPHA_BAR, rescaled[-1] / 2))


def _line(start: float, end: float, count: int) -> Iterator[float]:
    """`count` evenly spaced values from `start` to `end`, both included."""
    return (start + (end - start) * i / (count - 1) for i in range(count))
