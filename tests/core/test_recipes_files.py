"""Where recipes are in files: PNG, JPEG, WebP, AVIF, GIF, text. And what hostile files come to."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import UserError
from core.plugins.discovery import load_plugins
from core.recipes.exif import USER_COMMENT, comment
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.png import png_bytes
from core.recipes.reader import read_any
from core.request.request import Request
from tests.core.recipes import RECIPE

REGISTRY = load_plugins(enabled=False)
TEXT = "a cat, é猫\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512"
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 20,
            "cfg": 7,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1,
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat, é猫"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "dog"}},
}


def read(path: Path) -> OpenedRecipe:
    return read_any(path, REGISTRY)


def png(path: Path, **texts: str) -> Path:
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_text(name.replace("_", "-") if name == "sd_metadata" else name, text)
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=chunks)
    return path


def with_exif(path: Path, kind: str, entries: dict[int, Any]) -> Path:
    """A picture of this kind with EXIF. As bytes: Pillow's AVIF drops an `Exif` that has but sub-tables."""
    exif = Image.Exif()
    for tag, value in entries.items():
        (exif.get_ifd(0x8769) if tag == USER_COMMENT else exif)[tag] = value
    Image.new("RGB", (16, 16)).save(path, kind, exif=exif.tobytes())
    return path


def is_the_cat(found: OpenedRecipe) -> None:
    asked = found.request
    assert (asked.prompt, asked.negative, asked.seed, asked.steps) == ("a cat, é猫", "dog", 5, 20)


def test_png_text(tmp_path: Path) -> None:
    is_the_cat(read(png(tmp_path / "a.png", parameters=TEXT)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-16"])
def test_user_comments_in_either_byte_order(tmp_path: Path, kind: str, order: str) -> None:
    path = with_exif(tmp_path / "a", kind, {USER_COMMENT: b"UNICODE\0" + TEXT.encode(order)})
    found = read(path)
    assert found.source == "a1111"
    is_the_cat(found)


def test_user_comments_in_other_encodings() -> None:
    assert comment(b"ASCII\0\0\0a cat") == "a cat"
    assert comment(b"\0" * 8 + "é".encode()) == "é"
    assert comment(b"a cat") == "a cat"
    assert comment(b"UNICODE\0") == comment(b"UNICODE\0a") == ""


def test_comments_of_jpeg_and_gif(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", comment=TEXT.encode())
    is_the_cat(read(tmp_path / "a.jpg"))
    Image.new("P", (8, 8)).save(tmp_path / "a.gif", comment=TEXT.encode()[:255])
    is_the_cat(read(tmp_path / "a.gif"))


def test_comfyui_in_webp(tmp_path: Path) -> None:
    path = with_exif(
        tmp_path / "a.webp", "WEBP", {0x0110: "prompt:" + json.dumps(GRAPH), 0x010F: 'workflow:{"nodes": []}'}
    )
    found = read(path)
    assert found.source == "comfyui"
    is_the_cat(found)


def test_exif_in_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[USER_COMMENT] = b"UNICODE\0" + TEXT.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", exif=exif.tobytes())
    is_the_cat(read(tmp_path / "a.png"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(path: Path, *late: bytes, size: tuple[int, int] = (8, 8), early: bytes = b"") -> Path:
    """A grey PNG written by hand, with raw chunks before or after its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 72))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + early + pixels + b"".join(late) + chunk(b"IEND", b""))
    return path


def test_exif_of_a_png_with_other_texts_and_after_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[USER_COMMENT] = b"UNICODE\0" + TEXT.encode("utf-16-be")
    title = chunk(b"tEXt", b"Title\0my cat")
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    is_the_cat(read(with_chunks(tmp_path / "a.png", title, late)))


def test_utf8_in_a_latin1_chunk_is_read_as_what_it_is(tmp_path: Path) -> None:
    for kind, start in ((b"tEXt", b"parameters\0"), (b"zTXt", b"parameters\0\0")):
        text = zlib.compress(TEXT.encode()) if kind == b"zTXt" else TEXT.encode()
        is_the_cat(read(with_chunks(tmp_path / "a.png", early=chunk(kind, start + text))))
    latin = TEXT.replace("猫", "").encode("latin-1")
    found = read(with_chunks(tmp_path / "b.png", early=chunk(b"tEXt", b"parameters\0" + latin)))
    assert found.request.prompt == "a cat, é"


def test_animated_png_of_comfyui(tmp_path: Path) -> None:
    text = b"prompt\0" + json.dumps(GRAPH).encode("latin-1")
    found = read(with_chunks(tmp_path / "a.png", chunk(b"comf", text)))
    assert found.source == "comfyui"
    is_the_cat(found)


def test_a_large_png_is_read_without_decoding_it(tmp_path: Path) -> None:
    text = chunk(b"tEXt", b"parameters\0" + TEXT.encode())
    is_the_cat(read(with_chunks(tmp_path / "a.png", text, size=(60_000, 60_000))))


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_files_of_text_in_utf16(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.txt").write_bytes(("\ufeff" + TEXT).encode(order))
    is_the_cat(read(tmp_path / "a.txt"))


def test_an_old_hash_of_8_digits_is_no_sha256() -> None:
    old, new = (read_any(f"{TEXT}, Model hash: {digits}", REGISTRY) for digits in ("7460a6fa", "6ce0161689"))
    assert (old.model_hash, new.model_hash) == (None, "6ce0161689")
    [line] = [line for line in old.report if line.key == "Model hash"]
    assert line.fate == "ignored"


def test_files_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    is_the_cat(read(tmp_path / "a.txt"))
    (tmp_path / "a.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    is_the_cat(read(tmp_path / "a.json"))


def test_of_several_programs_the_first_that_can_be_read_counts(tmp_path: Path) -> None:
    found = read(png(tmp_path / "a.png", prompt=json.dumps(GRAPH), workflow="{}", parameters=TEXT))
    assert found.source == "a1111"
    notes = {line.key: line.note for line in found.report if line.key in ("prompt", "workflow")}
    assert notes == dict.fromkeys(("prompt", "workflow"), "the recipe in parameters is taken")
    assert read(png(tmp_path / "b.png", prompt=json.dumps(GRAPH), workflow="{}")).source == "comfyui"


def test_a_damaged_recipe_of_ours_leaves_the_text(tmp_path: Path) -> None:
    found = read(png(tmp_path / "a.png", latentcanvas='{"format": 1, "settings": 3}', parameters=TEXT))
    assert found.source == "a1111"
    [line] = [line for line in found.report if line.key == "latentcanvas"]
    assert line.fate == "ignored"
    assert line.note.startswith("cannot be used: ")


def test_a_newer_recipe_of_ours_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="newer than this program's; update LatentCanvas"):
        read(png(tmp_path / "a.png", latentcanvas='{"format": 99, "settings": {}}'))


def test_a_jpeg_made_from_ours_keeps_what_its_text_carries(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(Image.new("RGB", (8, 8)), RECIPE))
    with Image.open(tmp_path / "a.png") as image:
        text = image.info["parameters"]
    path = with_exif(tmp_path / "a.jpg", "JPEG", {USER_COMMENT: b"UNICODE\0" + text.encode("utf-16-be")})
    assert read(path).request == Request.from_settings(RECIPE.settings)
