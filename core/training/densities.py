"""Densities in the plane, with a spread of about 1: the training data of models of points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Cloud = NDArray[np.float64]


def moons(rng: np.random.Generator, count: int) -> Cloud:
    """Two half circles, each around an end of the other."""
    angle = rng.uniform(0, math.pi, count)
    upper = rng.random(count) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    cloud: Cloud = np.stack([x, y], axis=1) * 1.15 + rng.normal(0, 0.06, (count, 2))
    return cloud


def spiral(rng: np.random.Generator, count: int) -> Cloud:
    """Two turns outwards."""
    turn = np.sqrt(rng.uniform(0.03, 1, count))
    angle = 4 * math.pi * turn
    cloud: Cloud = 2.0 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return cloud + rng.normal(0, 0.05, (count, 2))


def grid(rng: np.random.Generator, count: int) -> Cloud:
    """Twenty-five narrow Gaussians, five a side."""
    return np.asarray(rng.integers(-2, 3, (count, 2)) * 0.8 + rng.normal(0, 0.08, (count, 2)), np.float64)


def letters(rng: np.random.Generator, count: int) -> Cloud:
    """The letters L and C, with points spread evenly along their lines."""
    corners = np.array([(-1.7, 1.0), (-1.7, -1.0), (-0.5, -1.0)])
    along = rng.uniform(0, 3.2, count)  # the L's two lines are 2.0 and 1.2 long
    down = np.minimum(along, 2.0)[:, None] / 2.0
    right = np.maximum(along - 2.0, 0.0)[:, None] / 1.2
    l_shape = corners[0] + down * (corners[1] - corners[0]) + right * (corners[2] - corners[1])
    angle = rng.uniform(0.25 * math.pi, 1.75 * math.pi, count)
    c_shape = np.stack([1.0 + np.cos(angle), np.sin(angle)], axis=1)
    chosen = np.where(rng.random((count, 1)) < 3.2 / (3.2 + 1.5 * math.pi), l_shape, c_shape)
    return chosen + rng.normal(0, 0.04, (count, 2))


DENSITIES: dict[str, Callable[[np.random.Generator, int], Cloud]] = {
    "moons": moons,
    "spiral": spiral,
    "grid": grid,
    "letters": letters,
}
