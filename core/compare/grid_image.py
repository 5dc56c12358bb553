"""The images of a comparison on one sheet, with wrapped labels, as a PNG with its recipe.

A sheet too large for other programs to open is drawn smaller; `Drawn.scale` says by how much.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from core.compare.grid import Cell, GridPlan, described, sheets

MOST_PIXELS = 40_000_000  # Pillow warns at 89 million and refuses twice that
MOST_SIDE = 16_384  # the limit of browsers and graphics cards
GRID_CHUNK = "latentcanvas grid"
LONGEST = 200  # characters of a label; the recipe has the full text
WRAPPED = 6  # images in a row when there is only one axis
_GAP, _PAD = 8, 16
_GROUND, _INK, _QUIET, _EMPTY = "#ffffff", "#1c1917", "#57534e", "#e7e5e4"
# The names of the settings in A1111's grids.
_THEIRS = {
    "sampler": "Sampler",
    "schedule": "Schedule type",
    "steps": "Steps",
    "cfg_scale": "CFG Scale",
    "seed": "Seed",
    "prompt": "Prompt S/R",
    "strength": "Denoising",
    "clip_skip": "Clip skip",
    "token_merging": "Token merging ratio",
    "size": "Size",
    "model": "Checkpoint name",
    "option:eta": "Eta",
}

Opener = Callable[[Cell], "Image.Image | None"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawn sheet. scale: 1 if the images have their full size, below 1 if they were reduced."""

    image: Image.Image
    scale: float

    def words(self) -> str:
        """The size of the sheet, and the scale of the images if they were reduced."""
        width, height = self.image.size
        smaller = "" if self.scale == 1 else f", images reduced to {self.scale:.0%} of their size"
        return f"{width}×{height} pixels{smaller}"


@dataclass(frozen=True)
class _Row:
    """Cells side by side, with labels above each (if any), a label on the left and a title."""

    cells: Sequence[Cell]
    above: Sequence[str] = ()
    left: str = ""
    title: str = ""


def draw_sheet(plan: GridPlan, picture: Opener, caption: str = "", most: int = MOST_PIXELS) -> Drawn:
    """Draw all cells with their labels. `picture` opens a cell's image, or returns None if there is none."""
    rows = list(_rows(plan))
    width, height = _largest(plan, picture)
    scale = 1.0
    for _ in range(60):  # labels do not shrink with the images, so the right scale is found step by step
        layout = _Layout(rows, max(round(width * scale), 16), max(round(height * scale), 16), caption)
        if layout.size[0] * layout.size[1] <= most and max(layout.size) <= MOST_SIDE:
            break
        scale *= 0.9
    return Drawn(layout.draw(picture), round(scale, 3))


def sheet_png(drawn: Drawn, plan: GridPlan, names: Mapping[tuple[int, int, int], str], first: str) -> bytes:
    """The sheet as a PNG file with its recipe.

    names: image files by the position of their cells. first: the infotext of the first image, written to
    `parameters` together with the axes, as A1111 does for its grids.
    """
    chunks = PngInfo()
    chunks.add_text("parameters", ", ".join(filter(None, (first, _script(plan)))))
    content = described(plan)
    for cell in content["cells"]:
        cell["picture"] = names.get(tuple(cell["at"]))
    chunks.add_text(GRID_CHUNK, json.dumps(content, separators=(",", ":")))
    buffer = io.BytesIO()
    drawn.image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def _script(plan: GridPlan) -> str:
    """The axes in the format of A1111's grids."""
    if plan.kind != "grid":
        return f'Comparison: "{plan.axes[0].text} at equal model evaluations"'
    said = ["Script: X/Y/Z plot"]
    for letter, axis in zip("XYZ", plan.axes, strict=False):
        said.append(f"{letter} Type: {_THEIRS.get(axis.setting, axis.title)}")
        said.append(f"{letter} Values: {json.dumps(axis.text, ensure_ascii=False)}")
    return ", ".join(said)


def _rows(plan: GridPlan) -> Iterator[_Row]:
    if len(plan.axes) == 1:
        (axis,) = plan.axes
        (_, (cells,)), *_ = sheets(plan)
        for i in range(0, len(cells), WRAPPED):
            labels = [_short(value.label) for value in axis.values[i : i + WRAPPED]]
            yield _Row(cells[i : i + WRAPPED], labels, title=axis.title if i == 0 else "")
        return
    columns, rows = plan.axes[:2]
    for title, lines in sheets(plan):
        for y, cells in enumerate(lines):
            above = [_short(f"{columns.title}: {value.label}") for value in columns.values]
            left = _short(f"{rows.title}: {rows.values[y].label}")
            yield _Row(cells, above if y == 0 else (), left, _short(title) if y == 0 else "")


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


class _Layout:
    """Positions of labels and images, for cells of one size; `draw` draws the sheet."""

    def __init__(self, rows: Sequence[_Row], width: int, height: int, caption: str) -> None:
        self.rows, self.cell = rows, (width, height)
        self.size_of_text = max(11, min(26, width // 11))
        self.font = _font(self.size_of_text)
        self.line = round(self.size_of_text * 1.35)
        self.left = min(max(width, 96), 260) if any(row.left for row in rows) else 0
        most = max(len(row.cells) for row in rows)
        inside = self.left + most * (width + _GAP)
        self.caption = self._wrap(caption, max(inside, 200))
        tall = 2 * _PAD + len(self.caption) * self.line + sum(self._height(row) for row in rows)
        self.size = (max(inside, 200) + 2 * _PAD, tall)

    def draw(self, picture: Opener) -> Image.Image:
        sheet = Image.new("RGB", self.size, _GROUND)
        pen = ImageDraw.Draw(sheet)
        y = self._write(pen, _PAD, _PAD, self.caption, _QUIET)
        for row in self.rows:
            y = self._draw_row(sheet, pen, row, y, picture)
        return sheet

    def _draw_row(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, row: _Row, y: int, picture: Opener
    ) -> int:
        width, height = self.cell
        if row.title:
            y = self._write(pen, _PAD, y + self.line // 2, [row.title], _INK)
        if row.above:
            bottom = y + self._above(row)
            for i, label in enumerate(row.above):
                lines = self._wrap(label, width)
                self._write(pen, self._x(i), bottom - len(lines) * self.line, lines, _INK)
            y = bottom + _GAP // 2
        if row.left:
            self._write(pen, _PAD, y, self._left(row), _INK)
        for i, cell in enumerate(row.cells):
            self._draw_cell(sheet, pen, (self._x(i), y), picture(cell))
        return y + max(height, len(self._left(row)) * self.line) + _GAP

    def _draw_cell(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], made: Image.Image | None
    ) -> None:
        (x, y), (width, height) = at, self.cell
        if made is None:
            pen.rectangle((x, y, x + width - 1, y + height - 1), fill=_EMPTY)
            self._write(pen, x + 6, y + 4, self._wrap("not made", width - 12), _QUIET)
            return
        small = made.convert("RGB")
        share = min(width / small.width, height / small.height, 1.0)
        if share < 1:
            size = (max(round(small.width * share), 1), max(round(small.height * share), 1))
            small = small.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(small, (x, y))

    def _x(self, column: int) -> int:
        return _PAD + self.left + column * (self.cell[0] + _GAP)

    def _height(self, row: _Row) -> int:
        title = self.line + self.line // 2 if row.title else 0
        above = self._above(row) + _GAP // 2 if row.above else 0
        return title + above + max(self.cell[1], len(self._left(row)) * self.line) + _GAP

    def _above(self, row: _Row) -> int:
        return max((len(self._wrap(label, self.cell[0])) for label in row.above), default=0) * self.line

    def _left(self, row: _Row) -> list[str]:
        return self._wrap(row.left, self.left - _GAP) if row.left else []

    def _write(self, pen: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], ink: str) -> int:
        for line in lines:
            pen.text((x, y), line, ink, font=self.font)
            y += self.line
        return y

    def _wrap(self, text: str, width: int) -> list[str]:
        """Lines of at most `width` pixels; longer words are broken."""
        lines: list[str] = []
        for word in text.split():
            joined = f"{lines[-1]} {word}" if lines else word
            if lines and self.font.getlength(joined) <= width:
                lines[-1] = joined
                continue
            pieces = self._broken(word, width)
            lines += pieces
        return lines

    def _broken(self, word: str, width: int) -> list[str]:
        if self.font.getlength(word) <= width:
            return [word]
        count = max(1, math.floor(len(word) * width / self.font.getlength(word)))
        return [word[i : i + count] for i in range(0, len(word), count)]


def _largest(plan: GridPlan, picture: Opener) -> tuple[int, int]:
    sizes: list[tuple[int, int]] = []
    for cell in plan.cells:
        made = picture(cell)
        sizes.append((cell.settings.width, cell.settings.height) if made is None else made.size)
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _font(size: int) -> Font:
    """A system font with more than English letters, else Pillow's default font."""
    names: tuple[str, ...] = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf")
    for name in names:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    own: Any = ImageFont.load_default(size)
    found: Font = own
    return found
