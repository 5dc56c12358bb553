"""Images as the bytes of PNG and GIF files."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image


def gif(
    frames: Iterable[Image.Image], *, milliseconds: int = 120, hold: int = 1500, dither: bool = False
) -> bytes:
    """A looping GIF, `milliseconds` per image, the last for `hold`. dither: better for photographs."""
    how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    # One palette per frame, because the colours change during a run.
    first, *others = (frame.quantize(256, dither=how) for frame in frames)
    durations = [milliseconds] * len(others) + [hold]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0, disposal=1)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
