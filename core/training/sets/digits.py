"""Digits as a hand writes them, drawn from strokes: no font and no data set is needed.

Each digit is one or more strokes through a few points in a unit square, y downwards. A stroke is made smooth,
its points are moved a little, the whole is sheared, turned, stretched and shifted, and drawn with a pen of
some width at four times the size.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from core.training.sets.labelled import PictureSet, digit_captions

Point = tuple[float, float]
Stroke = tuple[Point, ...]
OVERSAMPLE = 4
JITTER = 0.025  # of the square's side, by which each point is moved
_SMOOTH = 3  # points drawn between two of a stroke


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float, count: int = 9) -> Stroke:
    """Points of an ellipse from one angle to another, in turns; 0 is to the right, a quarter is down."""
    angles = (2 * math.pi * (start + (end - start) * i / (count - 1)) for i in range(count))
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


# For each digit the ways to write it, each of them some strokes.
WAYS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    ((_arc(0.5, 0.5, 0.27, 0.42, -0.25, 0.75, 13),), (_arc(0.5, 0.5, 0.2, 0.42, -0.2, 0.83, 13),)),
    (
        (((0.5, 0.08), (0.5, 0.35), (0.5, 0.65), (0.5, 0.92)),),
        (((0.36, 0.24), (0.46, 0.16), (0.54, 0.08)), ((0.54, 0.08), (0.54, 0.5), (0.53, 0.92))),
    ),
    (
        (
            (*_arc(0.48, 0.3, 0.24, 0.21, 0.5, 1.07, 7), (0.6, 0.55), (0.42, 0.74), (0.24, 0.9)),
            ((0.24, 0.9), (0.5, 0.9), (0.77, 0.89)),
        ),
        (
            (*_arc(0.48, 0.29, 0.23, 0.2, 0.55, 1.1, 7), (0.55, 0.62), (0.35, 0.82), (0.26, 0.86)),
            ((0.26, 0.86), (0.36, 0.78), (0.54, 0.88), (0.77, 0.88)),
        ),
    ),
    (
        (
            (
                *_arc(0.46, 0.29, 0.22, 0.2, 0.58, 1.2, 8),
                (0.45, 0.48),
                *_arc(0.46, 0.69, 0.26, 0.22, 0.8, 1.42, 8),
            ),
        ),
        (
            ((0.25, 0.12), (0.48, 0.12), (0.72, 0.12)),
            ((0.72, 0.12), (0.58, 0.3), (0.46, 0.43)),
            ((0.46, 0.43), *_arc(0.46, 0.66, 0.26, 0.23, 0.8, 1.42, 8)),
        ),
    ),
    (
        (
            ((0.6, 0.08), (0.42, 0.36), (0.22, 0.64)),
            ((0.22, 0.64), (0.5, 0.64), (0.82, 0.63)),
            ((0.62, 0.36), (0.61, 0.92)),
        ),
        (
            ((0.28, 0.12), (0.26, 0.32), (0.25, 0.5)),
            ((0.25, 0.5), (0.5, 0.52), (0.72, 0.5)),
            ((0.71, 0.1), (0.69, 0.5), (0.67, 0.92)),
        ),
    ),
    (
        (
            ((0.74, 0.1), (0.52, 0.1), (0.32, 0.11)),
            ((0.32, 0.11), (0.3, 0.28), (0.28, 0.45)),
            ((0.28, 0.45), *_arc(0.46, 0.66, 0.27, 0.24, 0.75, 1.4, 9)),
        ),
    ),
    (
        (((0.64, 0.08), (0.44, 0.24), (0.3, 0.48), *_arc(0.49, 0.69, 0.23, 0.21, 0.5, -0.52, 11)),),
        (((0.5, 0.07), (0.36, 0.3), (0.28, 0.55), *_arc(0.47, 0.71, 0.2, 0.2, 0.45, -0.5, 11)),),
    ),
    (
        (((0.22, 0.11), (0.5, 0.11), (0.78, 0.1)), ((0.78, 0.1), (0.6, 0.4), (0.48, 0.66), (0.42, 0.92))),
        (
            ((0.22, 0.12), (0.5, 0.11), (0.78, 0.1)),
            ((0.78, 0.1), (0.58, 0.46), (0.44, 0.92)),
            ((0.4, 0.5), (0.55, 0.5), (0.7, 0.49)),
        ),
    ),
    (
        (_arc(0.5, 0.28, 0.2, 0.2, 0.25, 1.25, 12), _arc(0.5, 0.7, 0.24, 0.22, -0.25, 0.75, 12)),
        (
            (
                (0.68, 0.16),
                (0.5, 0.08),
                (0.33, 0.2),
                (0.38, 0.36),
                (0.58, 0.52),
                (0.71, 0.7),
                (0.6, 0.88),
                (0.42, 0.89),
                (0.3, 0.74),
                (0.42, 0.54),
                (0.62, 0.36),
                (0.69, 0.2),
            ),
        ),
    ),
    (
        ((*_arc(0.5, 0.31, 0.22, 0.22, 1.0, 0.02, 11), (0.71, 0.5), (0.66, 0.72), (0.58, 0.92)),),
        (_arc(0.48, 0.3, 0.2, 0.21, 1.0, 0.0, 11), ((0.69, 0.16), (0.69, 0.5), (0.68, 0.92))),
    ),
)


def draw_digit(digit: int, rng: random.Random, size: int = 28) -> NDArray[np.uint8]:
    """White on black, (size, size)."""
    side = size * OVERSAMPLE
    surface = Image.new("L", (side, side))
    pen = ImageDraw.Draw(surface)
    width = rng.uniform(0.07, 0.125) * side
    move = _hand(rng, side)
    for stroke in rng.choice(WAYS[digit]):
        shaken = [(x + rng.gauss(0, JITTER), y + rng.gauss(0, JITTER)) for x, y in stroke]
        line = [move(*point) for point in _smooth(shaken)]
        pen.line(line, fill=255, width=round(width))
        for x, y in (line[0], line[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(surface.reduce(OVERSAMPLE))


def digit_set(name: str, seed: int, count: int, size: int) -> PictureSet:
    """`count` digits in grey, as many of each kind as can be, in a random order."""
    labels = np.random.default_rng(seed).permutation(np.arange(count) % 10)
    pictures = [draw_digit(int(d), random.Random(f"{seed}/{name}/{i}"), size) for i, d in enumerate(labels)]
    return PictureSet(name, seed, np.stack(pictures), labels.astype(np.int64), digit_captions())


def _hand(rng: random.Random, side: int) -> Callable[[float, float], Point]:
    """A slanted, turned and stretched square, about two thirds of the image wide."""
    slant, turn = rng.gauss(0.1, 0.14), rng.gauss(0, 0.09)
    wide, high = rng.uniform(0.58, 0.82), rng.uniform(0.66, 0.8)
    across, down = rng.gauss(0, 0.025), rng.gauss(0, 0.025)
    cos, sin = math.cos(turn), math.sin(turn)

    def move(x: float, y: float) -> Point:
        x, y = (x - 0.5) * wide, (y - 0.5) * high
        x -= slant * y
        return (cos * x - sin * y + 0.5 + across) * side, (sin * x + cos * y + 0.5 + down) * side

    return move


def _smooth(points: Sequence[Point]) -> list[Point]:
    """A curve through all points: Catmull and Rom's spline."""
    if len(points) < 3:
        return list(points)
    ends = [points[0], *points, points[-1]]
    curve = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for i in range(_SMOOTH):
            curve.append(
                (_spline(a[0], b[0], c[0], d[0], i / _SMOOTH), _spline(a[1], b[1], c[1], d[1], i / _SMOOTH))
            )
    return [*curve, points[-1]]


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
