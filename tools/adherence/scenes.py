"""Reads a landscape by its pixels: which sky it has, and whether a thing of a kind and colour stands in it.

A thing is looked for with small pictures of it ("sprites") that the drawing code makes in every named colour:
where the asked one fits best it must fit well, and no other colour may fit better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from core.scenes.canvas import UNITS, Canvas
from core.scenes.objects import OBJECTS, Setting
from core.scenes.scene import COLORS, RGB, SCENE_KINDS, SKY_KINDS
from core.scenes.scenery import SKY_COLORS
from tools.adherence.regions import NAMES, Pixels

SKY_ROWS = 62
"""The sky is judged above this row; the highest land begins at 46, and is none of a sky's colours."""
COLUMNS = (23.5, 64.0, 104.5)
ASIDE = 7
"""How far from its column a thing is looked for."""
FEET = {True: range(41, 56, 3), False: range(96, 117, 3)}
"""Where the foot of what flies and of what stands is looked for."""
WORST = 80.0
"""A pixel further than this from what it should be is simply wrong (0..255 cube)."""
WORST_FIT, GOOD_FIT = 0.45, 0.25
"""Errors (0..1): of drawn things 0.23 at most, softened much 0.35; in another colour 0.5 and more."""
SOFTNESS = 1.0
PAD = 48
SCALES = (0.945, 0.985)
SETTINGS = tuple(Setting(dark, snow) for dark in (False, True) for snow in (False, True))


def read_sky(pixels: Pixels) -> str:
    """The sky whose colours most pixels have, each at its height; "" when it is none."""
    rows = np.arange(SKY_ROWS) / UNITS
    gaps = []
    for colors in SKY_COLORS.values():
        column = np.stack(
            [np.interp(rows, (0, 0.38, 0.66), channel) for channel in zip(*colors, strict=True)], -1
        )
        gaps.append(np.linalg.norm(pixels[:SKY_ROWS] - column[:, None], axis=-1))
    nearest = np.argmin(gaps, 0)[np.min(gaps, 0) < 40]
    votes = np.bincount(nearest, minlength=len(gaps))
    return tuple(SKY_COLORS)[int(votes.argmax())] if votes.max() > 0.15 * SKY_ROWS * UNITS else ""


@dataclass(frozen=True)
class Found:
    """Where a thing fits best, and how badly (0..1): in the asked colour, and in its nearest rival's."""

    x: float
    error: float
    main: float
    rival: str
    rival_error: float


@dataclass(frozen=True)
class Sprite:
    """A thing in each named colour: (colours, h, w, 3), where it is solid, where it has its own colour."""

    colors: NDArray[np.float32]
    solid: NDArray[np.bool_]
    main: NDArray[np.bool_]
    foot: tuple[int, int]


def stands(pixels: Pixels, kind: str, color: str) -> bool:
    """Whether a thing of this kind and colour is in the picture."""
    found = find(pixels, kind, color)
    if found.error > WORST_FIT or found.rival_error < found.main:
        return False
    # What fits less than well may be another kind in the same colour.
    return found.error < GOOD_FIT or all(
        find(pixels, other, color).error > found.error for other in SCENE_KINDS if other != kind
    )


def find(pixels: Pixels, kind: str, color: str) -> Found:
    """The best fit of a thing of this kind and colour anywhere it may be."""
    asked = NAMES.index(color)
    flies = kind in SKY_KINDS
    pixels = np.pad(_softened(pixels), ((PAD, PAD), (PAD, PAD), (0, 0)), constant_values=-1000)
    columns = [x for column in COLUMNS for x in range(round(column) - ASIDE, round(column) + ASIDE + 1, 3)]
    tries = [
        (float(errors.min()), k, divmod(int(errors.argmin()), len(columns)))
        for k, sprite in enumerate(sprites(kind))
        for errors in [_errors(pixels, sprite, asked, list(FEET[flies]), columns, 2)]
    ]
    _, best, (row, column) = min(tries)
    y, x = FEET[flies][row], columns[column]
    near = [(dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)]
    alike = [sprite for k, sprite in enumerate(sprites(kind)) if k // len(SCALES) == best // len(SCALES)]
    fine = min(
        ((float(_errors(pixels, sprite, asked, [y + dy], [x + dx])[0, 0]), k, dy, dx)
         for k, sprite in enumerate(alike) for dy, dx in near),
    )  # fmt: skip
    return _compare(pixels, alike[fine[1]], asked, y + fine[2], x + fine[3])


def _compare(pixels: Pixels, sprite: Sprite, asked: int, y: int, x: int) -> Found:
    window = _window(pixels, sprite, y, x)
    gaps = np.linalg.norm(window - sprite.colors, axis=-1).clip(0, WORST) / WORST
    mains = gaps[:, sprite.main].mean(1)
    others = [k for k in range(len(NAMES)) if k != asked]
    rival = min(others, key=lambda k: float(mains[k]))
    return Found(
        float(x),
        float(gaps[asked, sprite.solid].mean()),
        float(mains[asked]),
        NAMES[rival],
        float(mains[rival]),
    )


def _window(pixels: Pixels, sprite: Sprite, y: int, x: int) -> Pixels:
    height, width = sprite.solid.shape
    top, left = y - sprite.foot[0] + PAD, x - sprite.foot[1] + PAD
    return pixels[top : top + height, left : left + width]


def _softened(pixels: Pixels) -> Pixels:
    """Blurred by a pixel, so that a soft picture and a sharp one differ little."""
    image = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(SOFTNESS)), np.float32)


def _errors(
    pixels: Pixels, sprite: Sprite, color: int, rows: list[int], columns: list[int], stride: int = 1
) -> NDArray[np.float32]:
    """Mean error of the sprite in one colour with its foot at each of (rows, columns)."""
    mask = sprite.solid[::stride, ::stride]
    wanted = sprite.colors[color, ::stride, ::stride][mask]
    views = sliding_window_view(pixels, sprite.solid.shape, (0, 1))
    tops = np.array(rows) - sprite.foot[0] + PAD
    lefts = np.array(columns) - sprite.foot[1] + PAD
    windows = views[tops[:, None], lefts[None, :], :, ::stride, ::stride]
    gaps = np.moveaxis(windows, 2, -1)[:, :, mask] - wanted
    errors: NDArray[np.float32] = np.sqrt((gaps**2).sum(-1)).clip(0, WORST).mean(-1) / WORST
    return errors


@cache
def sprites(kind: str) -> tuple[Sprite, ...]:
    """Sprites of a kind in every setting and scale."""
    return tuple(_sprite(kind, setting, scale) for setting in SETTINGS for scale in SCALES)


def _sprite(kind: str, setting: Setting, scale: float) -> Sprite:
    def drawn(color: RGB, paper: RGB) -> NDArray[np.float32]:
        canvas = Canvas(UNITS, paper)
        OBJECTS[kind](canvas, 64, 90, scale, color, setting)
        return _softened(np.asarray(canvas.image(), np.float32))

    colors = np.stack([drawn(color, (120, 120, 120)) for color in COLORS.values()])
    through = np.abs(drawn(COLORS["red"], (255, 255, 255)) - drawn(COLORS["red"], (0, 0, 0))).max(-1)
    solid = through < 50
    main = solid & (np.abs(colors[0] - colors[NAMES.index("blue")]).max(-1) > 60)
    rows, columns = np.nonzero(solid)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    foot = 90 - int(rows.min()), 64 - int(columns.min())
    return Sprite(colors[:, box[0], box[1]], solid[box], main[box], foot)
