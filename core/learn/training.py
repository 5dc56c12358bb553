"""The progress of a training run: the loss of each stage over its steps, and the newest samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import Paper
from core.learn.result import ViewResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

STAGES = {"text": "the text encoder", "vae": "the VAE", "unet": "the UNet"}
MOST_POINTS = 240  # of a curve: about one per pixel or two
SMOOTHED = 12  # points averaged for the bold line

Points = Sequence[tuple[float, float]]


class Curve:
    """The loss by step, as means over `width` steps each; `width` doubles when there are too many points.

    It may be read while another thread adds to it.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self.most, self.width = most, 1
        self.points: list[tuple[int, float]] = []
        self._sum, self._count = 0.0, 0

    def add(self, step: int, loss: float) -> None:
        """Add the loss of step `step`, counted from 1. Drops what was there from this step on, as a run
        that resumes from an earlier checkpoint makes these steps again.
        """
        if self.points and self.points[-1][0] >= step:
            self.points = [point for point in self.points if point[0] < step]
            self._sum, self._count = 0.0, 0
        self._sum, self._count = self._sum + loss, self._count + 1
        if self._count < self.width:
            return
        self.points = [*self.points, (step, self._sum / self._count)]
        self._sum, self._count = 0.0, 0
        if len(self.points) >= self.most:
            self._halve()

    def _halve(self) -> None:
        """Merge each two points into one at the position of the second."""
        pairs = zip(self.points[::2], self.points[1::2], strict=False)
        self.points = [(later, (a + b) / 2) for (_, a), (later, b) in pairs]
        self.width *= 2


@dataclass
class StageSeen:
    """A stage so far: its losses, and its losses on held-out data with the averaged weights."""

    name: str
    steps: int
    done: int = 0
    losses: Curve = field(default_factory=Curve)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The stage's name in a sentence."""
        return STAGES.get(self.name, self.name)


def training(stages: Sequence[StageSeen], samples: tuple[int, Image, Image] | None = None) -> ViewResult:
    """The loss curves of the stages. samples: (step, raw, averaged), contact sheets with either weights."""
    known = [stage for stage in reversed(stages) if stage.losses.points]  # the stage in training comes first
    words = [sentence for stage in known for sentence in _sentences(stage)]
    parts: list[Plot | ImageRow] = [_plot(stage) for stage in known]
    if samples is not None:
        step, raw, averaged = samples
        pair = [(f"raw weights, step {step}", raw), (f"averaged weights, step {step}", averaged)]
        parts.insert(1, ImageRow("Newest samples, from the same noise each time", pair, across=2))
    return ViewResult(words, {stage.name: _numbers(stage) for stage in known}, parts)


def smoothed(points: Points, over: int = SMOOTHED) -> list[tuple[float, float]]:
    """Each value replaced by the mean of the last `over` values."""
    values = [value for _, value in points]
    means = (values[max(i - over + 1, 0) : i + 1] for i in range(len(values)))
    return [(step, sum(part) / len(part)) for (step, _), part in zip(points, means, strict=True)]


def _numbers(stage: StageSeen) -> dict[str, Any]:
    return {
        "done": stage.done,
        "steps": stage.steps,
        "loss": smoothed(stage.losses.points)[-1][1],
        "held_out": stage.held_out[-1][1] if stage.held_out else None,
    }


def _sentences(stage: StageSeen) -> list[str]:
    loss = smoothed(stage.losses.points)[-1][1]
    said = [f"Loss of {stage.words} after {stage.done} of {stage.steps} steps: {loss:.3g}."]
    if stage.held_out:
        step, value = stage.held_out[-1]
        said.append(f"On held-out data with the averaged weights, at step {step}: {value:.3g}.")
    return said


def _plot(stage: StageSeen) -> Plot:
    losses, held_out = list(stage.losses.points), list(stage.held_out)

    def draw(paper: Paper) -> Figure:
        figure, [axes] = paper.panels(1, shape=0.62 if paper.narrow else 0.26)
        ink = paper.ink
        axes.plot(*_columns(losses), color=ink.accent, linewidth=0.8, alpha=0.45)
        axes.plot(*_columns(smoothed(losses)), color=ink.accent, linewidth=2.0, label="loss")
        if held_out:
            line: dict[str, Any] = {"color": ink.series[1], "linewidth": 1.6, "marker": "o", "markersize": 4}
            label = "on held-out data, averaged weights"
            axes.plot(*_columns(held_out), **line, clip_on=False, label=label)
        axes.set_xlim(0, max(stage.steps, losses[-1][0]))
        if all(value > 0 for _, value in (*losses, *held_out)):
            axes.set_yscale("log")
        paper.few_figures(axes.yaxis)
        paper.title(axes, f"Loss of {stage.words}")
        paper.labels(axes, "step")
        paper.legend(axes)
        return figure

    return Plot(" ".join(_sentences(stage)), draw)


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
