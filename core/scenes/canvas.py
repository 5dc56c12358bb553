"""The canvas that scenes are drawn on: units, colours, and shapes with soft edges."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw

from core.scenes.scene import RGB

Point: TypeAlias = tuple[float, float]
Polygon: TypeAlias = Sequence[Point]
UNITS = 128
OVERSAMPLE = 3
RADII = {"small": 11.5, "medium": 19.0, "large": 28.0}
LONE_RADII = {"small": 13.0, "medium": 22.0, "large": 34.0}
INSIDE_RADII = {"small": 11.0, "large": 40.0}
TRIO_RADII = {"small": 11.0, "medium": 17.0}


class Canvas:
    """A surface of 128 by 128 units on which to draw flat forms; `image()` gives the image."""

    def __init__(self, size: int, paper: Image.Image | RGB) -> None:
        """`paper` is a colour, or a column of pixels (a vertical gradient) to stretch over the surface."""
        pixels = size * OVERSAMPLE
        if isinstance(paper, Image.Image):
            self._surface = paper.resize((pixels, pixels), Image.Resampling.NEAREST)
        else:
            self._surface = Image.new("RGB", (pixels, pixels), paper)
        self._scale = pixels / UNITS
        self._solid = ImageDraw.Draw(self._surface)
        self._glaze = ImageDraw.Draw(self._surface, "RGBA")

    def polygon(self, points: Iterable[Point], color: RGB, alpha: float = 1.0) -> None:
        s = self._scale
        draw, ink = self._ink(color, alpha)
        draw.polygon([(x * s, y * s) for x, y in points], fill=ink)

    def disc(self, x: float, y: float, radius: float, color: RGB, alpha: float = 1.0) -> None:
        self.oval(x, y, radius, radius, color, alpha)

    def oval(self, x: float, y: float, rx: float, ry: float, color: RGB, alpha: float = 1.0) -> None:
        s = self._scale
        draw, ink = self._ink(color, alpha)
        draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=ink)

    def ring(self, x: float, y: float, radius: float, width: float, color: RGB) -> None:
        s = self._scale
        box = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self._solid.ellipse(box, outline=color, width=round(width * s))

    def box(self, x0: float, y0: float, x1: float, y1: float, color: RGB, alpha: float = 1.0) -> None:
        s = self._scale
        draw, ink = self._ink(color, alpha)
        draw.rectangle((x0 * s, y0 * s, x1 * s - 1, y1 * s - 1), fill=ink)

    def line(self, points: Iterable[Point], width: float, color: RGB, alpha: float = 1.0) -> None:
        s = self._scale
        draw, ink = self._ink(color, alpha)
        draw.line([(x * s, y * s) for x, y in points], fill=ink, width=round(width * s), joint="curve")

    def image(self) -> Image.Image:
        return self._surface.reduce(OVERSAMPLE)

    def _ink(self, color: RGB, alpha: float) -> tuple[ImageDraw.ImageDraw, tuple[int, ...]]:
        return (self._solid, color) if alpha >= 1 else (self._glaze, (*color, round(255 * alpha)))


def shade(color: RGB, rng: random.Random, spread: int = 6) -> RGB:
    """The same colour to the eye: a common shift of at most `spread`, and a little more per channel."""
    shift = rng.randint(-spread, spread)
    r, g, b = (min(255, max(0, c + shift + rng.randint(-2, 2))) for c in color)
    return r, g, b


def mix(color: RGB, other: RGB, amount: float) -> RGB:
    """`color` moved towards `other` by `amount` in 0..1."""
    r, g, b = (round(c + (o - c) * amount) for c, o in zip(color, other, strict=True))
    return r, g, b


def near_shade(color: RGB, amount: float = 0.26) -> RGB:
    """A shade of the same colour that can be told from it: lighter, or darker for the light colours."""
    return mix(color, (0, 0, 0), amount * 0.8) if sum(color) > 430 else mix(color, (255, 255, 255), amount)
