"""Write and read PNG files with their recipe inside: all that is needed to make the image again.

Two text chunks are written: `parameters`, as A1111 writes it (core/recipes/infotext.py), for other programs;
and `latentcanvas`, compact JSON, exact, which is what we read back. A file's content is never trusted:
the chunks are read without decoding the image, and every value passes the same checks as user input.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.checks import MAX_PIXELS
from core.errors import UserError
from core.recipes.infotext import infotext
from core.recipes.recipe import Recipe

RECIPE_CHUNK, PARAMETERS_CHUNK = "latentcanvas", "parameters"

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# comf: the private chunk in which ComfyUI puts the texts of animated PNGs, in the form of tEXt.
_WANTED = {b"IHDR", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"comf"}
_MAX_TEXT_BYTES = 4 * 1024 * 1024
_MAX_TEXTS = 1000
_BLOCK = 64 * 1024
_TOO_MUCH = "has more text than a recipe can have"


class PngText(NamedTuple):
    """What a PNG holds next to its pixels: width and height, texts by keyword, EXIF data."""

    size: tuple[int, int]
    texts: dict[str, str]
    exif: bytes


def png_bytes(image: Image.Image, recipe: Recipe) -> bytes:
    """The image as a PNG file with its recipe in it. The same image and recipe give the same bytes."""
    chunks = PngInfo()
    text = infotext(
        recipe
    )  # in tEXt only ASCII is read alike by all: some take it for Latin-1, some for UTF-8
    (chunks.add_text if text.isascii() else chunks.add_itxt)(PARAMETERS_CHUNK, text)
    chunks.add_text(RECIPE_CHUNK, json.dumps(recipe.to_dict(), separators=(",", ":")))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in an image that we saved.

    Raises UserError: no such file, no PNG, cut off or damaged, no recipe in it, or a damaged or newer one.
    """
    (width, height), texts, _ = read_text(path)
    if not 0 < width * height <= MAX_PIXELS:
        raise UserError(
            f"{path}: is an image of {width}x{height} pixels, larger than this program opens;"
            " choose another image"
        )
    text = texts.get(RECIPE_CHUNK)
    if text is None:
        raise UserError(f"{path}: has no LatentCanvas recipe; choose an image that LatentCanvas saved")
    try:
        return Recipe.from_dict(json.loads(text))
    except UserError as error:
        raise UserError(f"{path}: its recipe cannot be used ({error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its recipe is damaged; choose another image") from error


def read_text(path: str | Path) -> PngText:
    """The text chunks of a PNG file and its EXIF, wherever in the file they are.

    The image is not decoded and only text is held in memory, so a large or hostile file costs no more than
    reading it. Raises UserError: no such file, no PNG, cut off or damaged, more than 4 MiB of text or 1,000
    texts.
    """
    try:
        with open(path, "rb") as file:
            return _texts(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); choose another file") from error
    except _UnreadableError as error:
        raise UserError(f"{path}: {error}; choose another image") from error
    except ValueError as error:  # a NUL or a stray surrogate in the name
        raise UserError(f"{str(path)!r}: is not a possible file name; choose another") from error


class _UnreadableError(Exception):
    """The end of a message that starts with the file's name."""


def _texts(file: BinaryIO) -> PngText:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise _UnreadableError("is not a PNG image")
    texts: dict[str, str] = {}
    width, height, exif = 0, 0, b""
    room = _MAX_TEXT_BYTES
    for kind, data in _chunks(file):
        if kind == b"IHDR":
            width, height = struct.unpack(">II", data[:8].ljust(8, b"\0"))
            continue
        if kind == b"eXIf":
            exif = data
            continue
        # Like all readers, skip another program's chunk that breaks the specification.
        with suppress(ValueError, zlib.error):
            keyword, text = _keyword_and_text(kind, data, room)
            texts[keyword] = text
            room -= len(text)
        if len(texts) > _MAX_TEXTS:
            raise _UnreadableError(_TOO_MUCH)
    return PngText((width, height), texts, exif)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of the header, EXIF and text chunks; every chunk's checksum is checked."""
    room = _MAX_TEXT_BYTES
    while True:
        length, kind = struct.unpack(">I4s", _read(file, 8))
        wanted = kind in _WANTED
        room -= length if wanted else 0
        if room < 0:
            raise _UnreadableError(_TOO_MUCH)
        data, checksum = _read_checked(file, length, zlib.crc32(kind), keep=wanted)
        if struct.unpack(">I", _read(file, 4)) != (checksum,):
            raise _UnreadableError("is damaged: a checksum does not match")
        if wanted:
            yield kind, data
        if kind == b"IEND":
            return


def _read_checked(file: BinaryIO, length: int, checksum: int, *, keep: bool) -> tuple[bytes, int]:
    """The next `length` bytes (none unless they are kept) and the checksum over them, read in blocks."""
    kept = bytearray()
    while length > 0:
        block = _read(file, min(length, _BLOCK))
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
        if keep:
            kept += block
    return bytes(kept), checksum


def _read(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise _UnreadableError("is cut off: its end is missing")
    return data


def _keyword_and_text(kind: bytes, data: bytes, room: int) -> tuple[str, str]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk (PNG specification, section 11.3.3), or of comf."""
    keyword, _, rest = data.partition(b"\0")
    if kind in (b"tEXt", b"comf"):
        return keyword.decode("latin-1"), _decoded(rest)
    if kind == b"zTXt":
        return keyword.decode("latin-1"), _decoded(_inflated(rest[1:], room))
    _language, _translated, text = rest[2:].split(b"\0", 2)
    compressed = rest[:1] == b"\1"
    return keyword.decode("latin-1"), (_inflated(text, room) if compressed else text).decode("utf-8")


def _decoded(text: bytes) -> str:
    """Latin-1 by the specification; but what is valid UTF-8 was written as UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _inflated(data: bytes, room: int) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, max(room, 1))  # 0 would mean no limit
    if not inflater.eof:
        raise ValueError("too long, or cut off")
    return text
