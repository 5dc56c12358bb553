"""Draws storybook images: sprites on backdrops, all on the cells of a grid of 8x8.

Everything is rasterised once at 256x256 and kept, so that an image is a few additions. At a half or a quarter
of the size it is the mean of pixels, which is all that the latents are computed from.
"""

# ruff: noqa: E501  an SVG element is better read in one line
from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.scenes import backdrops
from core.scenes.drawing import OUTLINES, near_shade
from core.scenes.nouns import drawing, nouns
from core.scenes.scene import COLORS
from core.scenes.storybook_scene import CELLS, Item, StorybookSpec

Floats = NDArray[np.float32]
_SHAPE_SCALE = 14.2  # of a shape's unit circle in a square of 32


class Painter:
    """Draws images whose cells are `cell` pixels a side: 32 for the whole size, or 16 or 8."""

    def __init__(self, cell: int = backdrops.CELL) -> None:
        if cell not in (8, 16, 32):
            raise ValueError("cells are of 8, 16 or 32 pixels")
        self.cell = cell
        self._grounds: dict[Any, Floats] = {}
        self._sprites: dict[Any, tuple[Floats, Floats]] = {}

    def paint(self, spec: StorybookSpec) -> Floats:
        """The image, (8 cell, 8 cell, 3) between 0 and 1."""
        image = self._ground(spec).copy()
        for name, column, row in spec.lights:
            self._lay(image, self._light(name, spec.hour or "day"), column, row)
        for item in spec.items:
            self._lay(image, self._item(item), item.column, item.row)
        return image

    def image(self, spec: StorybookSpec) -> NDArray[np.uint8]:
        """The image in bytes, (size, size, 3)."""
        return np.rint(self.paint(spec) * 255).astype(np.uint8)

    def _lay(self, image: Floats, sprite: tuple[Floats, Floats], column: int, row: int) -> None:
        color, clear = sprite
        y, x = row * self.cell, column * self.cell
        part = image[y : y + len(color), x : x + color.shape[1]]
        part *= clear[: len(part), : part.shape[1]]
        part += color[: len(part), : part.shape[1]]

    def _ground(self, spec: StorybookSpec) -> Floats:
        key = (spec.ground, spec.hour, spec.pattern)
        if key not in self._grounds:
            hour = spec.hour or backdrops.PLACES[spec.ground].hours[0] if spec.is_scene else ""
            elements = backdrops.PLACES[spec.ground].draw(hour) if spec.is_scene else _paper(spec)
            self._grounds[key] = self._raster(backdrops.svg(elements))[0]
        return self._grounds[key]

    def _light(self, name: str, hour: str) -> tuple[Floats, Floats]:
        key = (name, hour)
        if key not in self._sprites:
            if name in ("rain", "rainbow"):
                whole = backdrops.svg(backdrops.RAIN if name == "rain" else backdrops.RAINBOW)
                self._sprites[key] = self._raster(whole)
            else:
                elements = backdrops.cloud(hour) if name == "cloud" else backdrops.LIGHTS[name]
                self._sprites[key] = self._raster(backdrops.svg(elements, 64, 64))
        return self._sprites[key]

    def _item(self, item: Item) -> tuple[Floats, Floats]:
        key = (item.kind, item.color, item.size)
        if key not in self._sprites:
            side = backdrops.CELL * item.size
            if item.kind in nouns():
                drawn = self._raster(backdrops.svg(drawing(nouns()[item.kind], item.color), side, 32))
            elif item.is_shape:
                drawn = self._raster(backdrops.svg(_shape(item.kind, item.color or "red"), side, 32))
            else:
                drawn = self._raster(backdrops.svg(_built(item.kind, item.color or "red"), side, 64))
            self._sprites[key] = drawn
        return self._sprites[key]

    def _raster(self, text: str) -> tuple[Floats, Floats]:
        """Colours times opacity, and what is let through, (side, side, 3) and (side, side, 1)."""
        pixels: Floats = np.asarray(rasterise(text), dtype=np.float32)
        pixels /= 255
        opacity: Floats = pixels[:, :, 3:]
        color: Floats = pixels[:, :, :3] * opacity
        step = backdrops.CELL // self.cell
        return _reduced(color, step), 1 - _reduced(opacity, step)


def _reduced(pixels: Floats, step: int) -> Floats:
    """The mean of step x step pixels."""
    height, width, channels = pixels.shape
    mean: Floats = pixels.reshape(height // step, step, width // step, step, channels).mean((1, 3))
    return mean


def rasterise(text: str) -> Image.Image:
    """An SVG as RGBA. Raises UserError without the library that draws it."""
    return Image.open(io.BytesIO(bytes(resvg().svg_to_bytes(svg_string=text)))).convert("RGBA")


def resvg() -> Any:
    """The library that draws SVGs, which is an optional dependency. Raises UserError without it."""
    try:
        import resvg_py
    except ImportError:
        raise UserError(
            "drawing the storybook needs resvg: install it with "
            '`pip install -c constraints.txt -e ".[train]"`.'
        ) from None
    return resvg_py


def _paper(spec: StorybookSpec) -> str:
    color = COLORS[spec.ground]
    drawn = f'<rect width="256" height="256" fill="{backdrops.hexed(color)}"/>'
    ink = backdrops.hexed(near_shade(color))
    step = backdrops.SIDE // CELLS
    if spec.pattern == "striped":
        drawn += "".join(
            f'<rect x="{x + 8}" width="16" height="256" fill="{ink}"/>' for x in range(0, 256, step)
        )
    if spec.pattern == "dotted":
        drawn += "".join(
            f'<circle cx="{x + 16}" cy="{y + 16}" r="8" fill="{ink}"/>'
            for x in range(0, 256, step)
            for y in range(0, 256, step)
        )
    return drawn


def _shape(kind: str, color: str) -> str:
    fill = backdrops.hexed(COLORS[color])
    if kind == "circle":
        return f'<circle cx="16" cy="16" r="{0.95 * _SHAPE_SCALE}" fill="{fill}"/>'
    if kind == "ring":
        return (
            f'<circle cx="16" cy="16" r="{0.76 * _SHAPE_SCALE}" fill="none" stroke="{fill}" '
            f'stroke-width="{0.4 * _SHAPE_SCALE}"/>'
        )
    points = " ".join(f"{16 + _SHAPE_SCALE * u:.2f},{16 + _SHAPE_SCALE * v:.2f}" for u, v in OUTLINES[kind])
    return f'<polygon points="{points}" fill="{fill}"/>'


def _built(kind: str, color: str) -> str:
    """A lighthouse or a windmill, in a square of 64x64."""
    fill = backdrops.hexed(COLORS[color])
    pale = "#ffffff" if color not in ("white", "yellow") else "#7f9cc4"
    if kind == "lighthouse":
        bands = ""
        for i, (top, low) in enumerate(((18, 26), (26, 35), (35, 45), (45, 60))):
            w0, w1 = 6.5 + (top - 18) * 0.11, 6.5 + (low - 18) * 0.11
            bands += (
                f'<polygon points="{32 - w0},{top} {32 + w0},{top} {32 + w1},{low} {32 - w1},{low}" '
                f'fill="{fill if i % 2 == 0 else pale}"/>'
            )
        return (
            bands
            + '<rect x="23" y="15" width="18" height="3.5" fill="#4a4f5c"/><rect x="27" y="8" width="10" height="8" '
            f'fill="#ffe27a"/><polygon points="24.5,8.5 39.5,8.5 32,1.5" fill="{fill}"/><rect x="18" y="58" width="28" '
            'height="4" rx="2" fill="#8a8f9c"/>'
        )
    sails = ""
    for angle in (40, 130, 220, 310):
        sails += (
            f'<g transform="rotate({angle} 32 22)"><rect x="31" y="-1" width="2" height="23" fill="#7a4a2a"/>'
            '<rect x="33" y="-1" width="6" height="17" fill="#fbf3dc" stroke="#a08a68" stroke-width="1"/></g>'
        )
    return (
        f'<polygon points="23,22 41,22 46,61 18,61" fill="{fill}"/><polygon points="21,23 43,23 32,11" fill="#6a4636"/>'
        f'<rect x="28" y="48" width="8" height="13" fill="#5a3a28"/><rect x="28.5" y="32" width="7" height="8" fill="{pale}"/>'
        f'{sails}<circle cx="32" cy="22" r="2.6" fill="#4a3020"/>'
    )
