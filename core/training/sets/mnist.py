"""MNIST (LeCun et al. 1998) from its four idx files, as they are distributed, plain or as .gz."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.training.sets.labelled import PictureSet, digit_captions

_NAMES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 8


def mnist_set(folder: Path, part: Literal["train", "test"], seed: int, count: int, size: int) -> PictureSet:
    """Up to `count` digits of the folder, `size` a side. Raises UserError for missing and damaged files."""
    pictures = read_idx(_find(folder, f"{_NAMES[part]}-images-idx3-ubyte"), 3)[:count]
    labels = read_idx(_find(folder, f"{_NAMES[part]}-labels-idx1-ubyte"), 1)[:count]
    if len(pictures) != len(labels):
        raise UserError(f"{folder}: {len(pictures)} images, {len(labels)} labels: download the files again.")
    if len(labels) == 0:
        raise UserError(f"{folder}: its idx files hold no images: download them again.")
    if labels.max() > 9:
        raise UserError(f"{folder}: its labels are not digits: download the files again.")
    fitted = np.stack([fit_grey(picture, size) for picture in pictures])
    return PictureSet(f"mnist-{part}", seed, fitted, labels.astype(np.int64), digit_captions())


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, of the shape that it states: two zeros, the type, the
    number of dimensions, each of them as a big-endian word, the values. Raises UserError.
    """
    data = _bytes(path)
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise UserError(f"{path} is not an idx file of bytes in {dimensions} dimensions: download it again.")
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    if len(data) - head != int(np.prod(shape, dtype=object)):
        due = " x ".join(map(str, shape))
        raise UserError(f"{path} is cut off or damaged: it declares {due} and holds {len(data) - head}.")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def fit_grey(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square image in grey (H, H) at another size, (size, size); black around it where there is a little
    more room, as is usual for 28 in 32.
    """
    side = picture.shape[0]
    if picture.shape == (size, size):
        return picture
    if side < size <= side + 8:
        before = (size - side) // 2
        return np.pad(picture, (before, size - side - before))
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def _find(folder: Path, name: str) -> Path:
    """The path of a file, plain or compressed, under either of its usual names."""
    for written in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / f"{written}{suffix}"
            if path.is_file():
                return path
    raise UserError(
        f"{folder / name} is missing: put MNIST's four idx files there, or name their folder with "
        "--set data.path=DIR."
    )


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): download it again.") from None
