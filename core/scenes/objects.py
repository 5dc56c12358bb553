"""The things of a scene: each is drawn standing on (x, y), or hanging above it, about 40 units high."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from core.scenes.canvas import Canvas, mix
from core.scenes.scene import RGB

WHITE: RGB = (252, 250, 244)
SLATE: RGB = (70, 66, 84)
WOOD: RGB = (112, 74, 46)
LIT: RGB = (255, 222, 110)
GLASS: RGB = (206, 232, 246)


@dataclass(frozen=True)
class Setting:
    """What a thing has to know of the scene around it."""

    dark: bool
    snow: bool

    @property
    def window(self) -> RGB:
        return LIT if self.dark else GLASS


class Pen:
    """Draws in the thing's own coordinates: (0, 0) is its foot, v grows upwards."""

    def __init__(self, canvas: Canvas, x: float, y: float, scale: float) -> None:
        self._canvas, self._x, self._y, self._scale = canvas, x, y, scale

    def polygon(self, color: RGB, *points: tuple[float, float], alpha: float = 1.0) -> None:
        self._canvas.polygon([self._at(u, v) for u, v in points], color, alpha)

    def box(self, color: RGB, left: float, low: float, right: float, high: float) -> None:
        self.polygon(color, (left, low), (right, low), (right, high), (left, high))

    def oval(self, color: RGB, u: float, v: float, ru: float, rv: float | None = None) -> None:
        x, y = self._at(u, v)
        self._canvas.oval(x, y, ru * self._scale, (ru if rv is None else rv) * self._scale, color)

    def line(self, color: RGB, width: float, *points: tuple[float, float]) -> None:
        self._canvas.line([self._at(u, v) for u, v in points], width * self._scale, color)

    def _at(self, u: float, v: float) -> tuple[float, float]:
        return self._x + u * self._scale, self._y - v * self._scale


def _is_dark(color: RGB) -> bool:
    return sum(color) < 150


def _is_light(color: RGB) -> bool:
    return min(color) > 215


def _roof_color(color: RGB, setting: Setting) -> RGB:
    if setting.snow:
        return WHITE if not _is_light(color) else (160, 176, 206)
    return SLATE if not _is_dark(color) else (168, 84, 60)


def house(pen: Pen, color: RGB, setting: Setting) -> None:
    roof = _roof_color(color, setting)
    pen.box(mix(roof, (0, 0, 0), 0.25), 7, 26, 12, 38)
    pen.box(color, -15, 0, 15, 22)
    pen.polygon(roof, (-19, 21), (0, 38), (19, 21))
    pen.box(
        WOOD if sum(abs(a - b) for a, b in zip(color, WOOD, strict=True)) > 90 else WHITE, -3.5, 0, 3.5, 12
    )
    for u in (-9.5, 9.5):
        pen.box(setting.window, u - 3, 9, u + 3, 16)


def tree(pen: Pen, color: RGB, setting: Setting) -> None:
    trunk = WOOD if sum(abs(a - b) for a, b in zip(color, WOOD, strict=True)) > 90 else SLATE
    pen.polygon(trunk, (-4, 0), (4, 0), (2.6, 20), (-2.6, 20))
    for u, v, radius in ((-8, 22, 9.5), (8, 22, 9.5), (0, 32, 12.0)):
        pen.oval(color, u, v, radius)
    pen.oval(color, 0, 24, 9)
    if setting.snow:
        pen.oval(WHITE if not _is_light(color) else (176, 192, 220), 0, 40, 7, 3.2)


def boat(pen: Pen, color: RGB, setting: Setting) -> None:
    pen.box(WOOD if not _is_dark(color) else WHITE, -1.2, 8, 1.2, 44)
    pen.polygon(color, (2.4, 12), (2.4, 43), (18, 12))
    pen.polygon(WHITE if not _is_light(color) else (150, 190, 226), (-2.4, 12), (-2.4, 37), (-14, 12))
    pen.polygon(color, (-20, 9), (20, 9), (13, -2), (-13, -2))
    pen.polygon(mix(color, (0, 0, 0), 0.3), (-17.4, 4.5), (17.4, 4.5), (13, -2), (-13, -2))


def lighthouse(pen: Pen, color: RGB, setting: Setting) -> None:
    band = WHITE if not _is_light(color) else (140, 182, 226)
    if setting.dark:
        pen.polygon(LIT, (0, 44), (130, 70), (130, 18), alpha=0.3)
        pen.polygon(LIT, (0, 44), (-130, 70), (-130, 18), alpha=0.3)
    for i, (low, high) in enumerate(((0, 10), (10, 15), (15, 25), (25, 30), (30, 40))):
        w0, w1 = 9 - low * 0.09, 9 - high * 0.09
        pen.polygon(band if i % 2 else color, (-w0, low), (w0, low), (w1, high), (-w1, high))
    pen.box(SLATE, -8, 39, 8, 41.5)
    pen.box(LIT if setting.dark else (255, 240, 180), -4, 41.5, 4, 48)
    pen.polygon(_roof_color(color, setting) if not _is_dark(color) else color, (-7, 48), (7, 48), (0, 55))


def castle(pen: Pen, color: RGB, setting: Setting) -> None:
    roof = _roof_color(color, setting)
    pen.box(mix(color, (0, 0, 0), 0.14), -12, 0, 12, 20)
    for u in (-9.0, -3.0, 3.0, 9.0):
        pen.box(mix(color, (0, 0, 0), 0.14), u - 1.9, 19, u + 1.9, 24)
    for u in (-12.5, 12.5):
        pen.box(color, u - 5.7, 0, u + 5.7, 29)
        pen.polygon(roof, (u - 7.4, 28.5), (u + 7.4, 28.5), (u, 44))
        pen.box(setting.window, u - 2, 17, u + 2, 24)
    pen.box(SLATE if not _is_dark(color) else WOOD, -4.5, 0, 4.5, 9)
    pen.oval(SLATE if not _is_dark(color) else WOOD, 0, 9, 4.5)


def windmill(pen: Pen, color: RGB, setting: Setting) -> None:
    sail = (250, 246, 232) if not _is_light(color) else WOOD
    pen.polygon(color, (-11, 0), (11, 0), (7, 30), (-7, 30))
    pen.polygon(_roof_color(color, setting), (-9, 29.5), (9, 29.5), (0, 40))
    pen.box(WOOD if not _is_light(color) else SLATE, -3, 0, 3, 9)
    pen.box(setting.window, -2.6, 14, 2.6, 19)
    for quarter in range(4):
        angle = math.radians(38 + 90 * quarter)
        cos, sin = math.cos(angle), math.sin(angle)
        corners = ((0, -0.8), (5, -0.8), (5, -1.2), (21, -1.2), (21, 4.4), (5, 4.4), (5, 0.8), (0, 0.8))
        pen.polygon(sail, *((u * cos - v * sin, 30 + u * sin + v * cos) for u, v in corners))
    pen.oval(SLATE, 0, 30, 2.2)


def balloon(pen: Pen, color: RGB, setting: Setting) -> None:
    pale = mix(color, WHITE, 0.55) if not _is_light(color) else (196, 204, 222)
    pen.polygon(color, (-13.5, 19), (13.5, 19), (4, 8), (-4, 8))
    pen.oval(color, 0, 27, 16)
    pen.oval(pale, 0, 27, 9, 16)
    pen.polygon(pale, (-7.4, 18), (7.4, 18), (2.2, 8), (-2.2, 8))
    pen.oval(color, 0, 27, 4, 16)
    pen.polygon(color, (-3.2, 18), (3.2, 18), (1.2, 8), (-1.2, 8))
    pen.box(WOOD, -4, -1, 4, 6)
    for u in (-3.3, 3.3):
        pen.line(WOOD, 1.2, (u, 5), (u * 1.1, 9))


def kite(pen: Pen, color: RGB, setting: Setting) -> None:
    bright = mix(color, WHITE, 0.4) if not _is_light(color) else (196, 204, 222)
    pen.line(SLATE if not setting.dark else WHITE, 1.3, (-1, 9), (-5, 3), (1, -3), (-4, -9), (0, -14))
    pen.polygon(color, (0, 42), (14, 27), (-1, 7), (-14, 25))
    pen.polygon(bright, (0, 42), (14, 27), (0, 26))
    pen.polygon(bright, (0, 26), (-14, 25), (-1, 7))
    for u, v in ((-5.0, 3.0), (1.0, -3.0), (-4.0, -9.0)):
        pen.polygon(color, (u - 4, v + 2.2), (u - 4, v - 2.2), (u + 4, v + 2.2), (u + 4, v - 2.2))


_DRAWINGS: dict[str, Callable[[Pen, RGB, Setting], None]] = {
    "house": house,
    "tree": tree,
    "boat": boat,
    "lighthouse": lighthouse,
    "castle": castle,
    "windmill": windmill,
    "balloon": balloon,
    "kite": kite,
}
DrawObject: TypeAlias = Callable[[Canvas, float, float, float, RGB, Setting], None]


def _standing(drawing: Callable[[Pen, RGB, Setting], None]) -> DrawObject:
    def draw_object(canvas: Canvas, x: float, y: float, scale: float, color: RGB, setting: Setting) -> None:
        drawing(Pen(canvas, x, y, scale), color, setting)

    return draw_object


OBJECTS: dict[str, DrawObject] = {kind: _standing(drawing) for kind, drawing in _DRAWINGS.items()}
