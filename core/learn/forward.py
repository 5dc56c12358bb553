"""The forward process: an image or a cloud of points at any noise level, and how much of it is left."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import Paper, moving
from core.learn.clouds import cloud
from core.learn.result import ViewResult
from core.learn.tables import table
from core.sampling.schedule import NoiseSchedule
from core.scenes.drawing import draw
from core.scenes.scene import sample_scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
POINTS, LARGEST, FRAMES = 600, 256, 24
# The lowest SNR (as power) for each sentence about what a viewer sees.
_SEEN = (
    (100.0, "hardly any noise, it looks clean"),
    (10.0, "fine grain, but every detail is visible"),
    (1.0, "strong noise, but shapes and edges are clear"),
    (0.1, "more noise than signal, but large shapes are visible"),
    (0.01, "nearly all noise, only the coarsest light and dark areas are visible"),
    (0.0, "it looks like pure noise, nothing is recognisable"),
)


@dataclass(frozen=True)
class Level:
    """One timestep of a noise table. snr: signal power over noise power, for data of standard deviation 1."""

    t: int
    alpha_bar: float
    sigma: float
    snr: float
    decibels: float

    @property
    def words(self) -> str:
        """The ratio, and what the data look like."""
        ratio = (
            f"the signal is {self.snr:.3g} times as strong as the noise"
            if self.snr >= 1
            else f"the noise is {1 / self.snr:.3g} times as strong as the signal"
        )
        seen = next(words for least, words in _SEEN if self.snr >= least)
        return f"{ratio} ({self.decibels:.1f} dB): {seen}"


def level(model: NoiseSchedule, t: int) -> Level:
    """Timestep `t` of a table. Raises UserError if `t` is out of range."""
    if not 0 <= t < len(model):
        raise UserError(f"t {t}: must be between 0 and {len(model) - 1}")
    alpha_bar, sigma = model.alphas_cumprod[t], model.sigmas[t]
    return Level(t, alpha_bar, sigma, 1 / sigma**2, -20 * math.log10(sigma))


def noised(clean: Array, at: Level, noise: Array) -> Array:
    """x_t of clean data and unit noise of the same shape: Ho et al. 2020, arXiv:2006.11239, eq. 4."""
    made: Array = math.sqrt(at.alpha_bar) * clean + math.sqrt(1 - at.alpha_bar) * noise
    return made


def forward_points(
    name: str = "moons", *, t: int = 300, betas: str = "scaled_linear", seed: int = 0
) -> ViewResult:
    """A cloud at timestep `t`, drawn over the clean one. Raises UserError for unknown names or a bad `t`."""
    model = table(betas)
    at, clean = level(model, t), cloud(name, POINTS, seed)
    noise = np.random.default_rng(seed + 1).normal(size=clean.shape)

    def draw(paper: Paper) -> Figure:
        figure, (left, right) = paper.panels(2, across=2, shape=0.78)
        _points(paper, left, clean, noised(clean, at, noise))
        paper.title(left, f"{name} at t = {t}")
        _course(paper, right, model, at)
        return figure

    numbers = _numbers(at, betas, seed) | {"cloud": name, "spread": float(noised(clean, at, noise).std())}
    words = [f"At t = {t} of {len(model)}, {at.words}."]
    plot = Plot(f"{name} at timestep {t}: {at.words}", draw)
    return ViewResult(words, numbers, [plot], lambda paper: _moving_points(paper, name, model, clean, noise))


def forward_picture(
    image: Image.Image, *, t: int = 300, betas: str = "scaled_linear", seed: int = 0
) -> ViewResult:
    """An RGB image at timestep `t`: clean, noisy, and the noise alone. Raises UserError for a bad `t`.

    Noise is added to pixels in [-1, 1]; values outside that range are clipped for display.
    """
    model = table(betas)
    at, small = level(model, t), image.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    clean = np.asarray(small, dtype=np.float64) / 127.5 - 1
    noise = np.random.default_rng(seed + 1).normal(size=clean.shape)
    shown = ImageRow(
        "",
        [
            ("clean, t = 0", small),
            (f"at t = {t}", _picture(noised(clean, at, noise))),
            ("the noise alone", _picture(noise)),
        ],
        across=3,
    )

    def draw(paper: Paper) -> Figure:
        figure, (axes,) = paper.panels(1, across=1, shape=0.62 if paper.narrow else 0.26)
        _course(paper, axes, model, at)
        return figure

    words = [f"At t = {t} of {len(model)}, {at.words}."]
    plot = Plot(f"the shares of signal and noise at each timestep, with t = {t} marked", draw)
    return ViewResult(
        words,
        _numbers(at, betas, seed),
        [shown, plot],
        lambda paper: [_picture(noised(clean, level(model, s), noise)) for s in _times(model)],
        milliseconds=100,
    )


def example_picture(seed: int = 7, size: int = LARGEST) -> Image.Image:
    """A scene drawn by this project, a different one for each seed."""
    chance = random.Random(seed)
    return draw(sample_scene(chance), chance, size)


def _numbers(at: Level, betas: str, seed: int) -> dict[str, Any]:
    return {"betas": betas, "seed": seed, **asdict(at), "words": at.words}


def _picture(values: Array) -> Image.Image:
    """Values (H, W, 3) from -1 to 1 as an image."""
    return Image.fromarray(np.round((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8))


def _points(paper: Paper, axes: Axes, clean: Array, moved: Array) -> None:
    paper.plane(axes, 3.2)
    axes.scatter(
        clean[:, 0], clean[:, 1], s=5, color=paper.ink.quiet, alpha=0.35, linewidths=0, rasterized=True
    )
    axes.scatter(
        moved[:, 0], moved[:, 1], s=9, color=paper.ink.series[0], alpha=0.75, linewidths=0, rasterized=True
    )


def _course(paper: Paper, axes: Axes, model: NoiseSchedule, at: Level) -> None:
    """The shares of signal and noise over all timesteps, with `at` marked."""
    times = range(0, len(model), 5)
    alphas = [model.alphas_cumprod[t] for t in times]
    axes.plot(times, [math.sqrt(a) for a in alphas], color=paper.ink.series[0], label="signal √ᾱ")
    axes.plot(times, [math.sqrt(1 - a) for a in alphas], color=paper.ink.series[1], label="noise √(1 − ᾱ)")
    axes.axvline(at.t, color=paper.ink.accent, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.plot(
        [at.t] * 2, [math.sqrt(at.alpha_bar), math.sqrt(1 - at.alpha_bar)], "o", color=paper.ink.accent, ms=5
    )
    shares = f"{math.sqrt(at.alpha_bar):.3f} and {math.sqrt(1 - at.alpha_bar):.3f}"
    paper.title(axes, f"signal and noise at t = {at.t}: {shares}")
    paper.labels(axes, "timestep t")
    paper.legend(axes)


def _times(model: NoiseSchedule) -> Sequence[int]:
    return [round(i * (len(model) - 1) / (FRAMES - 1)) for i in range(FRAMES)]


def _moving_points(
    paper: Paper, name: str, model: NoiseSchedule, clean: Array, noise: Array
) -> list[Image.Image]:

    figure = paper.figure(paper.width)
    axes = figure.add_subplot()
    paper.style(axes)
    paper.plane(axes, 3.2)
    paper.title(axes, f"{name}: adding noise, t = 0 to {len(model) - 1}")
    axes.scatter(clean[:, 0], clean[:, 1], s=8, color=paper.ink.quiet, alpha=0.35, linewidths=0)
    points = axes.scatter(clean[:, 0], clean[:, 1], s=16, color=paper.ink.series[0], alpha=0.75, linewidths=0)
    words = axes.text(0.02, 0.02, "", transform=axes.transAxes, color=paper.ink.text, fontsize=paper.font + 2)
    times = _times(model)

    def move(i: int) -> None:
        at = level(model, times[i])
        points.set_offsets(noised(clean, at, noise))
        words.set_text(f"t = {at.t}   SNR {at.decibels:.1f} dB")

    return moving(figure, [points, words], len(times), move)
