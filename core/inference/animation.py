"""The steps of a run as one file to show: a moving GIF, or a sheet of small pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

    from core.inference.trajectory import Trajectory

Decode = Callable[["Tensor"], list[Image.Image]]
_GAP, _LABEL = 6, 18  # pixels between the pictures of a sheet, and for the line under each
_GROUND, _INK = (255, 255, 255), (40, 40, 40)


def frames(
    trajectory: Trajectory,
    view: str = "clean",
    image: int = 0,
    *,
    largest: int = 512,
    decode: Decode | None = None,
) -> list[Image.Image]:
    """A picture a step, at most `largest` pixels a side: by the preview map, or by `decode` (the VAE's)."""
    made = []
    for k in range(1, len(trajectory.steps) + 1):
        if decode is None:
            frame = trajectory.preview(k, view, image)
        else:
            frame = decode(trajectory.latents(k, view, image))[0]
        frame.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        made.append(frame)
    return made


def animation(
    trajectory: Trajectory,
    *,
    view: str = "clean",
    image: int = 0,
    milliseconds: int = 120,
    hold: int = 1500,
    largest: int = 512,
    final: Image.Image | None = None,
    decode: Decode | None = None,
) -> bytes:
    """The steps as a GIF that goes round and round, `milliseconds` each, the last one for `hold` of them.

    final: the finished picture, to be shown last.
    """
    shown = frames(trajectory, view, image, largest=largest, decode=decode)
    if final is not None:
        shown.append(final.convert("RGB").resize(shown[0].size, Image.Resampling.LANCZOS))
    durations = [milliseconds] * (len(shown) - 1) + [hold]
    # A palette each: the colours of a forming picture change all the way.
    first, *others = (frame.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in shown)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0, disposal=1)
    return buffer.getvalue()


def contact_sheet(
    trajectory: Trajectory,
    *,
    view: str = "clean",
    image: int = 0,
    columns: int | None = None,
    largest: int = 192,
    decode: Decode | None = None,
) -> Image.Image:
    """The steps side by side, row after row, each with its number and noise level under it."""
    shown = frames(trajectory, view, image, largest=largest, decode=decode)
    across = min(columns or math.ceil(math.sqrt(len(shown) * 1.4)), len(shown))
    width, height = shown[0].width + _GAP, shown[0].height + _LABEL + _GAP
    sheet = Image.new("RGB", (across * width + _GAP, -(-len(shown) // across) * height + _GAP), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, (frame, step) in enumerate(zip(shown, trajectory.steps, strict=True)):
        left, upper = _GAP + i % across * width, _GAP + i // across * height
        sheet.paste(frame, (left, upper))
        label = f"{i + 1}: sigma {step.sigma:.3g}"
        if pen.textlength(label, font=font) > frame.width:
            label = str(i + 1)
        pen.text((left, upper + frame.height + 2), label, _INK, font)
    return sheet
