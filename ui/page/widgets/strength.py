"""The effect of a denoising strength: "12 of 20 steps, from sigma 3.4", and a plot of the noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from core.errors import UserError
from core.request.fields import MAX_STEPS
from core.request.sigmas import parse_sigmas
from core.sampling.schedule import NoiseSchedule, last_part

if TYPE_CHECKING:
    from core.sampling.registry import Registry

WIDTH, HEIGHT, EDGE = 320.0, 56.0, 5.0


def grid(
    registry: Registry, noise: NoiseSchedule | None, schedule: str, steps: object, sigmas: str
) -> list[float]:
    """The form's noise levels, falling to 0. `noise` is the model's noise schedule, that of SD when None.

    Raises UserError.
    """
    if sigmas.strip():
        return list(parse_sigmas(sigmas))
    if not isinstance(steps, int | float) or not 1 <= steps <= MAX_STEPS:
        raise UserError(f"steps: must be a whole number between 1 and {MAX_STEPS}")
    return list(registry.schedule(schedule).sigmas(noise or NoiseSchedule.from_betas(), int(steps)))


def words(levels: Sequence[float], strength: float) -> str:
    """The steps that run: "12 of 20 steps, from sigma 3.4"."""
    part, total = last_part(levels, strength), len(levels) - 1
    if len(part) < 2:
        return f"0 of {total} steps: raise the strength to {math.ceil(1000 / total) / 1000:g}"
    return f"{len(part) - 1} of {total} step{'' if total == 1 else 's'}, from sigma {part[0]:.3g}"


def line(levels: Sequence[float], strength: float) -> str:
    """The sentence with its plot: the noise level over the steps, and where a run of this strength starts."""
    said = words(levels, strength)
    first = len(levels) - len(last_part(levels, strength))
    sentence = f'<p class="lc-quiet"><b>{escape(said)}</b></p>'
    return f'<div class="lc-strength">{_plot(levels, first, said)}{sentence}</div>'


def _plot(levels: Sequence[float], first: int, said: str) -> str:
    points = _points(levels)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    run = points[first:]
    filled = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*run, (run[-1][0], HEIGHT), (run[0][0], HEIGHT)])
    x, y = run[0]
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img"'
        f' aria-label="Noise level over the steps; runs {escape(said)}">'
        f'<polygon points="{filled}"/><polyline points="{path}"/>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT:g}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/></svg>'
    )


def _points(levels: Sequence[float]) -> list[tuple[float, float]]:
    """The points of the plot, with log sigma as height; the final 0 is at the bottom."""
    logs = [math.log(level) for level in levels[:-1]]
    low, high = min(logs), max(logs)
    room, span = HEIGHT - 2 * EDGE, (high - low) or 1.0
    heights = [EDGE + room * 0.88 * (high - log) / span for log in logs] + [HEIGHT - EDGE]
    step = (WIDTH - 2 * EDGE) / (len(levels) - 1)
    return [(EDGE + step * i, y) for i, y in enumerate(heights)]
