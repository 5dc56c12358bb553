"""PNG in and out, with the recipe inside: all that is needed to make the picture again.

Two text chunks are written: `parameters`, as A1111 writes it (core/infotext.py), for other programs; and
`latentcanvas`, compact JSON, exact, which is what we read back. What comes from a file is never trusted: the
chunks are read without decoding the picture, and every value passes the same checks as one typed in.
"""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.checks import MAX_PIXELS, check_keys, check_sha256, check_text
from core.errors import UserError
from core.infotext import infotext
from core.request import Settings

if TYPE_CHECKING:
    from core.sampling.registry import Registry

FORMAT = 1
RECIPE_CHUNK, PARAMETERS_CHUNK = "latentcanvas", "parameters"

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_WANTED = {b"IHDR", b"tEXt", b"zTXt", b"iTXt"}
_MAX_TEXT_BYTES = 4 * 1024 * 1024
_MAX_TEXTS = 1000
_BLOCK = 64 * 1024
_TOO_MUCH = "has more text in it than a recipe needs"


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """Which model: its name, and the SHA-256 of its weights in 64 small hexadecimal digits.

    vae_sha256: the same of a VAE that was put in place of the model's own, or empty. ema: whether the UNet is
    the averaged copy that some files also hold.
    """

    name: str
    sha256: str
    vae_sha256: str = ""
    ema: bool = False

    def __post_init__(self) -> None:
        check_text("model name", self.name, empty=False)
        check_sha256("model sha256", self.sha256)
        if self.vae_sha256 != "":
            check_sha256("model vae_sha256", self.vae_sha256)
        if not isinstance(self.ema, bool):
            raise UserError(f"model ema {self.ema!r}: must be true or false")

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; those that say nothing unusual are left out."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value not in ("", False)}


@dataclass(frozen=True, kw_only=True)
class PluginRef:
    """Which plugin: the name of its distribution (or file), and its version, empty if it has none."""

    name: str
    version: str

    def __post_init__(self) -> None:
        check_text("plugin name", self.name)
        check_text("plugin version", self.version)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines one picture, and what it was made with.

    `settings` has batch 1. `plugin` and `schedule_plugin` are where sampler and schedule come from, the
    titles what people call them. `versions` is by package; that of "latentcanvas" is the one other programs
    are told.
    """

    settings: Settings
    model: ModelRef
    plugin: PluginRef
    schedule_plugin: PluginRef
    device: str
    dtype: str
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    sampler_title: str = ""
    schedule_title: str = ""

    def __post_init__(self) -> None:
        if self.settings.batch != 1:
            raise UserError(f"recipe: batch {self.settings.batch} must be 1, for a recipe is of one picture")
        for name in ("device", "dtype"):
            check_text(name, getattr(self, name), empty=False)
        for name in ("sampler_title", "schedule_title"):
            check_text(name.replace("_", " "), getattr(self, name))
        if not isinstance(self.versions, Mapping):
            raise UserError("versions: must be names and values")
        for name, version in self.versions.items():
            check_text(f"version of {check_text('package', name, empty=False)}", version)
        object.__setattr__(self, "versions", dict(self.versions))

    @classmethod
    def of(
        cls,
        settings: Settings,
        registry: Registry,
        *,
        model: ModelRef,
        device: str,
        dtype: str,
        versions: Mapping[str, str],
    ) -> Recipe:
        """The recipe for one image's settings, with plugins and titles out of the registry."""
        sampler, schedule = registry.sampler(settings.sampler), registry.schedule(settings.schedule)
        return cls(
            settings=settings,
            model=model,
            plugin=PluginRef(name=sampler.plugin, version=sampler.version),
            schedule_plugin=PluginRef(name=schedule.plugin, version=schedule.version),
            device=device,
            dtype=dtype,
            versions=versions,
            sampler_title=sampler.title,
            schedule_title=schedule.title,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of the `latentcanvas` chunk."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        nested = {name: dataclasses.asdict(fields[name]) for name in ("plugin", "schedule_plugin")}
        nested["model"] = self.model.to_dict()
        return {"format": FORMAT, **fields, **nested, "settings": self.settings.to_dict()}

    @classmethod
    def from_dict(cls, data: object) -> Recipe:
        """The recipe that `to_dict` wrote. Raises UserError for anything else."""
        if not isinstance(data, Mapping):
            raise UserError("recipe: must be an object of names and values")
        _check_format(data.get("format"))
        values = check_keys("recipe", {key: value for key, value in data.items() if key != "format"}, cls)
        values["settings"] = Settings.from_dict(values["settings"])
        values["model"] = ModelRef(**check_keys("model", values["model"], ModelRef))
        for name in ("plugin", "schedule_plugin"):
            values[name] = PluginRef(**check_keys(name, values[name], PluginRef))
        return cls(**values)


def png_bytes(image: Image.Image, recipe: Recipe) -> bytes:
    """The picture as a PNG file with its recipe in it. The same picture and recipe give the same bytes."""
    chunks = PngInfo()
    chunks.add_text(PARAMETERS_CHUNK, infotext(recipe))  # iTXt where Latin-1, and so tEXt, cannot hold it
    chunks.add_text(RECIPE_CHUNK, json.dumps(recipe.to_dict(), separators=(",", ":")))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a picture that we saved.

    Raises UserError: no such file, no PNG, cut off or damaged, no recipe in it, or a damaged or newer one.
    """
    text = read_text(path).get(RECIPE_CHUNK)
    if text is None:
        raise UserError(f"{path}: has no LatentCanvas recipe in it; choose a picture that LatentCanvas saved")
    try:
        return Recipe.from_dict(json.loads(text))
    except UserError as error:
        raise UserError(f"{path}: its recipe cannot be used ({error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its recipe is damaged; choose another picture") from error


def read_text(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG file by keyword, wherever in the file they are.

    The picture is not decoded and only text is held in memory, so a hostile file costs no more than reading
    it. Raises UserError: no such file, no PNG, cut off or damaged, more than 64 million pixels, 4 MiB of text
    or 1,000 texts.
    """
    try:
        with open(path, "rb") as file:
            return _texts(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); choose another file") from error
    except _UnreadableError as error:
        raise UserError(f"{path}: {error}; choose another picture") from error
    except ValueError as error:  # a NUL or a stray surrogate in the name
        raise UserError(f"{str(path)!r}: is not a possible file name; choose another") from error


class _UnreadableError(Exception):
    """What is wrong with the file, to follow its name."""


def _texts(file: BinaryIO) -> dict[str, str]:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise _UnreadableError("is not a PNG picture")
    texts: dict[str, str] = {}
    room = _MAX_TEXT_BYTES
    for kind, data in _chunks(file):
        if kind == b"IHDR":
            _check_pixels(data)
            continue
        # Another program's chunk that is not as the specification says is passed over, as all readers do.
        with suppress(ValueError, zlib.error):
            keyword, text = _keyword_and_text(kind, data, room)
            texts[keyword] = text
            room -= len(text)
        if len(texts) > _MAX_TEXTS:
            raise _UnreadableError(_TOO_MUCH)
    return texts


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of header and text chunks; every chunk's checksum is checked on the way to the end."""
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


def _check_pixels(header: bytes) -> None:
    width, height = struct.unpack(">II", header[:8].ljust(8, b"\0"))
    if not 0 < width * height <= MAX_PIXELS:
        raise _UnreadableError(f"is a picture of {width}x{height} pixels, larger than this program opens")


def _keyword_and_text(kind: bytes, data: bytes, room: int) -> tuple[str, str]:
    """What a tEXt, zTXt or iTXt chunk says (PNG specification, section 11.3.3)."""
    keyword, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return keyword.decode("latin-1"), rest.decode("latin-1")
    if kind == b"zTXt":
        return keyword.decode("latin-1"), _inflated(rest[1:], room).decode("latin-1")
    _language, _translated, text = rest[2:].split(b"\0", 2)
    compressed = rest[:1] == b"\1"
    return keyword.decode("latin-1"), (_inflated(text, room) if compressed else text).decode("utf-8")


def _inflated(data: bytes, room: int) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, max(room, 1))  # 0 would mean no limit
    if not inflater.eof:
        raise ValueError("too long, or cut off")
    return text


def _check_format(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError("recipe: its format is not given")
    if version > FORMAT:
        raise UserError(f"recipe: its format {version} is newer than this program's; update LatentCanvas")
