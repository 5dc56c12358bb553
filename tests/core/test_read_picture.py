"""Any picture file becomes RGB of 8 bits, a mask grey; what is no picture is one sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from core.errors import UserError
from core.images.source_images import read_mask, read_picture
from tests.core.pictures import noise, same
from tests.core.recipes import patient
from ui.web.links import check_picture

RED, GREEN = (255, 0, 0), (0, 255, 0)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_greyscale_of_16_bits_keeps_its_tones(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.asarray(read_picture(tmp_path / "ramp.png"))[0, :, 0].tolist() == list(range(256))
    assert np.asarray(read_mask(tmp_path / "ramp.png"))[0].tolist() == list(range(256))


def test_floats_are_from_0_to_1() -> None:
    picture = read_picture(Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 128, 255, 0]


def test_colours_of_16_bits_are_read(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 32896, 65535)  # red, then (0, 128, 255)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(SIGNATURE + data)
    assert np.asarray(read_picture(tmp_path / "deep.png"))[0].tolist() == [[255, 0, 0], [0, 128, 255]]


# By colour type and bits: the first of two pixels has the transparent value, the second almost has it.
TRANSPARENT = {
    "grey 1": (1, 0, b"\x40", (0,), 255),
    "grey 2": (2, 0, b"\x60", (1,), 170),
    "grey 4": (4, 0, b"\x54", (5,), 68),
    "grey 8": (8, 0, b"\x50\x51", (0x50,), 81),
    "grey 16": (16, 0, b"\x50\x10\x50\x11", (0x5010,), 80),
    "colour 8": (8, 2, bytes([80, 81, 82, 80, 81, 83]), (80, 81, 82), 80),
    "colour 16": (
        16,
        2,
        struct.pack(">6H", 0x5010, 0x5110, 0x5210, 0x5010, 0, 0),
        (0x5010, 0x5110, 0x5210),
        80,
    ),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_transparent_value_of_any_depth_is_white(tmp_path: Path, kind: str) -> None:
    bits, colour, row, value, other = TRANSPARENT[kind]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0))
    transparency = chunk(b"tRNS", struct.pack(f">{len(value)}H", *value))
    data = header + transparency + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    (tmp_path / "in.png").write_bytes(SIGNATURE + data)
    assert np.asarray(read_picture(tmp_path / "in.png"))[0, :, 0].tolist() == [255, other]
    assert np.asarray(read_mask(tmp_path / "in.png"))[0].tolist() == [0, 255]


def profile(name: Any) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def wide_profile() -> bytes:
    """A profile with red and green swapped: a matrix profile whose two columns are exchanged."""
    data = bytearray(profile("sRGB"))
    tags = {}
    for i in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * i
        tags[bytes(data[at : at + 4])] = at
    red, green = (slice(tags[name] + 4, tags[name] + 12) for name in (b"rXYZ", b"gXYZ"))
    data[red], data[green] = data[green], data[red]
    return bytes(data)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
def test_a_colour_profile_is_applied_and_not_kept(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (16, 16), RED)
    image.save(tmp_path / f"in.{suffix}", icc_profile=wide_profile(), comment="private")
    picture = read_picture(tmp_path / f"in.{suffix}")
    red, green, _ = np.asarray(picture)[8, 8].tolist()
    assert (red < 60, green > 200) == (True, True)
    assert picture.info == {}
    assert read_mask(tmp_path / f"in.{suffix}").info == {}


def test_a_profile_of_srgb_changes_no_bit_and_a_damaged_one_nothing(tmp_path: Path) -> None:
    image = noise((16, 8))
    for data in (profile("sRGB"), b"no profile", wide_profile()[:200]):
        image.save(tmp_path / "in.png", icc_profile=data)
        assert same(read_picture(tmp_path / "in.png"), image)
    transparent = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    transparent.save(tmp_path / "in.png", icc_profile=wide_profile())
    assert read_picture(tmp_path / "in.png").getpixel((0, 0)) == (255, 255, 255)


def test_heic_is_read_with_its_package_and_named_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    path = tmp_path / "photo.heic"
    Image.new("RGB", (64, 32), RED).save(path, quality=90)
    assert read_picture(path).size == (64, 32)
    check_picture(path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"photo\.heic: is an HEIC image, which needs .* pillow-heif"):
        read_picture(path)


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (59, 39)), (6, (39, 0)), (8, (0, 59)), (2, (59, 0))]
)
def test_a_photograph_is_turned_as_its_exif_says(
    tmp_path: Path, orientation: int, corner: tuple[int, int]
) -> None:
    image = Image.new("RGB", (60, 40))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=exif)
    picture = read_picture(tmp_path / "photo.png")
    assert picture.size == ((40, 60) if orientation in (6, 8) else (60, 40))
    assert picture.getpixel(corner) == (255, 255, 255)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"\0" * 40])
def test_a_sound_picture_with_damaged_exif_is_read(tmp_path: Path, exif: bytes) -> None:
    noise((16, 8)).save(tmp_path / "photo.png", exif=exif)
    assert same(read_picture(tmp_path / "photo.png"), noise((16, 8)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (2, 0, 4, 2))
    other = image.convert(mode) if mode != "P" else image.quantize(4)
    assert np.asarray(read_picture(other))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_half_transparent_is_halfway_to_white() -> None:
    assert read_picture(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_kinds_of_colour_are_read(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 4, 8))
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    image.convert(mode).save(tmp_path / f"picture.{suffix}")
    picture = read_picture(tmp_path / f"picture.{suffix}")
    assert picture.mode == "RGB"
    assert max(picture.getpixel((0, 0))) < 12  # pyrefly: ignore[bad-argument-type]
    assert min(picture.getpixel((7, 7))) > 243  # pyrefly: ignore[bad-argument-type]


def test_of_a_moving_picture_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "moving.gif").getpixel((0, 0)) == RED


def test_a_mask_is_its_opacity_if_it_has_any() -> None:
    painted = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    painted.putpixel((1, 0), (0, 0, 0, 255))
    assert np.asarray(read_mask(painted)).tolist() == [[0, 255, 0]]
    opaque = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    opaque.putpixel((1, 0), (255, 255, 255, 255))
    assert np.asarray(read_mask(opaque)).tolist() == [[0, 255]]


def bomb() -> bytes:
    """A PNG that says it has a million times a million pixels."""
    header = struct.pack(">IIBBBBB", 1_000_000, 1_000_000, 8, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an image of a known format"),
        (b"<html>404</html>", "not an image of a known format"),
        (png(noise((64, 64)))[:3000], "cannot be read"),
        (png(noise((64, 64)))[:60], "cannot be read"),
        (bomb(), "more than 64 million pixels; make it smaller"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_picture_is_one_sentence(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "in.png"
    if data is not None:
        path.write_bytes(data)
    for read in (read_picture, read_mask):
        with pytest.raises(UserError, match=rf"^{path}: [^\n]*{words}"):
            read(path)


@patient
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_a_picture_or_one_sentence(at: int, garbage: bytes) -> None:
    data = png(noise((24, 24)))
    at %= len(data)
    file = io.BytesIO(data[:at] + garbage + data[at + len(garbage) :])
    with contextlib.suppress(UserError):  # anything else would be a traceback
        assert read_picture(file).mode == "RGB"  # pyrefly: ignore[bad-argument-type]


def test_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_picture(tmp_path)
