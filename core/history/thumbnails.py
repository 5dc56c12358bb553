"""Small JPEGs of images, for the grid of the history."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image

SIDE, QUALITY = 256, 85


def thumbnail(path: Path | BinaryIO) -> bytes | None:
    """The image as a JPEG of 256 pixels at most; None for a missing or damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                small = image.convert("RGB")
    except Exception:  # decoders raise almost anything on damaged files
        return None
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
