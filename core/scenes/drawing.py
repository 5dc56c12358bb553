"""From a specification to an image: flat, anti-aliased, never twice quite the same.

Everything is drawn three times as large as asked, in coordinates that call the image 128 wide and high,
and then averaged down, which gives smooth edges without any drawing library beyond Pillow.
"""

from __future__ import annotations

import math
import random

from PIL import Image

from core.scenes.canvas import (
    INSIDE_RADII,
    LONE_RADII,
    RADII,
    TRIO_RADII,
    UNITS,
    Canvas,
    Polygon,
    near_shade,
    shade,
)
from core.scenes.scene import COLORS, PLACES, RGB, Shapes, Spec
from core.scenes.scenery import draw_scene


def draw(spec: Spec, rng: random.Random, size: int = UNITS) -> Image.Image:
    """An image of `spec`, RGB, `size` by `size`; `rng` gives the small differences between two of them."""
    if isinstance(spec, Shapes):
        return _draw_shapes(spec, rng, size)
    return draw_scene(spec, rng, size)


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
    """Centre and radius (in units of 128 to an image) of each thing; no two circles of these overlap."""
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
