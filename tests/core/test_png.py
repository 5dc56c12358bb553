"""Pictures with their recipe: identical when read back, and refused in one sentence when they cannot be."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from core.errors import UserError
from core.files import write_numbered
from core.recipes.infotext import infotext
from core.recipes.png import png_bytes, read_recipe, read_text
from core.recipes.recipe import ModelRef, PluginRef, Recipe
from core.sampling.registry import Registry, SamplerInfo, ScheduleInfo
from tests.core.recipes import RECIPE, any_recipe, patient

IMAGE = Image.linear_gradient("L").resize((128, 96)).convert("RGB")
PNG = png_bytes(IMAGE, RECIPE)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write bytes to a file and give its path."""

    def write(data: bytes) -> Path:
        path = tmp_path / "picture.png"
        path.write_bytes(data)
        return path

    return write


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(*chunks: bytes, after_pixels: bool = False) -> bytes:
    """A small picture with these chunks before or after its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    at = len(data) - 12 if after_pixels else 33
    return data[:at] + b"".join(chunks) + data[at:]


def with_recipe(content: object) -> bytes:
    return with_chunks(chunk(b"tEXt", b"latentcanvas\0" + json.dumps(content).encode()))


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    """The content without the value at `path`."""
    return changed(content, *path, value=...)


def changed(content: dict[str, Any], *path: str, value: object) -> dict[str, Any]:
    """The content with another value at `path`."""
    first, *rest = path
    if rest:
        return {**content, first: changed(content[first], *rest, value=value)}
    content = {key: old for key, old in content.items() if key != first}
    return content if value is ... else {**content, first: value}


CONTENT = RECIPE.to_dict()


def test_a_picture_comes_back_with_its_pixels_and_recipe(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "outputs", png_bytes(IMAGE, RECIPE))
    assert path == tmp_path / "outputs" / "000001.png"
    assert read_recipe(path) == RECIPE
    with Image.open(path) as image:
        assert image.tobytes() == IMAGE.tobytes()


def test_the_chunks_are_what_other_programs_expect() -> None:
    text = PngImageFile(io.BytesIO(PNG)).text
    assert list(text) == ["parameters", "latentcanvas"]
    assert text["parameters"] == infotext(RECIPE)
    content = json.loads(text["latentcanvas"])
    assert content["format"] == 1
    assert content["settings"] == RECIPE.settings.to_dict()
    assert content["model"] == {"name": "tiny", "sha256": "0123456789abcdef" * 4}
    assert content["plugin"] == {"name": "latentcanvas", "version": "0.1.0"}


def test_the_same_picture_gives_the_same_bytes() -> None:
    assert png_bytes(IMAGE, RECIPE) == PNG


@settings(patient, max_examples=100)
@given(any_recipe())
def test_any_recipe_comes_back_identical(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    data = png_bytes(Image.new("RGB", (8, 8)), recipe)
    path.write_bytes(data)
    assert read_recipe(path) == recipe
    assert read_text(path).texts["parameters"] == infotext(recipe)
    assert read_text(path).texts == PngImageFile(io.BytesIO(data)).text


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("a café, {red|blue} house: (big:1.2) \\ <b>", b"iTXt"),
        ("two\nlines\r\n\n  and a half\t\n", b"tEXt"),
        ("a\nNegative prompt: b\nSteps: 3, Seed: 4, Size: 8x8", b"tEXt"),
        ("a 猫 under a 🌕", b"iTXt"),
        ("e\u0301, \u202eright to left, \ufeff", b"iTXt"),
    ],
)
def test_awkward_prompts_come_back(put: Callable[[bytes], Path], prompt: str, kind: bytes) -> None:
    recipe = replace(RECIPE, settings=replace(RECIPE.settings, prompt=prompt, negative=prompt))
    data = png_bytes(IMAGE, recipe)
    assert read_recipe(put(data)) == recipe
    assert data[data.index(b"parameters") - 4 :].startswith(kind)
    assert data[data.index(b"latentcanvas\0") - 4 :].startswith(b"tEXt")


def test_a_recipe_is_put_together_from_the_registry() -> None:
    sampler = SamplerInfo(name="ddim", title="DDIM", function=never, plugin="other", version="2.0")
    schedule = ScheduleInfo(name="leading", title="Leading", function=never, plugin="third", version="")
    recipe = Recipe.of(
        RECIPE.settings,
        Registry({"ddim": sampler}, {"leading": schedule}),
        model=RECIPE.model,
        device="cpu",
        dtype="float32",
        versions=RECIPE.versions,
    )
    assert recipe == replace(
        RECIPE,
        plugin=PluginRef(name="other", version="2.0"),
        schedule_plugin=PluginRef(name="third", version=""),
    )


def never(*args: object) -> Any:
    raise AssertionError("a recipe runs nothing")


def test_a_recipe_is_that_of_one_picture() -> None:
    with pytest.raises(UserError, match="batch 2 must be 1"):
        replace(RECIPE, settings=replace(RECIPE.settings, batch=2))


@pytest.mark.parametrize("digest", ["", "0123456789", "X" * 64, "A" * 64, "a" * 65, "a" * 64 + "\n"])
def test_a_model_needs_its_whole_digest(digest: str) -> None:
    with pytest.raises(UserError, match="must be 64 hexadecimal digits"):
        ModelRef(name="tiny", sha256=digest)


# What is no whole PNG picture.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a PNG image"),
        (b"hello", "is not a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "is not a PNG image"),
        (PNG[:8], "is cut off"),
        (PNG[:20], "is cut off"),
        (PNG[:-300], "is cut off"),
        (PNG[:-1], "is cut off"),
        (PNG[:-12], "is cut off"),
        (PNG.replace(b"full moon", b"full noon", 1), "is damaged: a checksum does not match"),
        (PNG[:-40] + b"\1\2\3\4" + PNG[-36:], "is damaged: a checksum does not match"),
        (PNG[:8] + struct.pack(">I", 2**32 - 1) + b"tEXt", "more text than a recipe can have"),
        (PNG[:8] + struct.pack(">I", 2**32 - 1) + b"IDAT", "is cut off"),
        (PNG[:8] + chunk(b"IHDR", b"") + chunk(b"IEND", b""), "0x0 pixels"),
    ],
)
def test_what_is_no_whole_picture_is_refused(put: Callable[[bytes], Path], data: bytes, words: str) -> None:
    path = put(data)
    with pytest.raises(UserError) as refusal:
        read_recipe(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_picture_cut_anywhere_is_refused(put: Callable[[bytes], Path]) -> None:
    for length in range(0, len(PNG), 61):
        path = put(PNG[:length])
        with pytest.raises(UserError):
            read_recipe(path)


@pytest.mark.parametrize("size", [(0, 8), (65_535, 65_535), (2**32 - 1, 2**32 - 1)])
def test_a_pixel_bomb_is_refused(put: Callable[[bytes], Path], size: tuple[int, int]) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    path = put(PNG[:8] + header + PNG[33:])
    with pytest.raises(UserError, match=f"of {size[0]}x{size[1]} pixels"):
        read_recipe(path)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_bomb_is_never_unpacked(put: Callable[[bytes], Path], kind: bytes) -> None:
    """Eight megabytes of text in eight kilobytes of file, many times: passed over."""
    packed = zlib.compress(b"x" * 8_000_000)
    head = b"latentcanvas\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0")
    path = put(with_chunks(*[chunk(kind, head + packed)] * 5))
    with pytest.raises(UserError, match="has no LatentCanvas recipe"):
        read_recipe(path)


def test_too_much_text_is_refused(put: Callable[[bytes], Path]) -> None:
    path = put(with_chunks(*[chunk(b"tEXt", b"key\0" + b"x" * 1_000_000)] * 5))
    with pytest.raises(UserError, match="more text than a recipe can have"):
        read_recipe(path)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: cannot be read \(No such file or directory\)"):
        read_recipe(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path)
    with pytest.raises(UserError, match="is not a possible file name"):
        read_recipe("a\0b.png")


# Recipes in other programs' chunks, and none at all.


@pytest.mark.parametrize("after_pixels", [False, True])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt"])
def test_every_kind_of_text_chunk_is_read(
    put: Callable[[bytes], Path], kind: str, after_pixels: bool
) -> None:
    """A picture that another program wrote anew may keep the recipe in any of them, anywhere."""
    text = json.dumps(CONTENT).encode()
    packed = zlib.compress(text)
    data = {
        "tEXt": chunk(b"tEXt", b"latentcanvas\0" + text),
        "zTXt": chunk(b"zTXt", b"latentcanvas\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"latentcanvas\0\0\0en\0Rezept\0" + text),
        "packed iTXt": chunk(b"iTXt", b"latentcanvas\0\1\0\0\0" + packed),
    }[kind]
    assert read_recipe(put(with_chunks(data, after_pixels=after_pixels))) == RECIPE


def test_broken_chunks_of_others_do_not_hide_ours(put: Callable[[bytes], Path]) -> None:
    broken = [
        chunk(b"iTXt", b"no separators"),
        chunk(b"iTXt", b"key\0\0\0\0\0\xff\xfe"),
        chunk(b"zTXt", b"key\0\0no zlib"),
        chunk(b"zTXt", b""),
    ]
    ours = chunk(b"tEXt", b"latentcanvas\0" + json.dumps(CONTENT).encode())
    assert read_recipe(put(with_chunks(*broken, ours))) == RECIPE


def test_a_picture_without_recipe_is_said(put: Callable[[bytes], Path]) -> None:
    buffer = io.BytesIO()
    foreign = PngInfo()
    foreign.add_text("parameters", infotext(RECIPE))
    IMAGE.save(buffer, "PNG", pnginfo=foreign)
    with pytest.raises(
        UserError, match="has no LatentCanvas recipe; choose an image that LatentCanvas saved"
    ):
        read_recipe(put(buffer.getvalue()))


# Recipes that are damaged, or made up.

BAD: list[tuple[object, str]] = [
    ([], "recipe: must be an object"),
    (None, "recipe: must be an object"),
    ("text", "recipe: must be an object"),
    (without(CONTENT, "format"), "its format is not given"),
    (changed(CONTENT, "format", value=True), "its format is not given"),
    (changed(CONTENT, "format", value="1"), "its format is not given"),
    (changed(CONTENT, "format", value=2), "its format 2 is newer than this program's; update LatentCanvas"),
    (without(CONTENT, "model"), "recipe: model is missing"),
    (without(CONTENT, "device"), "recipe: device is missing"),
    (changed(CONTENT, "pluggin", value=1), "recipe: 'pluggin' is not known; did you mean 'plugin'?"),
    (changed(CONTENT, "settings", value=[]), "settings []: must be an object"),
    (without(CONTENT, "settings", "seed"), "settings: seed is missing"),
    (changed(CONTENT, "settings", "steps", value=0), "steps 0: must be a whole number between 1 and 1000"),
    (changed(CONTENT, "settings", "steps", value="20"), "steps '20': must be a whole number"),
    (changed(CONTENT, "settings", "steps", value=None), "steps: must be given"),
    (changed(CONTENT, "settings", "width", value=99_999_992), "size 99999992x96: width must be"),
    (changed(CONTENT, "settings", "batch", value=4), "batch 4 must be 1"),
    (changed(CONTENT, "settings", "cfg_scale", value=float("nan")), "cfg scale nan: must be a number"),
    (changed(CONTENT, "settings", "prompt", value={"a": 1}), "prompt {'a': 1}: must be text"),
    (changed(CONTENT, "settings", "prompt", value="\udead"), "prompt: character 1"),
    (changed(CONTENT, "settings", "options", value={"eta": [1]}), "option eta [1]: must be"),
    (changed(CONTENT, "model", value="tiny"), "model 'tiny': must be an object"),
    (changed(CONTENT, "model", "sha256", value="../../etc"), "must be 64 hexadecimal digits"),
    (changed(CONTENT, "model", "sha256", value=7), "model sha256 7: must be text"),
    (changed(CONTENT, "model", "name", value=""), "model name '': must not be empty"),
    (changed(CONTENT, "plugin", "version", value=None), "plugin version None: must be text"),
    (without(CONTENT, "schedule_plugin", "name"), "schedule_plugin: name is missing"),
    (changed(CONTENT, "versions", value=["torch"]), "versions: must be an object of names and values"),
    (changed(CONTENT, "versions", value={"torch": 2}), "version of torch 2: must be text"),
    (changed(CONTENT, "dtype", value=32), "dtype 32: must be text"),
    (changed(CONTENT, "sampler_title", value=None), "sampler title None: must be text"),
]


@pytest.mark.parametrize(("content", "words"), BAD, ids=[words[:50] for _, words in BAD])
def test_a_bad_recipe_is_refused(put: Callable[[bytes], Path], content: object, words: str) -> None:
    path = put(with_recipe(content))
    with pytest.raises(UserError) as refusal:
        read_recipe(path)
    assert str(refusal.value).startswith(f"{path}: its recipe cannot be used (")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", [b"", b"{", b"{'a': 1}", b"[" * 200_000, b'{"a":' * 100_000, b"1" * 10_000])
def test_a_recipe_that_is_no_json_is_refused(put: Callable[[bytes], Path], text: bytes) -> None:
    path = put(with_chunks(chunk(b"tEXt", b"latentcanvas\0" + text)))
    with pytest.raises(UserError, match=r"its recipe (is damaged|cannot be used)"):
        read_recipe(path)
