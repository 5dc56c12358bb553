"""Images as data URIs, which hold their bytes."""

from __future__ import annotations

import base64
import io

from PIL import Image

MAX_PREVIEW = 256


def jpeg_uri(image: Image.Image, limit: int = MAX_PREVIEW) -> str:
    """An image as a small JPEG of at most `limit` pixels a side, as a data URI."""
    small = image.convert("RGB")
    small.thumbnail((limit, limit))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")


def thumbnail_uri(data: bytes) -> str:
    """A small JPEG file as a data URI; empty for a missing file."""
    return data_uri(data, "image/jpeg") if data else ""


def png_uri(data: bytes) -> str:
    """The bytes of a PNG file as a data URI, unchanged: its text chunks survive."""
    return data_uri(data, "image/png")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
