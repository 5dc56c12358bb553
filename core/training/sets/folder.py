"""Any folder of images: captions from `.txt` files next to them, else from the names of sub-folders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ImageOps
from PIL.Image import Resampling

from core.errors import UserError
from core.images.source_images import read_picture
from core.training.sets.labelled import NO_WORDS, PictureSet, name_captions

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_HELD_OUT = 20  # every 20th image is held out for measuring, if there are at least twice as many


def folder_set(folder: Path, part: Literal["train", "test"], seed: int, count: int, size: int) -> PictureSet:
    """Up to `count` images, cut to a square of `size`. Raises UserError where there is none, and for a
    image or a caption that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name a folder of images with --set data.path=DIR.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES[:4])}): put some there.")
    if len(paths) >= 2 * _HELD_OUT:
        paths = [path for i, path in enumerate(paths) if (i % _HELD_OUT == 0) == (part == "test")]
    paths = paths[:count]
    captions: dict[tuple[str, ...], int] = {}
    labels = [captions.setdefault(_captions(path, folder), len(captions)) for path in paths]
    pictures = [
        np.asarray(ImageOps.fit(read_picture(path), (size, size), Resampling.LANCZOS)) for path in paths
    ]
    return PictureSet(f"folder-{part}", seed, np.stack(pictures), np.array(labels, np.int64), list(captions))


def _captions(path: Path, folder: Path) -> tuple[str, ...]:
    """Captions: the lines of the `.txt` next to the image, else names of its class."""
    text = path.with_suffix(".txt")
    if text.is_file():
        try:
            lines = [line.strip() for line in text.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{text} cannot be read ({error}): write captions as UTF-8.") from None
        return tuple(line for line in lines if line) or NO_WORDS
    if path.parent == folder:
        return NO_WORDS
    return name_captions([path.parent.name.replace("_", " ")])[0]
