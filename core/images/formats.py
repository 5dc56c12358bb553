"""What Pillow leaves undone when it opens an image: HEIC, colour profiles, transparent values of a PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms

from core.errors import UserError

# The brands of an HEIC file, which follow its length and "ftyp". AVIF has others, and Pillow reads it.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_GREY_SCALES = {"L;2": 85, "L;4": 17}  # PNG's grey of 2 and 4 bits, by Pillow's name of the layout


def enable_heic(path: str | Path) -> None:
    """Let Pillow open this file if it is an HEIC. Raises UserError when the package for that is missing."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
    except OSError:  # opening it will report the error
        return
    if start[4:8] != b"ftyp" or start[8:] not in _HEIC:
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            f"{path}: is an HEIC image, which needs the package pillow-heif: install it, or save it as JPEG"
        ) from None
    register_heif_opener()


def fit_transparency(image: Image.Image) -> None:
    """Scale a PNG's transparent value as its pixels are when they are read. Call it before they are."""
    value: Any = image.info.get("transparency")
    layout = image.tile[0].args if getattr(image, "tile", None) else None
    if isinstance(value, int) and layout in _GREY_SCALES:
        image.info["transparency"] = value * _GREY_SCALES[layout]
    elif isinstance(value, tuple) and layout == "RGB;16B":
        image.info["transparency"] = tuple(part >> 8 for part in value)


def eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits, or in floats from 0 to 1, to 8 bits; the other modes as they are."""
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    scale = 255.0 if image.mode == "F" and values.max() <= 1 else 1.0 if image.mode == "F" else 1 / 257
    grey = Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opacity = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, opacity))
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return grey


def in_srgb(image: Image.Image) -> Image.Image:
    """The image's colours in sRGB, by its ICC profile; unchanged without one, or where it is damaged.

    A profile that changes no value by more than rounding is that of sRGB: then no bit is changed.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        plain = image.convert({"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space])
        converted = ImageCms.profileToProfile(
            plain, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError):
        return image
    assert converted is not None
    before = image.convert("RGB")
    if np.asarray(ImageChops.difference(before, converted)).max() <= 1:
        converted = before
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted
