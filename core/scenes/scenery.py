"""Storybook landscapes: sky, light, clouds, land, the things that stand in it, rain and snow."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image

from core.scenes.canvas import OVERSAMPLE, UNITS, Canvas, mix, shade
from core.scenes.objects import OBJECTS, Setting
from core.scenes.scene import COLORS, RGB, SCENE_PLACES, SKY_KINDS, Scene, Thing

SKY_COLORS: dict[str, tuple[RGB, RGB, RGB]] = {
    "dawn": ((168, 178, 228), (240, 196, 214), (255, 226, 190)),
    "day": ((92, 172, 240), (150, 208, 250), (206, 234, 252)),
    "sunset": ((206, 72, 84), (246, 128, 66), (255, 196, 92)),
    "night": ((20, 28, 84), (36, 50, 118), (66, 88, 156)),
    "storm": ((66, 72, 88), (92, 99, 114), (128, 134, 144)),
}
"""From the top of the picture over the middle of the sky to the horizon."""

TINTS: dict[str, tuple[RGB, float]] = {
    "dawn": ((250, 200, 200), 0.22),
    "day": ((255, 255, 255), 0.0),
    "sunset": ((150, 60, 60), 0.3),
    "night": ((18, 26, 74), 0.55),
    "storm": ((62, 68, 82), 0.42),
}
"""What the hour does to the colours of the land: towards which colour, how far."""

CLOUDS: dict[str, RGB] = {
    "dawn": (255, 238, 236),
    "day": (255, 255, 255),
    "sunset": (255, 176, 140),
    "night": (98, 112, 166),
    "storm": (48, 52, 64),
}
LAND: dict[str, tuple[RGB, RGB, RGB]] = {
    "hills": ((150, 200, 140), (122, 184, 96), (150, 204, 92)),
    "mountains": ((132, 142, 176), (104, 114, 152), (132, 188, 104)),
    "sea": ((84, 164, 206), (58, 138, 190), (44, 116, 172)),
    "desert": ((238, 196, 130), (230, 178, 104), (244, 204, 132)),
    "forest": ((64, 118, 92), (44, 94, 70), (120, 168, 92)),
    "meadow": ((170, 210, 140), (140, 200, 98), (160, 214, 92)),
}
"""Far, middle and near layer."""
SNOW: RGB = (238, 244, 252)
Ground = Callable[[float], float]


def draw_scene(spec: Scene, rng: random.Random, size: int) -> Image.Image:
    canvas = Canvas(size, _sky(spec.sky, rng, size))
    if spec.stars:
        _stars(canvas, rng)
    _light(canvas, spec, rng)
    if spec.weather in ("clouds", "rain") or spec.sky == "storm":
        _clouds(canvas, spec, rng)
    far, middle, near = (_land_color(spec, layer, rng) for layer in range(3))
    ground = _LANDSCAPES[spec.land](canvas, (far, middle, near), spec, rng)
    for thing in sorted(spec.things, key=lambda t: (t.kind != "lighthouse", t.kind not in SKY_KINDS)):
        _place(canvas, thing, ground, spec, rng)
    _weather(canvas, spec, rng)
    return canvas.image()


def _sky(sky: str, rng: random.Random, size: int) -> Image.Image:
    """A column of pixels, one wide, from top to bottom of the picture; the horizon at two thirds."""
    top, middle, low = (shade(c, rng) for c in SKY_COLORS[sky])
    rows = np.linspace(0, 1, size * OVERSAMPLE)
    column = [np.interp(rows, (0, 0.38, 0.66), channel) for channel in zip(top, middle, low, strict=True)]
    return Image.fromarray(np.stack(column, -1).astype(np.uint8)[:, None, :])


def _stars(canvas: Canvas, rng: random.Random) -> None:
    """About two dozen, spread evenly enough that the sky looks full."""
    for i in range(24):
        x = (i % 6 + rng.uniform(0.15, 0.85)) * UNITS / 6
        y = (i // 6 + rng.uniform(0.15, 0.85)) * 17
        canvas.disc(x, y, rng.choice((1.0, 1.2, 1.6)), (255, 246, 204))


def _light(canvas: Canvas, spec: Scene, rng: random.Random) -> None:
    taken = {t.place for t in spec.things if t.kind in SKY_KINDS}
    x = _COLUMNS[rng.choice([p for p in SCENE_PLACES if p not in taken])] + rng.uniform(-9, 9)
    y = rng.uniform(20, 30)
    if spec.light == "sun":
        y = rng.uniform(22, 30) if spec.sky == "day" else rng.uniform(50, 58)
        core = {"day": (255, 226, 74), "dawn": (255, 214, 120)}.get(spec.sky, (255, 234, 130))
        for radius, alpha in ((22.0, 0.22), (17.0, 0.35)):
            canvas.disc(x, y, radius, core, alpha)
        canvas.disc(x, y, 12.5, shade(core, rng))
    elif spec.light == "full moon":
        canvas.disc(x, y, 18, (250, 244, 206), 0.16)
        canvas.disc(x, y, 12.5, (250, 244, 206))
        for dx, dy, radius in ((-4.0, -3.0, 3.2), (4.5, 2.0, 2.6), (-2.0, 6.0, 2.0)):
            canvas.disc(x + dx, y + dy, radius, (228, 220, 180))
    elif spec.light == "crescent moon":
        _crescent(canvas, x, y, 12.5)
    elif spec.light == "lightning":
        _bolt(canvas, x, rng)


def _crescent(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """The lit part of a disc: its left edge, and back along the edge of a disc shifted to the right."""
    outer = [math.pi * (0.28 + 1.44 * i / 24) for i in range(25)]
    points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in outer]
    tip_x, tip_y = radius * math.cos(outer[0]), radius * math.sin(outer[0])
    for i in range(1, 24):
        v = -1 + 2 * i / 24
        points.append((x + tip_x - radius * 0.98 * math.sqrt(1 - v * v), y + tip_y * v))
    canvas.polygon(points, (252, 244, 196))


def _bolt(canvas: Canvas, x: float, rng: random.Random) -> None:
    side = rng.choice((-1, 1))
    bolt = ((2, 14), (10, 14), (4, 32), (11, 32), (-6, 66), (-1, 42), (-8, 42))
    canvas.polygon([(x + side * u, v) for u, v in bolt], (255, 236, 110))


def _clouds(canvas: Canvas, spec: Scene, rng: random.Random) -> None:
    dark = spec.weather == "rain" and spec.sky in ("day", "night")
    color = mix(CLOUDS[spec.sky], (112, 120, 136), 0.6) if dark else CLOUDS[spec.sky]
    color = shade(color, rng)
    count = 3
    for i in range(count):
        x = (i + rng.uniform(0.2, 0.8)) * UNITS / count
        y, w = rng.uniform(14, 44), rng.uniform(13, 18)
        canvas.oval(x, y + 2, w * 1.2, w * 0.34, color)
        canvas.disc(x - w * 0.35, y - w * 0.15, w * 0.4, color)
        canvas.disc(x + w * 0.25, y - w * 0.28, w * 0.52, color)


# ---------------------------------------------------------------- land


def _land_color(spec: Scene, layer: int, rng: random.Random) -> RGB:
    color = LAND[spec.land][layer]
    tint, amount = TINTS[spec.sky]
    if spec.weather == "snow" and spec.land != "sea":
        keep = {"forest": (0.55, 0.55, 0.08), "mountains": (0.6, 0.6, 0.06)}.get(spec.land, (0.3, 0.16, 0.06))
        color = mix(SNOW, color, keep[layer])
        amount *= 0.62  # snow shines, even at night
    if spec.land == "sea" and spec.sky in ("dawn", "sunset"):
        tint, amount = SKY_COLORS[spec.sky][1], 0.45 - 0.1 * layer
    return shade(mix(color, tint, amount), rng, 4)


def _wave(rng: random.Random, level: float, height: float, turns: float) -> Ground:
    """A soft skyline around y = level."""
    start = rng.uniform(0, 2 * math.pi)
    return lambda x: level + height * math.sin(start + turns * 2 * math.pi * x / UNITS)


def _fill(canvas: Canvas, skyline: Ground, color: RGB) -> None:
    points = [(x, skyline(x)) for x in range(-2, UNITS + 5, 5)]
    canvas.polygon([*points, (UNITS + 4, UNITS + 2), (-4, UNITS + 2)], color)


def _hills(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    _fill(canvas, _wave(rng, 76, 7, rng.uniform(0.9, 1.3)), colors[0])
    _fill(canvas, _wave(rng, 87, 6, rng.uniform(0.7, 1.1)), colors[1])
    near = _wave(rng, 101, 4.5, rng.uniform(0.5, 0.9))
    _fill(canvas, near, colors[2])
    return near


def _mountains(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    tint, amount = TINTS[spec.sky]
    cap = mix(SNOW, tint, amount * 0.8)
    slots = [-4, 40, 84, 128, 20, 66, 110]
    for i, at in enumerate(slots):
        x = at + rng.uniform(-7, 7)
        y, half = (rng.uniform(46, 54), 34) if i < 4 else (rng.uniform(58, 66), 30)
        canvas.polygon(((x - half, 104), (x, y), (x + half, 104)), colors[0] if i < 4 else colors[1])
        t = 0.27
        left, right, low = x - half * t, x + half * t, y + (104 - y) * t
        canvas.polygon(((left, low), (x, y), (right, low), (x + 3, low - 4), (x - 2, low + 2)), cap)
    near = _wave(rng, 101, 3.5, rng.uniform(0.5, 0.9))
    _fill(canvas, near, colors[2])
    return near


def _sea(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    canvas.box(0, 74, UNITS, UNITS, colors[0])
    _fill(canvas, _wave(rng, 88, 1.8, rng.uniform(2.6, 3.2)), colors[1])
    _fill(canvas, _wave(rng, 107, 2.4, rng.uniform(2.0, 2.6)), colors[2])
    foam = mix(colors[1], (255, 255, 255), 0.35)
    for y in (81, 97, 116):
        for i in range(2):
            x, w = (i + rng.uniform(0.1, 0.6)) * 64, rng.uniform(5, 8)
            canvas.line(((x - w, y), (x - w / 2, y - 2), (x, y), (x + w / 2, y - 2), (x + w, y)), 1.8, foam)
    return lambda x: 103.0


def _desert(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    _fill(canvas, _wave(rng, 79, 4.5, rng.uniform(0.8, 1.2)), colors[0])
    _fill(canvas, _wave(rng, 90, 5, rng.uniform(0.6, 1.0)), colors[1])
    near = _wave(rng, 102, 4, rng.uniform(0.5, 0.8))
    _fill(canvas, near, colors[2])
    return near


def _forest(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    """Two rows of dark firs behind a clearing."""
    for row, (base, height, half, gap) in enumerate(((92, 42, 10, 15.0), (101, 34, 10, 17.0))):
        start = rng.uniform(-8, 4)
        canvas.box(0, base - 14 + 4 * row, UNITS, 106, colors[row])
        for i in range(10):
            x, top = start + gap * i, base - height + rng.uniform(-5, 5)
            for share in (0.0, 0.32):
                y = top + share * height
                spread, low = half * (0.72 + share), y + height * 0.5
                canvas.polygon(((x, y), (x + spread, low), (x - spread, low)), colors[row])
    near = _wave(rng, 103, 2.5, rng.uniform(0.5, 0.9))
    _fill(canvas, near, colors[2])
    return near


def _meadow(canvas: Canvas, colors: tuple[RGB, RGB, RGB], spec: Scene, rng: random.Random) -> Ground:
    _fill(canvas, _wave(rng, 82, 2, 0.6), colors[0])
    _fill(canvas, _wave(rng, 90, 2, 0.5), colors[1])
    near = _wave(rng, 101, 1.5, 0.5)
    _fill(canvas, near, colors[2])
    if spec.weather != "snow":
        tint, amount = TINTS[spec.sky]
        petals = ((255, 255, 255), (246, 90, 110), (255, 214, 70), (190, 110, 220))
        for i in range(14):
            x, y = (i + rng.uniform(0.2, 0.8)) * UNITS / 14, 110 + 6 * (i % 3) + rng.uniform(-2, 2)
            canvas.disc(x, y, 2.2, mix(rng.choice(petals), tint, amount * 0.6))
    return near


_LANDSCAPES: dict[str, Callable[[Canvas, tuple[RGB, RGB, RGB], Scene, random.Random], Ground]] = {
    "hills": _hills,
    "mountains": _mountains,
    "sea": _sea,
    "desert": _desert,
    "forest": _forest,
    "meadow": _meadow,
}


# ---------------------------------------------------------------- things and weather

_COLUMNS = {"left": 23.5, "middle": 64.0, "right": 104.5}


def _place(canvas: Canvas, thing: Thing, ground: Ground, spec: Scene, rng: random.Random) -> None:
    """Stand a thing on the ground, or let it fly."""
    x = _COLUMNS[thing.place] + rng.uniform(-2, 2)
    scale = rng.uniform(0.93, 1.0)
    setting = Setting(dark=spec.sky in ("night", "storm"), snow=spec.weather == "snow")
    if thing.kind in SKY_KINDS:
        y = rng.uniform(45, 49)
    else:
        y = ground(x) + 4
        if spec.land == "sea" and thing.kind != "boat":
            tint, amount = TINTS[spec.sky]
            grass = SNOW if setting.snow else (112, 168, 92)
            canvas.oval(x, y + 5, 22, 8, mix((206, 178, 128), tint, amount))
            canvas.oval(x, y + 1, 19, 6, mix(grass, tint, amount))
    OBJECTS[thing.kind](canvas, x, y, scale, shade(COLORS[thing.color], rng), setting)


def _weather(canvas: Canvas, spec: Scene, rng: random.Random) -> None:
    if spec.weather == "rain":
        for i in range(36):
            x, y = (i % 6 + rng.random()) * 23, (i // 6 + rng.random()) * 22
            canvas.line(((x, y), (x - 3.5, y + 9)), 1.5, (206, 222, 244), 0.75)
    elif spec.weather == "snow":
        for i in range(42):
            x, y = (i % 7 + rng.random()) * 18.3, (i // 7 + rng.random()) * 21.3
            canvas.disc(x, y, rng.choice((1.3, 1.7, 2.0)), (255, 255, 255))
