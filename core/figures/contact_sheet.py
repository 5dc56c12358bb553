"""Images and plots on one sheet, with captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from core.figures.plots import Paper, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_GAP = 12
Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot. `words` is its text alternative."""

    words: str
    draw: Callable[[Paper], Figure]


@dataclass(frozen=True, eq=False)
class ImageRow:
    """Images side by side, each with a caption below, at most `across` in a row."""

    title: str
    pictures: Sequence[tuple[str, Image.Image]]
    across: int = 8


def _font(size: int) -> Font:
    """The font of matplotlib, as Pillow's lacks some of the characters."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _drawn(part: Plot | ImageRow, paper: Paper) -> Image.Image:
    return picture(part.draw(paper)) if isinstance(part, Plot) else sheet(part, paper)


def sheet(part: ImageRow, paper: Paper) -> Image.Image:
    """The images in rows, with captions, as wide as the paper."""
    ink, font = paper.ink, _font(13)
    width = round(paper.width * 100)
    across = max(min(part.across, len(part.pictures), 3 if paper.narrow else part.across), 1)
    cell = (width - _GAP) // across - _GAP
    shapes = [image.height / image.width for _, image in part.pictures]
    height, label = round(cell * max(shapes, default=1.0)), 22
    rows = math.ceil(len(part.pictures) / across)
    made = Image.new("RGB", (width, 30 * bool(part.title) + rows * (height + label + _GAP)), ink.ground)
    pen = ImageDraw.Draw(made)
    title = _font(15)
    pen.text((_GAP, 4), fitting(part.title, width - 2 * _GAP, pen, title), ink.text, title)
    for i, (words, image) in enumerate(part.pictures):
        left = _GAP + i % across * (cell + _GAP)
        upper = 30 * bool(part.title) + i // across * (height + label + _GAP)
        smooth = Image.Resampling.LANCZOS if image.width > cell else Image.Resampling.NEAREST
        made.paste(image.convert("RGB").resize((cell, round(cell * shapes[i])), smooth), (left, upper))
        pen.text((left, upper + height + 3), fitting(words, cell, pen, font), ink.quiet, font)
    return made


def fitting(words: str, width: int, pen: ImageDraw.ImageDraw, font: Font) -> str:
    """`words`, cut with an ellipsis to fit into `width` pixels."""
    while words and pen.textlength(words, font=font) > width:
        words = words[:-2].rstrip() + "…" if len(words) > 2 else ""
    return words


def _stacked(images: Sequence[Image.Image], words: Sequence[str], paper: Paper) -> Image.Image:
    """The images one below the other, then the sentences."""
    width, font = round(paper.width * 100), _font(14)
    lines = [line for sentence in words for line in _wrapped(sentence, width - 2 * _GAP, font)]
    height = sum(image.height + _GAP for image in images) + 22 * len(lines) + 2 * _GAP
    made = Image.new("RGB", (width, height), paper.ink.ground)
    top = _GAP
    for image in images:
        made.paste(image, (0, top))
        top += image.height + _GAP
    pen = ImageDraw.Draw(made)
    for i, line in enumerate(lines):
        pen.text((_GAP, top + 22 * i), line, paper.ink.text, font)
    return made


def _wrapped(sentence: str, width: int, font: Font) -> list[str]:
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def labelled(
    cells: Sequence[tuple[str, Image.Image | None]], columns: int, narrowest: int = 0
) -> Image.Image:
    """Images of one size on white, `columns` in a row, each with its lines of text below.

    An image of None leaves its cell empty. narrowest: the minimum width of a cell, to make room for the text.
    """
    gap, line, font = 6, 15, _font(12)
    width, height = next((image.size for _, image in cells if image is not None), (64, 64))
    below = line * max(label.count("\n") + 1 for label, _ in cells) + 3
    cell = (max(width, narrowest) + gap, height + below + gap)
    size = (columns * cell[0] + gap, math.ceil(len(cells) / columns) * cell[1] + gap)
    made = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(made)
    for i, (label, image) in enumerate(cells):
        x, y = gap + i % columns * cell[0], gap + i // columns * cell[1]
        if image is not None:
            made.paste(image, (x, y))
        for row, words in enumerate(label.split("\n")):
            shown = fitting(words, cell[0] - gap, pen, font)
            pen.text((x, y + height + 2 + row * line), shown, (40, 40, 40), font)
    return made
