"""Checks of what a page receives: uploaded files, before they are decoded in full, and who is a guest.

Nothing here imports torch or gradio.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from core.checks import MAX_PIXELS
from core.errors import UserError
from core.images.formats import enable_heic

# Pillow reads more formats, some through other programs; these are the ones that people and browsers save.
HEIC_KINDS = {"HEIF"}  # with the package pillow-heif
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
TEXTS = (".csv", ".txt", ".json", ".toml")  # saved styles, recipes
MAX_TEXT_BYTES = 4 * 1024**2
MAX_SIDE = 32_768
HERE = ("localhost", "127.0.0.1", "::1")
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded")

_one_at_a_time = threading.Lock()  # bounds the memory of checks that run at the same time


def check_upload(path: Path, most: int) -> None:
    """Raise UserError, one sentence, for a file that the page cannot use or that could do harm.

    most: the largest size in bytes. An image must be complete, of a supported format, a single frame, and at
    most 64 million pixels by its header; only then is it decoded.
    """
    size = path.stat().st_size
    if size > most:
        raise UserError(
            f"{path.name}: has {_megabytes(size)} MB; at most {_megabytes(most)} MB can be uploaded"
        )
    if size == 0:
        raise UserError(f"{path.name}: is empty; choose another file")
    if path.suffix.lower() in TEXTS:
        _check_text(path, size)
    else:
        check_picture(path)


def check_picture(path: Path) -> None:
    """The part of `check_upload` for images."""
    try:
        enable_heic(path)
        with Image.open(path, formats=[*KINDS, *(Image.OPEN.keys() & HEIC_KINDS)]) as image:
            _check_header(image, path.name)
            with _one_at_a_time:
                check_whole(image, path)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(_too_large(path.name)) from None
    except UnidentifiedImageError:
        kinds = ", ".join(KINDS[:-1])
        raise UserError(
            f"{path.name}: is not an image of a supported format ({kinds} or {KINDS[-1]})"
        ) from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise UserError(f"{path.name}: is damaged or incomplete; save it again or choose another") from error


def at_the_machine(client: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from the machine that serves the page, not through a share link or a proxy.

    client: the address that it came from. A request through a share link also has this machine's address, but
    another Host header.
    """
    here = client is not None and (client in HERE or client.startswith("127."))
    return here and is_here(headers.get("host")) and not any(headers.get(name) for name in FORWARDED)


def is_here(host: str | None) -> bool:
    """Whether a Host header is a local name of this machine."""
    return _hostname(host) in HERE


def same_site(origin: str, headers: Mapping[str, str], address: str = "") -> bool:
    """Whether an Origin header is that of this page: it equals the requested host, or that of a proxy's
    `address`.
    """
    asked = (headers.get("x-forwarded-host") or headers.get("host") or "").partition(",")[0].strip()
    netloc = urlsplit(origin).netloc.lower()
    if netloc and netloc == urlsplit(address).netloc.lower():
        return True
    return bool(netloc) and (netloc == asked.lower() or (is_here(netloc) and is_here(asked)))


def _hostname(host: str | None) -> str:
    try:
        return urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return ""


def _check_header(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise UserError(_too_large(name))
    # A phone's JPEG may contain a second, smaller view; the first one is the image.
    if image.format not in {"MPO", *HEIC_KINDS} and getattr(image, "is_animated", False):
        raise UserError(f"{name}: is animated or has several pages; save a single frame or page")


def check_whole(image: Image.Image, path: Path) -> None:
    """Decode as little as possible: PNG has checksums, and JPEG can be read at an eighth of its size."""
    if image.format == "PNG":
        image.verify()
        return
    image.draft(None, (1, 1))
    image.load()


def _check_text(path: Path, size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise UserError(
            f"{path.name}: is too long for a file of styles or recipes; at most 4 MB can be uploaded"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path.name}: is not UTF-8 text; save it as UTF-8")


def _too_large(name: str) -> str:
    return (
        f"{name}: has more than {MAX_PIXELS // 1024**2} million pixels or a side over {MAX_SIDE}; "
        "make it smaller first"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.3g}"
