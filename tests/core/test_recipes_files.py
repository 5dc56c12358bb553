"""Where recipes are in files: PNG, JPEG, WebP, AVIF, GIF, text. And what hostile files come to."""

from __future__ import annotations

import json
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
