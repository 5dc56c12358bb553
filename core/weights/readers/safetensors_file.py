"""Reads safetensors files: eight bytes of length, a JSON header, and the tensors, in that order.

The format is https://huggingface.co/docs/safetensors. Every number in the header is checked against the file.
"""

from __future__ import annotations

import json
from typing import Any

from core.weights.readers.mapped_file import Damaged, MappedFile, TensorEntry, check_entry, shown

MAX_HEADER = 100_000_000  # the format's limit
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
    "C64": "complex64",
}
NAMES = {ours: theirs for theirs, ours in DTYPES.items()}


def header_length(file: MappedFile) -> int:
    """The length of the header, from the first eight bytes."""
    return int.from_bytes(file.data[:8], "little")


def looks_like(file: MappedFile) -> bool:
    """Whether the file starts like a safetensors file."""
    return file.size > 8 and file.data[8:9] == b"{" and header_length(file) <= MAX_HEADER


def read_safetensors(file: MappedFile) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors and the metadata. Raises Damaged."""
    length = header_length(file)
    if length > file.size - 8:
        raise Damaged("is cut short: not even its header is complete")
    table = _table(file.data[8 : 8 + length])
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise Damaged("is damaged: its metadata is not an object")
    start = 8 + length
    described = {name: _described(name, value) for name, value in table.items()}
    _check_lengths(file, start, [offsets for _, _, offsets in described.values()])
    entries = {}
    for name, (dtype, shape, (first, end)) in described.items():
        entry = check_entry(name, TensorEntry(file, start + first, dtype, shape))
        if entry.nbytes != end - first:
            raise Damaged(f"is damaged: {shown(name)} has a size that does not fit its shape")
        entries[name] = entry
    return entries, {k: v for k, v in metadata.items() if isinstance(v, str)}


def _table(data: bytes) -> dict[str, Any]:
    try:
        table = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Damaged("is damaged: its header cannot be read") from None
    if not isinstance(table, dict):
        raise Damaged("is damaged: its header is not an object")
    return table


def _described(name: str, value: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, (first byte, end)) of one entry of the header."""
    try:
        dtype, shape, (first, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = (*shape, first, end)
    except (KeyError, TypeError, ValueError):
        raise Damaged(f"is damaged: {shown(name)} has an invalid entry in the header") from None
    if type(dtype) is not str or dtype not in DTYPES:
        raise Damaged(f"holds values of dtype {shown(dtype)} ({shown(name)}), which are not supported")
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers) or end < first:
        raise Damaged(f"is damaged: {shown(name)} has an invalid entry in the header")
    return DTYPES[dtype], tuple(shape), (first, end)


def _check_lengths(file: MappedFile, start: int, spans: list[tuple[int, int]]) -> None:
    """The tensors must fill the rest of the file without gaps, as the format requires."""
    at = 0
    for first, end in sorted(spans):
        if first != at:
            raise Damaged("is damaged: its tensors overlap or leave gaps")
        at = end
    if at != file.size - start:
        said = f"{(start + at) / 1e6:.1f} MB are expected, but it has {file.size / 1e6:.1f} MB"
        raise Damaged(f"is {'cut short' if at > file.size - start else 'damaged'}: {said}")
