"""The recipe tab as a person uses it: drop a picture, paste a text, open it; and how it looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.recipes.png import png_bytes
from tests.browser.conftest import PATIENCE, Site, sync_api
from tests.browser.tabs import LOOKS, serve_tab
from tests.core.recipes import RECIPE
from tests.ui.drawn import draw, to_image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

THEIRS = (
    "masterpiece, a lighthouse on a cliff at dusk, (warm light:1.2), <lora:coast:0.7>, waves, gulls\n"
    "Negative prompt: blurry, lowres\n"
    "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 510x768, "
    "Model hash: 45dee52b12, Model: v1-5-pruned-emaonly, Denoising strength: 0.4, Clip skip: 2, "
    "Hires upscale: 2, Hires steps: 12, "
    'Lora hashes: "coast: 1a2b3c4d", Version: v1.9.4'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve_tab("recipe", tmp_path_factory.mktemp("outputs")) as site:
        yield site


@pytest.fixture(scope="module")
def ready() -> str:
    return "#recipe-summary h3"


def picture() -> Image.Image:
    return to_image((draw(7, (3, 24, 16)) / 2).astype(np.float32))


def theirs(folder: Path) -> Path:
    chunks = PngInfo()
    chunks.add_text("parameters", THEIRS)
    picture().save(folder / "theirs.png", pnginfo=chunks)
    return folder / "theirs.png"


def drop(page: Any, path: Path) -> None:
    """Give the file to the field that one drops files on."""
    page.locator("#recipe-file input[type=file]").set_input_files(str(path))


def what_opens(page: Any, button: str) -> Any:
    page.locator(button).click()
    page.locator("#opened").wait_for(state="attached")
    return json.loads(page.locator("#opened").text_content())


def test_our_picture_opens_as_it_was_made(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    (tmp_path / "ours.png").write_bytes(png_bytes(picture(), RECIPE))
    drop(page, tmp_path / "ours.png")
    expect(page.locator("#recipe-summary h3")).to_have_text("LatentCanvas")
    expect(page.locator("#recipe-summary")).to_contain_text("the loaded model of that name has other weights")
    expect(page.locator("#recipe-picture img")).to_be_visible()
    expect(page.get_by_role("row", name="prompt a red house")).to_contain_text(
        "a red house under a full moon"
    )
    told = what_opens(page, "#recipe-open")
    assert told == {
        "request": RECIPE.settings.to_dict(),
        "where": "txt2img",
        "model": "tiny",
        "picture": None,
    }


def test_a_pasted_text_is_read_as_it_is_typed_and_cleared(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("text => navigator.clipboard.writeText(text)", f"{THEIRS}, RNG: CPU")
    page.get_by_label("Or paste text").focus()
    page.keyboard.press("Control+V")
    expect(page.locator("#recipe-summary h3")).to_have_text("A1111's text")
    expect(page.locator("#recipe-summary")).to_contain_text("v1-5-pruned-emaonly, which is not installed")
    expect(page.locator("#recipe-report caption")).to_have_text("8 kept, 3 mapped, 6 ignored")
    expect(page.get_by_role("row", name="Sampler")).to_contain_text("dpmpp_2m, schedule karras")
    expect(page.locator("#recipe-start")).to_be_hidden()
    told = what_opens(page, "#recipe-open")
    assert (told["request"]["seed"], told["request"]["width"], told["where"]) == (965400086, 512, "txt2img")
    page.get_by_label("Or paste text").fill("")
    expect(page.locator("#recipe-summary h3")).to_have_text("How was this image made?")
    expect(page.locator("#recipe-open")).to_be_hidden()


def test_a_picture_can_be_started_from(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    drop(page, theirs(tmp_path))
    expect(page.locator("#recipe-report")).to_contain_text("<lora:coast:0.7>")
    told = what_opens(page, "#recipe-start")
    assert (told["where"], told["picture"], told["request"]["strength"]) == ("img2img", "theirs.png", 0.75)


def test_an_img2img_recipe_says_what_it_needs(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    settings = replace(RECIPE.settings, strength=0.5, image_sha256="a" * 64)
    (tmp_path / "ours.png").write_bytes(png_bytes(picture(), replace(RECIPE, settings=settings)))
    drop(page, tmp_path / "ours.png")
    expect(page.locator("#recipe-open")).to_have_text("Open in img2img")
    expect(page.locator(".lc-recipe-needs")).to_have_text("To run it, add its init image.")


def test_what_is_no_recipe_is_a_sentence_with_the_files_name(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page()
    picture().save(tmp_path / "plain.png")
    drop(page, tmp_path / "plain.png")
    said = page.locator("#recipe-notice").get_by_role("alert")
    expect(said).to_contain_text("lain.png: has no recipe of LatentCanvas")
    expect(said).not_to_contain_text("/")
    expect(page.locator("#recipe-open")).to_be_hidden()


@pytest.mark.parametrize(("name", "options"), LOOKS)
def test_how_it_looks(
    open_page: Callable[..., Any], screenshots: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    page = open_page(**options)
    page.screenshot(path=screenshots / f"recipe-{name}-empty.png", full_page="phone" in name)
    drop(page, theirs(tmp_path))
    expect(page.locator("#recipe-report caption")).to_be_visible()
    expect(page.locator("#recipe-picture img")).to_be_visible()
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"recipe-{name}.png", full_page="phone" in name)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    if "phone" not in name:  # one screen: what does not fit scrolls inside the report
        assert page.evaluate("document.documentElement.scrollHeight") <= page.viewport_size["height"] + 1
