"""From a specification to a picture: flat, anti-aliased, never twice quite the same.

Everything is drawn three times as large as asked, in coordinates that call the picture 128 wide and high,
and then averaged down, which gives smooth edges without any drawing library beyond Pillow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw

from core.training.pictures import COLORS, PLACES, RGB, Shapes, Spec

Point: TypeAlias = tuple[float, float]
Polygon: TypeAlias = Sequence[Point]
UNITS = 128
OVERSAMPLE = 3
RADII = {"small": 11.5, "medium": 19.0, "large": 28.0}
LONE_RADII = {"small": 13.0, "medium": 22.0, "large": 34.0}
INSIDE_RADII = {"small": 11.0, "large": 40.0}
TRIO_RADII = {"small": 11.0, "medium": 17.0}


class Canvas:
    """A surface of 128 by 128 units on which to draw flat forms; `image()` gives the picture."""

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


def draw(spec: Spec, rng: random.Random, size: int = UNITS) -> Image.Image:
    """A picture of `spec`, RGB, `size` by `size`; `rng` gives the small differences between two of them."""
    if isinstance(spec, Shapes):
        return _draw_shapes(spec, rng, size)
    from core.training.scenery import draw_scene

    return draw_scene(spec, rng, size)


# ---------------------------------------------------------------- colours


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


# ---------------------------------------------------------------- shapes


def _draw_shapes(spec: Shapes, rng: random.Random, size: int) -> Image.Image:
    paper = shade(COLORS[spec.background], rng)
    canvas = Canvas(size, paper)
    if spec.pattern != "plain":
        ink = shade(COLORS[spec.pattern_color], rng) if spec.pattern_color else near_shade(paper)
        (_stripes if spec.pattern == "striped" else _dots)(canvas, ink, rng)
    for index, (x, y, radius) in sorted(enumerate(layout(spec, rng)), reverse=True):
        thing = spec.things[index]
        _shape(canvas, thing.kind, x, y, radius, shade(COLORS[thing.color], rng), rng)
    return canvas.image()


def layout(spec: Shapes, rng: random.Random) -> list[tuple[float, float, float]]:
    """Centre and radius (in units of 128 to a picture) of each thing; no two circles of these overlap."""
    if spec.relation == "inside":
        return _nested(spec, rng)
    radii = {1: LONE_RADII, 2: RADII, 3: TRIO_RADII}[len(spec.things)]
    columns = (25.0, 64.0, 103.0) if len(spec.things) == 3 else (31.0, 64.0, 97.0)
    wobble = {1: 5.0, 2: 2.5, 3: 1.8}[len(spec.things)]
    circles = []
    for thing in spec.things:
        radius = radii[thing.size] * rng.uniform(0.95, 1.05)
        cell = PLACES.index(thing.place)
        edge = radius + 3
        x, y = (
            min(UNITS - edge, max(edge, columns[i] + rng.uniform(-wobble, wobble)))
            for i in (cell % 3, cell // 3)
        )
        circles.append((x, y, radius))
    return circles


def _nested(spec: Shapes, rng: random.Random) -> list[tuple[float, float, float]]:
    outer = INSIDE_RADII["large"] * rng.uniform(0.95, 1.05)
    inner = INSIDE_RADII["small"] * rng.uniform(0.95, 1.05)
    x, y = 64 + rng.uniform(-12, 12), 64 + rng.uniform(-12, 12)
    drop = {"triangle": 0.2, "heart": -0.12, "star": 0.02}.get(spec.things[1].kind, 0.0) * outer
    return [(x + rng.uniform(-1.5, 1.5), y + drop + rng.uniform(-1.5, 1.5), inner), (x, y, outer)]


def _stripes(canvas: Canvas, ink: RGB, rng: random.Random) -> None:
    """Stripes 8 wide, 20 apart: upright, level or slanted."""
    slant = rng.choice(("upright", "level", "slanted"))
    start = rng.uniform(-20, 0)
    for i in range(14):
        at = start + 20 * i
        if slant == "upright":
            canvas.box(at, 0, at + 8, UNITS, ink)
        elif slant == "level":
            canvas.box(0, at, UNITS, at + 8, ink)
        else:
            canvas.polygon(((at, 0), (at + 11, 0), (at + 11 - 128, UNITS), (at - 128, UNITS)), ink)


def _dots(canvas: Canvas, ink: RGB, rng: random.Random) -> None:
    """Rows of dots of radius 4.5, 18 apart, every second row shifted by half."""
    x0, y0 = rng.uniform(-9, 9), rng.uniform(-9, 9)
    for row in range(9):
        for column in range(9):
            canvas.disc(x0 + 18 * column - 9 * (row % 2), y0 + 16 * row, 4.5, ink)


def _shape(canvas: Canvas, kind: str, x: float, y: float, r: float, color: RGB, rng: random.Random) -> None:
    """One shape within the circle of radius r around (x, y)."""
    if kind == "circle":
        canvas.disc(x, y, r * 0.95, color)
    elif kind == "ring":
        canvas.ring(x, y, r, r * 0.38, color)
    else:
        turn = math.radians(rng.uniform(-4, 4))
        cos, sin = math.cos(turn) * r, math.sin(turn) * r
        points = [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in OUTLINES[kind]]
        canvas.polygon(points, color)


def _star() -> Polygon:
    points = []
    for i in range(10):
        radius, angle = (1.06, 0.46)[i % 2], math.pi * (i / 5 - 0.5)
        points.append((radius * math.cos(angle), radius * math.sin(angle) + 0.06))
    return points


def _heart() -> Polygon:
    """The classic heart curve, 48 points, scaled into the unit circle."""
    points = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        u = 16 * math.sin(t) ** 3
        v = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((u / 17, -(v + 2.5) / 17))
    return points


_ARM = 0.33
OUTLINES: dict[str, Polygon] = {
    "square": ((-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)),
    "triangle": ((0, -0.95), (1.0, 0.78), (-1.0, 0.78)),
    "diamond": ((0, -1.06), (0.72, 0), (0, 1.06), (-0.72, 0)),
    "star": _star(),
    "heart": _heart(),
    "cross": (
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
}  # fmt: skip
