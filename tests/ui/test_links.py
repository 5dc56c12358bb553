"""What comes in from a page's visitors: files that would do harm, and who is at the machine."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import UserError
from ui.web import links
from ui.web.links import at_the_machine, check_upload, same_site

MOST = 1024**2


def picture(kind: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that would take gigabytes, if it were decoded."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def checked(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    check_upload(path, MOST)


def refusal(tmp_path: Path, name: str, data: bytes) -> str:
    with pytest.raises(UserError) as refused:
        checked(tmp_path, name, data)
    sentence = str(refused.value)
    assert sentence.startswith(f"{name}: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_whole_pictures_are_taken(tmp_path: Path, kind: str) -> None:
    checked(tmp_path, "a.bin", picture(kind))  # what it is called says nothing


def test_a_phones_picture_of_two_views_is_one(tmp_path: Path) -> None:
    checked(tmp_path, "phone.jpg", animation("MPO"))


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (60_000, 2_000), (40_000, 10), (9000, 8000)]
)
def test_a_decompression_bomb_is_known_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    assert "make it smaller" in refusal(tmp_path, "bomb.png", bomb(width, height))


def test_a_bomb_is_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "check_whole", lambda image, path: pytest.fail("it was decoded"))
    refusal(tmp_path, "bomb.png", bomb(9000, 8000))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_what_is_cut_off_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    data = picture(kind)
    assert "damaged or incomplete" in refusal(tmp_path, "half.png", data[: int(len(data) * kept)])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_what_moves_is_refused(tmp_path: Path, kind: str) -> None:
    assert "animated" in refusal(tmp_path, "moving.gif", animation(kind))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("program.png", b"\x7fELF" + bytes(100)),
        ("page.jpg", b"<html><script>alert(1)</script>"),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"),
        ("print.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"),
        ("weights.safetensors", bytes(100)),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    assert "not an image of a supported format" in refusal(tmp_path, name, data)


def test_size_and_emptiness(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path, "none.png", b"")
    assert "at most 1 MB can be uploaded" in refusal(tmp_path, "large.png", picture("PNG") + bytes(MOST))


def test_texts_are_taken_as_texts(tmp_path: Path) -> None:
    checked(tmp_path, "styles.csv", "name,prompt\nété,{prompt}\n".encode("utf-8-sig"))
    assert "not UTF-8 text" in refusal(tmp_path, "styles.csv", picture("PNG"))
    long = tmp_path / "long.csv"
    long.write_bytes(b"a" * (links.MAX_TEXT_BYTES + 1))
    with pytest.raises(UserError, match="too long"):
        check_upload(long, 50 * MOST)


@pytest.mark.parametrize(
    ("client", "headers", "here"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:7860"}, True),
        ("127.0.0.1", {"host": "localhost:7860"}, True),
        ("::1", {"host": "[::1]:7860"}, True),
        ("127.0.0.1", {"host": "abcdef.gradio.live"}, False),
        ("127.0.0.1", {"host": "localhost:7860", "x-forwarded-for": "1.2.3.4"}, False),
        ("192.168.0.7", {"host": "localhost:7860"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "[::1"}, False),
        (None, {"host": "localhost"}, False),
    ],
)
def test_who_is_at_the_machine(client: str | None, headers: dict[str, str], here: bool) -> None:
    assert at_the_machine(client, headers) is here


def test_which_pages_are_ours() -> None:
    assert same_site("http://127.0.0.1:7860", {"host": "127.0.0.1:7860"})
    assert same_site("http://localhost:7860", {"host": "127.0.0.1:7860"})
    assert same_site("https://x.gradio.live", {"host": "x.gradio.live"})
    assert same_site("https://me.net", {"host": "10.0.0.1:80", "x-forwarded-host": "me.net"})
    assert same_site("https://a.org", {"host": "127.0.0.1:7860"}, "https://a.org/lc")
    assert not same_site("https://b.org", {"host": "127.0.0.1:7860"}, "https://a.org/lc")
    assert same_site("https://a.org", {"host": "127.0.0.1:7860", "x-forwarded-host": "a.org, b.org"})
    for origin in ("https://evil.net", "null", "", "http://127.0.0.1.evil.net"):
        assert not same_site(origin, {"host": "127.0.0.1:7860"})
        assert not same_site(origin, {"host": "192.168.0.7:7860"})
