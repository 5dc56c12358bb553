"""The texts in a file: a PNG's chunks, the EXIF and comments of other images, or the file itself."""

from __future__ import annotations

import warnings
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from core.errors import UserError
from core.recipes.exif import DESCRIPTION, MAKE, MAKER_NOTE, MODEL, SOFTWARE, USER_COMMENT, exif_texts
from core.recipes.png import SIGNATURE, read_text

MAX_TEXT_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
PASTED = "text"  # the name of a text file's content, as of pasted text
_NAMES = {
    USER_COMMENT: "UserComment",
    DESCRIPTION: "ImageDescription",
    MAKE: "Make",
    MODEL: "Model",
    SOFTWARE: "Software",
    MAKER_NOTE: "MakerNote",
}


def texts_of(path: Path) -> dict[str, str]:
    """The texts in a file by name: PNG keywords, EXIF's names, "comment"; or the content of a text file.

    No image is decoded. Raises UserError: no such file, damaged, too large, neither image nor text.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; choose an image in it")
        with open(path, "rb") as file:
            start = file.read(MAX_TEXT_BYTES + 1)
            size = file.seek(0, 2)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); choose another file") from error
    except ValueError as error:  # a NUL or a stray surrogate in the name
        raise UserError(f"{str(path)!r}: is not a possible file name; choose another") from error
    if start.startswith(SIGNATURE):
        _, texts, exif = read_text(path)
        return {**_of_exif(exif), **texts}
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: has more than {MAX_FILE_BYTES // 1024**2} MiB; choose a smaller file")
    try:
        return _of_picture(path)
    except UnidentifiedImageError:
        return {PASTED: _of_text(start, path)}


def _of_picture(path: Path) -> dict[str, str]:
    """The texts in an image's metadata, by Pillow, which reads only the header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and odd headers: nothing is decoded
            with Image.open(path) as image:
                info = dict(image.info)
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{path}: is an image larger than this program opens; choose another") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise UserError(f"{path}: is damaged ({type(error).__name__}); choose another image") from error
    exif, comment = info.get("exif"), info.get("comment")
    texts = _of_exif(exif) if isinstance(exif, bytes) and len(exif) <= MAX_TEXT_BYTES else {}
    if comment:
        texts["comment"] = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return {name: text for name, text in texts.items() if len(text) <= MAX_TEXT_BYTES}


def _of_exif(exif: bytes) -> dict[str, str]:
    return {_NAMES[tag]: text for tag, text in exif_texts(exif).items() if text}


def _of_text(content: bytes, path: Path) -> str:
    """UTF-8, or UTF-16 that starts with its byte order mark."""
    try:
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is neither an image of a known kind nor text; choose another file"
        ) from None
    if len(content) > MAX_TEXT_BYTES or "\0" in text:
        raise UserError(f"{path}: is not a recipe: it is not text, or too long; choose another file")
    return text
