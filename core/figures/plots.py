"""Plotting with matplotlib without its global state: two palettes, panels, and figures as SVG or images.

On the page a figure is an SVG whose colours are CSS variables, so one drawing serves the light and the dark
theme. matplotlib is imported when the first figure is made.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from core.figures.image_bytes import png

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of medium lightness, for contrast on light and on dark backgrounds.
SERIES = ("#0d9488", "#d97706", "#8b5cf6", "#e11d48", "#0284c7", "#65a30d", "#c026d3", "#78716c")


WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 34
_INK, _GREY, _LOSS, _TEST = (40, 44, 52), (222, 225, 230), (46, 108, 196), (214, 96, 28)
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Ink:
    """The colours of a figure, the same as in ui/page/widgets/page.css."""

    ground: str
    text: str
    quiet: str
    line: str
    accent: str
    series: tuple[str, ...] = SERIES


LIGHT = Ink(ground="#f5f5f4", text="#1c1917", quiet="#57534e", line="#d6d3d1", accent="#0f766e")
DARK = Ink(ground="#0c0a09", text="#f5f5f4", quiet="#a8a29e", line="#3a3633", accent="#14b8a6")
INKS = {"light": LIGHT, "dark": DARK}
# CSS variables for the colours of the light palette.
_VARIABLES = {
    LIGHT.text: "var(--body-text-color)",
    LIGHT.quiet: "var(--body-text-color-subdued)",
    LIGHT.line: "var(--lc-line)",
    LIGHT.accent: "var(--color-accent)",
}


@dataclass(frozen=True)
class Paper:
    """The target of a figure: its colours, and whether it is as narrow as a phone."""

    ink: Ink = LIGHT
    narrow: bool = False

    @property
    def width(self) -> float:
        """Width in inches."""
        return 4.6 if self.narrow else 10.0

    @property
    def font(self) -> float:
        """Font size in points, readable at the displayed width."""
        return 10.0 if self.narrow else 9.0

    def panels(
        self, count: int, *, across: int = 3, narrow_across: int = 1, shape: float = 1.0
    ) -> tuple[Figure, list[Axes]]:
        """A figure of `count` panels, `across` side by side, each `shape` times as high as it is wide."""
        columns = max(min(narrow_across if self.narrow else across, count), 1)
        rows = math.ceil(count / columns)
        figure = self.figure(rows * (self.width / columns * shape + 0.3))
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
        for one in axes:
            self.style(one)
        return figure, axes

    def figure(self, height: float) -> Figure:
        """An empty figure, `height` inches high."""
        from matplotlib.figure import Figure

        made = Figure(figsize=(self.width, height), dpi=100, layout="constrained")
        made.set_facecolor(self.ink.ground)
        return made

    def style(self, axes: Axes) -> None:
        """Apply the palette to the axes: thin lines, readable numbers."""
        ink = self.ink
        axes.set_facecolor("none")
        for side, spine in axes.spines.items():
            spine.set_color(ink.line)
            spine.set_visible(side in ("left", "bottom"))
        axes.tick_params(colors=ink.quiet, labelsize=self.font, color=ink.line)
        axes.grid(True, color=ink.line, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)

    def title(self, axes: Axes, words: str) -> None:
        """Set the title of a panel."""
        axes.set_title(words, color=self.ink.text, fontsize=self.font + 1, loc="left")

    def labels(self, axes: Axes, across: str = "", up: str = "") -> None:
        """Set the labels of the axes."""
        axes.set_xlabel(across, color=self.ink.quiet, fontsize=self.font)
        axes.set_ylabel(up, color=self.ink.quiet, fontsize=self.font)

    def legend(self, axes: Axes) -> None:
        """Add a legend."""
        axes.legend(
            frameon=False, fontsize=self.font, labelcolor=self.ink.text, handlelength=1.4, borderaxespad=0.2
        )

    def few_figures(self, axis: Any) -> None:
        """Plain numbers as tick labels, also on a log axis that spans less than a power of ten."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_formatter(NullFormatter())

    def plane(self, axes: Axes, reach: float, shape: float = 1.0) -> None:
        """Show the plane from -reach to reach, without ticks; more on the longer side of the panel. `shape`
        is height divided by width.
        """
        axes.set_xlim(-reach * max(1 / shape, 1), reach * max(1 / shape, 1))
        axes.set_ylim(-reach * max(shape, 1), reach * max(shape, 1))
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(True)


def picture(figure: Figure) -> Image.Image:
    """The figure as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # its own annotations have gaps
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def svg(figure: Figure, words: str) -> str:
    """A figure drawn with `LIGHT` as an SVG for the page, at full width and with CSS variables as colours.

    words: its text alternative (aria-label).
    """
    figure.set_facecolor("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    head = f'<svg role="img" aria-label="{escape(words, quote=True)}" class="lc-plot"'
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", text, count=1)
    text = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)
    return re.sub(r"<metadata>.*?</metadata>", "", text.replace("<svg", head, 1), flags=re.DOTALL)


def moving(
    figure: Figure, artists: Sequence[Artist], count: int, move: Callable[[int], None]
) -> list[Image.Image]:
    """`count` frames of a figure in which only `artists` change: `move(i)` sets them for frame i.

    The rest is drawn once, so that a frame takes milliseconds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # its own annotations have gaps
    for artist in artists:
        artist.set_animated(True)
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for i in range(count):
        canvas.restore_region(ground)
        move(i)
        for artist in artists:
            figure.draw_artist(artist)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB"))
    return frames


def loss_curve(title: str, lines: Sequence[Mapping[str, float]]) -> bytes | None:
    """A PNG of the losses in a log (as `Log` writes it), on a log scale; None if there are no losses."""
    loss = [(line["step"], line["loss"]) for line in lines if line.get("loss", 0) > 0]
    test = [(line["step"], line["test_loss"]) for line in lines if line.get("test_loss", 0) > 0]
    if not loss and not test:
        return None
    logs = [math.log10(value) for _, value in (*loss, *test)]
    low, high = min(logs), max(logs)
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    last = max(step for step, _ in (*loss, *test))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + point[0] / last * (WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - math.log10(point[1])) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return x, y

    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for i in range(5):
        value = 10 ** (low + (high - low) * i / 4)
        _, y = place((0, value))
        pen.line((_LEFT, y, WIDTH - _RIGHT, y), fill=_GREY)
        pen.text((8, y - 6), f"{value:.3g}", fill=_INK)
    for i in range(5):
        x, _ = place((last * i / 4, 10**low))
        pen.text((x - 10, HEIGHT - _BOTTOM + 8), f"{last * i / 4:.0f}", fill=_INK)
    pen.line([place(point) for point in loss], fill=_LOSS, width=2)
    if test:
        pen.line([place(point) for point in test], fill=_TEST, width=2)
        for x, y in map(place, test):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_TEST)
    pen.text((_LEFT, 8), f"{title}: loss by step", fill=_LOSS)
    if test:
        pen.text((_LEFT + 220, 8), "on held-out data, averaged weights", fill=_TEST)
    return png(image)
