"""A memory-mapped file and its tensors.

Torch is imported when a tensor is first used: names, shapes and dtypes are known without it.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Bytes per element, by torch's name of the dtype.
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}


MAX_NAME, MAX_SIDES = 1000, 16


class Damaged(ValueError):
    """A file's error, as the end of a message that starts with the file's name."""


class MappedFile:
    """A file mapped privately: pages are read when they are accessed, and writes never reach the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
                # Writable (and private), because torch warns about read-only buffers.
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.size else b""
        except FileNotFoundError:
            raise UserError(f"{path} is missing: copy the model again.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None

    def release(self, start: int, count: int) -> None:
        """Release the pages that are completely inside these bytes; they are read again when needed."""
        page = mmap.PAGESIZE
        first, end = -(-start // page) * page, (start + count) // page * page
        if end > first and isinstance(self.data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED, first, end - first)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: the offset of its first element and its layout.

    strides: in elements; None for contiguous tensors, as in nearly every file.
    """

    file: MappedFile
    start: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    @property
    def stored_dtype(self) -> str:
        """The dtype in the file, for people."""
        return self.dtype

    @cached_property
    def count(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the contiguous tensor."""
        return self.count * ITEM_BYTES[self.dtype]

    @property
    def extent(self) -> int:
        """The bytes of the file from the first element to the last one."""
        if self.strides is None or self.count == 0:
            return self.nbytes
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * ITEM_BYTES[self.dtype]

    def tensor(self) -> Tensor:
        """The tensor, of the shape that the file states, memory-mapped: copied only if it is not aligned."""
        import torch

        dtype = getattr(torch, self.dtype)
        if self.count == 0:
            return torch.empty(self.shape, dtype=dtype)
        size = ITEM_BYTES[self.dtype]
        if self.start % size:
            raw = torch.frombuffer(self.file.data, dtype=torch.uint8, count=self.extent, offset=self.start)
            flat = raw.clone().view(dtype)
        else:
            flat = torch.frombuffer(self.file.data, dtype=dtype, count=self.extent // size, offset=self.start)
        if self.strides is None:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.strides)

    def release(self) -> None:
        """Release the memory of this tensor's pages, when it is no longer used."""
        self.file.release(self.start, self.extent)


def check_entry(name: str, entry: TensorEntry) -> TensorEntry:
    """The entry, if it is inside its file and its elements do not overlap. Raises Damaged."""
    if len(name) > MAX_NAME or not name.isprintable() or len(entry.shape) > MAX_SIDES:
        raise Damaged(f"is damaged: {shown(name)} is not a valid name or shape of a tensor")
    if any(n < 0 for n in entry.shape) or any(stride < 0 for stride in entry.strides or ()):
        raise Damaged(f"is damaged: the shape of {shown(name)} is impossible")
    if entry.start < 0 or entry.extent > entry.file.size - entry.start:
        raise Damaged(f"is damaged or cut short: {shown(name)} extends beyond its end")
    if entry.nbytes > entry.extent:
        raise Damaged(f"is damaged: {shown(name)} uses the same values more than once")
    return entry


def shown(name: object) -> str:
    """A name from a file, for a message."""
    text = repr(name) if isinstance(name, str) else f"a {type(name).__name__}"
    return text if len(text) <= 100 else f"{text[:96]}...'"
