"""The reverse process of points in the plane: samplers side by side with the exact score.

All samplers start from the same noise and get the same number of evaluations. Drawn is x / sqrt(1 + sigma^2),
the state in DDPM's coordinates, so that the cloud has the same size at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import Plot
from core.figures.plots import Paper, moving
from core.learn.clouds import SPREAD, Points, as_points, cloud, distance, exact_denoiser
from core.learn.result import ViewResult
from core.learn.tables import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from core.inference.pipeline import Pipeline
    from core.sampling.contract import Denoise
    from core.sampling.registry import Registry, SamplerInfo
    from core.sampling.schedule import NoiseSchedule

MOST_EVALS, MOST_SAMPLERS, MOST_POINTS = 200, 8, 4000
KNOWN, POINTS = 2000, 1000  # data points that define the score, and points that are sampled
DRAWN, TRAILS, REACH = 500, 24, 2.9
EXACT = "the exact score"


@dataclass(frozen=True, eq=False)
class Descent:
    """One sampler's path from noise to points. If it failed, `error` says why and the arrays are empty.

    sigmas: the noise levels of the states, from the start to 0. states: (S + 1, N, 2). clean: (S, N, 2), the
    denoiser's estimate at each step. apart: distance of the final points to fresh data.
    """

    sampler: str
    title: str
    schedule: str
    steps: int
    evals: int
    sigmas: tuple[float, ...]
    states: Points = field(repr=False)
    clean: Points = field(repr=False)
    apart: float
    score: str = EXACT
    error: str = ""

    def shown(self, step: int) -> Points:
        """The state (N, 2) after `step` steps, in DDPM's coordinates."""
        step = min(max(step, 0), len(self.sigmas) - 1)
        made: Points = self.states[step] / math.sqrt(1 + self.sigmas[step] ** 2)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Everything but the states, ready for JSON."""
        kept = ("sampler", "schedule", "steps", "evals", "sigmas", "score", "error")
        apart = None if self.error else self.apart
        return {**{name: getattr(self, name) for name in kept}, "apart": apart}


@dataclass(frozen=True)
class Walk:
    """What all samplers share: the cloud, the number of evaluations, the noise and the noise table."""

    registry: Registry
    name: str
    evals: int
    points: int
    schedule: str | None
    seed: int
    model: NoiseSchedule


def descents(
    registry: Registry,
    samplers: Sequence[str],
    *,
    name: str = "moons",
    evals: int = 20,
    points: int = POINTS,
    schedule: str | None = None,
    seed: int = 0,
    spread: float = SPREAD,
    pipeline: Pipeline | None = None,
) -> list[Descent]:
    """Each sampler's path with the exact score of a cloud, in at most `evals` evaluations.

    schedule: for all samplers; by default the one each prefers, else "trailing". pipeline: a model of points,
    whose learned score every sampler then follows as well. Raises UserError for unknown names and values out
    of range; a plugin that fails is reported, and the others continue.
    """
    _check(samplers, evals, points)
    infos = [registry.sampler(one) for one in samplers]
    scores: dict[str, Denoise] = {EXACT: exact_denoiser(cloud(name, KNOWN, seed), spread)}
    model = table("scaled_linear")
    if pipeline is not None:
        scores[pipeline.name], model = learned_denoiser(pipeline), pipeline.model.noise_schedule
    walk = Walk(registry, name, evals, points, schedule, seed, model)
    return [_descent(walk, info, score, denoise) for info in infos for score, denoise in scores.items()]


def learned_denoiser(pipeline: Pipeline) -> Denoise:
    """The denoiser of a model of points, for clouds (1, 2, h, w), without prompt or guidance.

    Raises UserError for any other model.
    """
    from core.inference.denoising import build_denoiser
    from core.inference.start import Start
    from core.learn.recorder import settings_of

    if pipeline.model.config.vae.latent_channels != 2:
        raise UserError(
            f"{pipeline.name} makes images: only a model of points can be compared with the exact score"
        )
    return build_denoiser(pipeline.model, settings_of(pipeline, prompt="", cfg_scale=1.0), Start())


def reverse_points(
    registry: Registry,
    samplers: Sequence[str],
    *,
    name: str = "moons",
    share: float | None = None,
    **options: Any,
) -> ViewResult:
    """The samplers side by side after a `share` of their steps, by default all. Raises UserError."""
    made = descents(registry, samplers, name=name, **options)
    return shown(made, name, options.get("seed", 0), share)


def shown(made: Sequence[Descent], name: str, seed: int = 0, share: float | None = None) -> ViewResult:
    """Finished paths, drawn up to a `share` of their steps, in [0, 1]."""
    data = cloud(name, KNOWN, seed)[:DRAWN]
    fair = distance(cloud(name, 2000, seed + 1), cloud(name, 2000, seed + 2))
    good = [one for one in made if not one.error]
    if not good:
        raise UserError(f"no sampler finished: {made[0].error}")
    best = min(good, key=lambda one: one.apart)
    words = [
        f"Nearest to fresh data is {_title(best)}, at distance {best.apart:.3f}; two fresh draws of the data "
        f"are {fair:.3f} apart (sliced Wasserstein-2)."
    ]
    words += [one.error for one in made if one.error]

    def draw(paper: Paper) -> Figure:
        figure, panels = _panels(paper, len(good))
        for axes, one in zip(panels, good, strict=True):
            _trails(paper, axes, one, data, share)
        return figure

    numbers = {"cloud": name, "fresh_data_apart": fair, "descents": [one.to_dict() for one in made]}
    plot = Plot(f"points of {len(good)} samplers between noise and {name}", draw)
    code = [(f"sampler:{one.sampler}", "") for one in good[:1]]
    return ViewResult(words, numbers, [plot], lambda paper: _film(paper, good, data), code=code)


def _check(samplers: Sequence[str], evals: int, points: int) -> None:
    if not samplers:
        raise UserError("choose at least one sampler")
    if len(samplers) > MOST_SAMPLERS:
        raise UserError(f"{len(samplers)} samplers: choose at most {MOST_SAMPLERS}")
    for what, value, most in (("evaluations", evals, MOST_EVALS), ("points", points, MOST_POINTS)):
        if not 1 <= value <= most:
            raise UserError(f"{what} {value}: must be between 1 and {most}")


def _descent(walk: Walk, info: SamplerInfo, score: str, denoise: Denoise) -> Descent:
    from core.compare.race import fit
    from core.sampling.loop import run_sampler
    from core.sampling.noise import noise_source, start_noise

    levels = walk.registry.schedule(walk.schedule or info.schedule or "trailing")
    shape, calls = (2, 1, walk.points), 0

    def counted(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return denoise(x, sigma)

    try:
        steps, _ = fit(walk.evals, info, levels, walk.model)
        sigmas = levels.sigmas(walk.model, steps)
        x = start_noise(walk.seed, 1, shape) * math.sqrt(1 + sigmas[0] ** 2)
        noise = noise_source(info.noise, walk.seed, 1, shape)
        made = list(run_sampler(info, counted, x, sigmas, noise, {}))
    except UserError as error:
        nothing = np.empty((0, 0, 2))
        return Descent(
            info.name, info.title, levels.name, 0, 0, (), nothing, nothing, math.nan, score, str(error)
        )
    states = [as_points(x), *(as_points(step.x) for step in made)]
    return Descent(
        info.name,
        info.title,
        levels.name,
        len(made),
        calls,
        (sigmas[0], *(step.sigma for step in made)),
        np.stack(states),
        np.stack([as_points(step.denoised) for step in made]),
        distance(states[-1], cloud(walk.name, 2000, walk.seed + 1)),
        score,
    )


def _panels(paper: Paper, count: int) -> tuple[Figure, list[Axes]]:
    """One panel per sampler, arranged so that all are large and fit on a screen."""
    across = {1: 1, 2: 2, 3: 3, 4: 2}.get(count, math.ceil(count / 2))
    narrow = min(count, 2)
    shape = 1.2 if paper.narrow and narrow == 2 else {1: 0.6, 2: 0.59}.get(across, 1.1)
    columns = narrow if paper.narrow else across
    room = (0.35 if paper.narrow else 0.2) * columns / paper.width  # for the title above and the label below
    figure, panels = paper.panels(count, across=across, narrow_across=narrow, shape=shape + room)
    for axes in panels:
        paper.plane(axes, REACH, shape)
    return figure, panels


def _trails(paper: Paper, axes: Axes, one: Descent, data: Points, share: float | None) -> None:
    """The paths of a few points, the current state of all points, and the data behind them."""
    last = one.steps if share is None else round(min(max(share, 0.0), 1.0) * one.steps)
    axes.scatter(
        data[:, 0], data[:, 1], s=4, color=paper.ink.quiet, alpha=0.35, linewidths=0, rasterized=True
    )
    ways = np.stack([one.shown(i)[:TRAILS] for i in range(last + 1)])  # (last + 1, TRAILS, 2)
    for way in ways.swapaxes(0, 1):
        axes.plot(way[:, 0], way[:, 1], color=paper.ink.series[1], linewidth=0.6, alpha=0.7)
    now = one.shown(last)[:DRAWN]
    axes.scatter(
        now[:, 0], now[:, 1], s=7, color=paper.ink.series[0], alpha=0.85, linewidths=0, rasterized=True
    )
    paper.title(axes, _title(one))
    where = f"{one.steps} steps, {one.evals} evaluations"
    if last < one.steps:
        where = f"step {last} of {one.steps}, σ {one.sigmas[last]:.2g}"
    comma = ",\n" if paper.narrow else ", "
    apart = f"{comma}{one.apart:.3f} apart" if last == one.steps else ""
    paper.labels(axes, where + apart)


def _title(one: Descent) -> str:
    return one.title if one.score == EXACT else f"{one.title} with {one.score}"


def _film(paper: Paper, made: Sequence[Descent], data: Points, count: int = 32) -> list[Image.Image]:
    """Frames of all samplers at the same share of their steps, interpolated between states."""
    figure, panels = _panels(paper, len(made))
    points, words = [], []
    for axes, one in zip(panels, made, strict=True):
        axes.scatter(data[:, 0], data[:, 1], s=4, color=paper.ink.quiet, alpha=0.35, linewidths=0)
        points.append(
            axes.scatter(
                one.shown(0)[:, 0],
                one.shown(0)[:, 1],
                s=9,
                color=paper.ink.series[0],
                alpha=0.85,
                linewidths=0,
            )
        )
        paper.title(axes, _title(one))
        words.append(
            axes.text(0.03, 0.03, "", transform=axes.transAxes, color=paper.ink.text, fontsize=paper.font)
        )

    def move(i: int) -> None:
        for one, dots, text in zip(made, points, words, strict=True):
            place = i / (count - 1) * one.steps
            step = min(int(place), one.steps - 1)
            share = place - step
            before, after = one.shown(step)[:DRAWN], one.shown(step + 1)[:DRAWN]
            dots.set_offsets((1 - share) * before + share * after)
            text.set_text(f"step {place:.0f} of {one.steps}, σ {one.sigmas[round(place)]:.2g}")

    return moving(figure, [*points, *words], count, move)
