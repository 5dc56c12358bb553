"""Noise tables over their timesteps, and the noise levels that each schedule selects from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.figures.contact_sheet import Plot
from core.figures.plots import Paper
from core.inference.plan import strength_message
from core.learn.result import ViewResult
from core.learn.tables import TITLES, table, tables
from core.sampling.registry import Registry
from core.sampling.schedule import NoiseSchedule, last_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grids = Mapping[str, tuple[float, ...]]
_ALPHA, _SNR, _SIGMA = "signal left: ᾱ", "signal to noise: ᾱ / (1 − ᾱ)", "noise level σ = √((1 − ᾱ) / ᾱ)"


def schedules(
    registry: Registry,
    *,
    betas: str = "scaled_linear",
    schedule: str = "leading",
    steps: int = 20,
    strength: float = 1.0,
) -> ViewResult:
    """The noise tables with `betas` highlighted, and the schedules' levels in it. Raises UserError."""
    upper = noise_tables(betas)
    lower = grids(registry, schedule=schedule, steps=steps, strength=strength, model=table(betas))
    return ViewResult(
        [*upper.words, *lower.words],
        {"betas": betas, **upper.numbers, **lower.numbers},
        [*upper.parts, *lower.parts],
    )


def noise_tables(chosen: str = "scaled_linear") -> ViewResult:
    """alpha-bar, SNR and sigma over t for every kind of betas. Raises UserError."""
    table(chosen)
    known = tables()

    def draw(paper: Paper) -> Figure:
        figure, panels = paper.panels(3, across=3, shape=0.7)
        for axes, title, values in zip(panels, (_ALPHA, _SNR, _SIGMA), (_alpha, _snr, _sigma), strict=True):
            for i, (name, model) in enumerate(known.items()):
                times = [*range(0, len(model), 5), len(model) - 1]
                wide = 2.4 if name == chosen else 1.2
                line = [values(model, t) for t in times]
                axes.plot(times, line, color=paper.ink.series[i], linewidth=wide, label=TITLES[name])
            paper.title(axes, title)
            paper.labels(axes, "timestep t")
            if values is not _alpha:
                axes.set_yscale("log")
        paper.legend(panels[1])  # the one with an empty corner
        return figure

    half = {
        name: next(t for t in range(len(model)) if _alpha(model, t) < 0.5) for name, model in known.items()
    }
    numbers = {
        name: {
            "sigma_min": model.sigma_min,
            "sigma_max": model.sigma_max,
            "alpha_bar_end": model.alphas_cumprod[-1],
            "half_at": half[name],
        }
        for name, model in known.items()
    }
    model = known[chosen]
    words = (
        f"With {TITLES[chosen]} betas half of the signal's power is gone at t = {half[chosen]}; at the last "
        f"timestep {model.alphas_cumprod[-1]:.2g} of it is left, at noise level {model.sigma_max:.3g}."
    )
    return ViewResult([words], {"tables": numbers}, [Plot(words, draw)])


def grids(
    registry: Registry,
    *,
    schedule: str = "leading",
    steps: int = 20,
    strength: float = 1.0,
    model: NoiseSchedule | None = None,
) -> ViewResult:
    """The levels of every registered schedule on one axis, and those that run at a denoising strength.

    model: the noise table, by default Stable Diffusion's. Raises UserError for bad values and unknown
    schedules; schedules that cannot make `steps` steps are left out of the plot and named.
    """
    info, own = registry.schedule(schedule), model or table("scaled_linear")
    if not 1 <= steps <= len(own):
        raise UserError(f"steps {steps}: must be between 1 and {len(own)}")
    if not 0 < strength <= 1 or int(steps * strength) < 1:
        raise UserError(f"strength {strength:g} of {steps} steps: must be in (0, 1] and run at least 1 step")
    chosen = info.sigmas(own, steps)
    made, failed = _all_grids(registry, own, steps)
    start = own.timestep(last_part(chosen, strength)[0])
    words = [f"{info.title}: {strength_message(chosen, strength)}, at t = {start:.0f}."]
    if failed:
        words.append(f"Left out because they cannot make {steps} steps: {', '.join(failed)}.")

    def draw(paper: Paper) -> Figure:
        figure, (left, right) = paper.panels(2, across=2, shape=1.2 if paper.narrow else 0.66)
        _marks(paper, left, made, schedule, strength)
        _curve(paper, right, chosen, strength, info.title)
        return figure

    numbers: dict[str, Any] = {
        "schedule": schedule,
        "steps": steps,
        "strength": strength,
        "starts_at": last_part(chosen, strength)[0],
        "runs": int(steps * strength),
        "grids": {name: list(levels) for name, levels in made.items()},
        "failed": failed,
    }
    return ViewResult(words, numbers, [Plot(f"Noise levels of every schedule. {words[0]}", draw)])


def _all_grids(registry: Registry, model: NoiseSchedule, steps: int) -> tuple[Grids, list[str]]:
    made, failed = {}, []
    for name, info in registry.schedules.items():
        try:
            made[name] = info.sigmas(model, steps)
        except UserError:
            failed.append(name)
    return made, failed


def _marks(paper: Paper, axes: Axes, made: Grids, chosen: str, strength: float) -> None:
    """One row of marks per schedule, from high noise on the left to low noise on the right."""
    names = sorted(made, key=lambda name: name == chosen)
    for row, name in enumerate(names):
        levels, run = made[name][:-1], last_part(made[name], strength)[:-1]
        skipped = levels[: len(levels) - len(run)]
        color = paper.ink.accent if name == chosen else paper.ink.series[0]
        axes.plot(skipped, [row] * len(skipped), "|", color=paper.ink.quiet, alpha=0.45, ms=8)
        axes.plot(
            run,
            [row] * len(run),
            "|",
            color=color,
            ms=13 if name == chosen else 8,
            mew=2 if name == chosen else 1.2,
        )
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(True, axis="y", alpha=0.3)
    paper.title(axes, "noise levels of each schedule" + (f", strength {strength:g}" if strength < 1 else ""))
    paper.labels(axes, "noise level σ, from noise to image")


def _curve(paper: Paper, axes: Axes, levels: tuple[float, ...], strength: float, title: str) -> None:
    """The chosen schedule's level at each step."""
    skipped = len(levels) - len(last_part(levels, strength))
    steps = range(len(levels) - 1)  # the last level, 0, cannot be drawn on a log scale
    if skipped:
        axes.axvspan(-0.5, skipped, color=paper.ink.quiet, alpha=0.12, linewidth=0)
        axes.annotate(
            "img2img starts here",
            (skipped, levels[skipped]),
            (6, 8),
            textcoords="offset points",
            color=paper.ink.accent,
            fontsize=paper.font,
        )
    axes.plot(
        steps, levels[:-1], "-o", color=paper.ink.accent, ms=4 if len(levels) < 60 else 2, linewidth=1.2
    )
    axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    paper.title(axes, f"{title}: σ at each of {len(levels) - 1} steps")
    paper.labels(axes, "step")


def _alpha(model: NoiseSchedule, t: int) -> float:
    return model.alphas_cumprod[t]


def _snr(model: NoiseSchedule, t: int) -> float:
    return 1 / model.sigmas[t] ** 2


def _sigma(model: NoiseSchedule, t: int) -> float:
    return model.sigmas[t]
