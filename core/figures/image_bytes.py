"""Images as the bytes of PNG and GIF files."""

from __future__ import annotations

import io
from collections.abc import Iterable

from PIL import Image


def gif(
    frames: Iterable[Image.Image], *, milliseconds: int = 120, hold: int = 1500, dither: bool = False
) -> bytes:
    """The images as a GIF in a loop, `milliseconds` each, the last for `hold`. dither: for photographs."""
    how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    # A palette each: the colours of a forming image change all the way.
    first, *others = (frame.quantize(256, dither=how) for frame in frames)
    durations = [milliseconds] * len(others) + [hold]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0, disposal=1)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
