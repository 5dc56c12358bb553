"""The EXIF texts that may hold recipes, read from a file's bytes; damaged data is never an error.

EXIF is a TIFF file in itself: a byte order, then tables of 12-byte entries (tag, type, count, value or its
offset).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Tags: A1111 and Fooocus write the comment, ComfyUI "workflow:..." and "prompt:..." as maker and model.
USER_COMMENT, MAKER_NOTE, DESCRIPTION, MAKE, MODEL, SOFTWARE = 0x9286, 0x927C, 0x010E, 0x010F, 0x0110, 0x0131
_WANTED = {USER_COMMENT, MAKER_NOTE, DESCRIPTION, MAKE, MODEL, SOFTWARE}
_EXIF_TABLE = 0x8769
_TEXT, _UNDEFINED, _BYTES, _LONG = 2, 7, 1, 4
_MAX_ENTRIES = 1000
_CODES = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"\0" * 8: "utf-8"}


def exif_texts(data: bytes) -> dict[int, str]:
    """The texts in EXIF data by tag; damaged ones are left out."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    texts: dict[int, str] = {}
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        for tag, content in _entries(data, order, first):
            if tag == _EXIF_TABLE:
                (second,) = struct.unpack(f"{order}I", content)
                texts.update(_texts(_entries(data, order, second)))
        texts.update(_texts(_entries(data, order, first)))
    except struct.error:  # cut off: what was read until here stays
        pass
    return texts


def _texts(entries: Iterator[tuple[int, bytes]]) -> dict[int, str]:
    return {
        tag: comment(content) if tag == USER_COMMENT else _plain(content)
        for tag, content in entries
        if tag in _WANTED
    }


def _entries(data: bytes, order: str, start: int) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of one table: the pointer to another table and the wanted texts, each tag once.

    All entries may point to one long text, so nothing else is copied.
    """
    seen: set[int] = set()
    if start + 2 > len(data):
        return
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for index in range(min(count, _MAX_ENTRIES)):
        at = start + 2 + 12 * index
        if at + 12 > len(data):
            return
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
        if tag in seen:
            continue
        if tag == _EXIF_TABLE and kind == _LONG and length == 1:
            seen.add(tag)
            yield tag, data[at + 8 : at + 12]
        elif tag in _WANTED and kind in (_TEXT, _UNDEFINED, _BYTES):
            seen.add(tag)
            (where,) = (at + 8,) if length <= 4 else struct.unpack_from(f"{order}I", data, at + 8)
            yield tag, data[where : where + length]


def comment(content: bytes) -> str:
    """A UserComment: eight bytes say how the rest is encoded, and many writers get that wrong."""
    encoding = _CODES.get(content[:8])
    if encoding is None:
        return _plain(content)
    if encoding != "utf-16":
        return _plain(content[8:])
    return _utf16(content[8:])


def _utf16(content: bytes) -> str:
    """Decode in the byte order that gives more one-byte characters: writers differ."""
    content = content[: len(content) // 2 * 2]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace").strip("\0")
    big = content[0::2].count(0) >= content[1::2].count(0)
    return content.decode("utf-16-be" if big else "utf-16-le", "replace").strip("\0")


def _plain(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip("\0")
