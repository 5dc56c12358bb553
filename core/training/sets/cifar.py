"""CIFAR-10 (Krizhevsky 2009) from its binary version: rows of one label and 3072 bytes, red, green, blue."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.training.sets.labelled import PictureSet, name_captions

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
_ROW = 1 + 3 * SIDE * SIDE
_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}


def cifar_set(folder: Path, part: Literal["train", "test"], seed: int, count: int, size: int) -> PictureSet:
    """Up to `count` images of the folder, `size` a side. Raises UserError for missing and damaged files."""
    rows: list[NDArray[np.uint8]] = []
    for name in _FILES[part]:
        if sum(map(len, rows)) < count:
            rows.append(_rows(folder / name))
    table = np.concatenate(rows)[:count]
    pictures = table[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    fitted = pictures if size == SIDE else np.stack([_resized(picture, size) for picture in pictures])
    labels = table[:, 0].astype(np.int64)
    return PictureSet(f"cifar10-{part}", seed, np.ascontiguousarray(fitted), labels, name_captions(NAMES))


def _rows(path: Path) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: put the files of CIFAR-10's binary version there, or name their folder with "
            "--set data.path=DIR."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): download it again.") from None
    table = np.frombuffer(data[: len(data) // _ROW * _ROW], np.uint8).reshape(-1, _ROW)
    if not len(data) or len(data) % _ROW or table[:, 0].max() >= len(NAMES):
        raise UserError(f"{path} is cut off, damaged or not of the binary version: download it again.")
    return table


def _resized(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))
