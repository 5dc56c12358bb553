"""The recipe tab's handlers: what is shown of what was found, and what its buttons ask the workbench for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from core.errors import UserError
from core.plugins.discovery import load_plugins
from core.recipes.opened_recipe import ReportLine
from core.recipes.png import png_bytes
from core.recipes.reader import read_any
from core.request.request import Request
from tests.core.recipes import RECIPE
from tests.ui.fakes import in_blocks
from ui.page.tabs.recipe import (
    Opening,
    RecipeTab,
    ShownRecipe,
    model_sentence,
    opener,
    report_html,
    summary_html,
    where_of,
    without_pictures,
)

REGISTRY = load_plugins(enabled=False)
TEXT = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 512x512"


def built() -> RecipeTab:
    def build() -> RecipeTab:
        tab = RecipeTab(REGISTRY)
        tab.build()
        tab.connect(lambda asked: [asked.where], [gr.HTML("")])
        return tab

    return in_blocks(build)


def ours(folder: Path, **settings: Any) -> Path:
    recipe = replace(RECIPE, settings=replace(RECIPE.settings, **settings))
    path = folder / "ours.png"
    path.write_bytes(png_bytes(Image.new("RGB", (8, 8)), recipe))
    return path


def test_a_file_is_read_and_shown(tmp_path: Path) -> None:
    shown, picture, summary, actions, button, start, notice, report = built().on_file(str(ours(tmp_path)))
    assert shown.found.request == Request.from_settings(RECIPE.settings)
    assert shown.picture == tmp_path / "ours.png"
    assert (picture.visible, actions.visible, start.visible, button.value) == (
        True,
        True,
        True,
        "Open in txt2img",
    )
    assert "Made with <b>tiny</b>" in summary
    assert notice == ""
    assert "a red house under a full moon" in report


def test_what_cannot_be_read_is_a_sentence_without_the_path(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    shown, picture, summary, actions, _, _, notice, report = built().on_file(str(tmp_path / "plain.png"))
    assert (shown, summary, report, actions.visible, picture.visible) == (None, "", "", False, True)
    assert "lain.png: has no recipe of LatentCanvas" in notice
    assert str(tmp_path) not in notice


def test_pasted_text(tmp_path: Path) -> None:
    tab = built()
    assert tab.on_text(TEXT)[0].found.source == "a1111"
    assert tab.on_text("  ")[0] is None
    assert "How was this image made?" in tab.on_text("")[2]
    assert 'role="alert"' in tab.on_text("[" * 200_000)[6]
    assert tab.on_file(None)[0] is None


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, "txt2img", ""),
        ({"strength": 0.5, "image_sha256": "a" * 64}, "img2img", "add its init image."),
        (
            {"strength": 0.5, "image_sha256": "a" * 64, "mask_sha256": "b" * 64, "mask_blur": 4},
            "inpaint",
            "add its init image and mask.",
        ),
        (
            {"strength": 1.0, "image_sha256": "a" * 64, "outpaint": (64, 0, 0, 0)},
            "inpaint",
            "add its init image.",
        ),
    ],
)
def test_a_recipe_opens_where_it_belongs(tmp_path: Path, settings: Any, where: str, said: str) -> None:
    found = read_any(ours(tmp_path, **settings), REGISTRY)
    asked = built().recipe_opening(ShownRecipe(found))
    assert asked == Opening(found.request, where, "tiny")  # pyrefly: ignore[bad-argument-type]
    assert where_of(found) == where
    assert said in summary_html(found, None)
    assert bool(said) == ("lc-recipe-needs" in summary_html(found, None))


def test_a_picture_can_be_started_from(tmp_path: Path) -> None:
    path = ours(tmp_path, strength=0.3, image_sha256="a" * 64, only_masked=8, mask_sha256="b" * 64)
    asked = built().picture_opening(ShownRecipe(read_any(path, REGISTRY), path))
    assert (asked.where, asked.picture, asked.request.strength) == ("img2img", path, 0.75)
    assert (asked.request.only_masked, asked.request.mask_sha256, asked.request.width) == (None, None, None)
    assert asked.request.prompt == RECIPE.settings.prompt
    few = read_any("x\nSteps: 1, Sampler: Euler, Seed: 1", REGISTRY)
    assert built().picture_opening(ShownRecipe(few, path)).request.strength == 1.0


def test_a_request_without_its_pictures_is_the_same_otherwise() -> None:
    request = replace(
        Request.from_settings(RECIPE.settings),
        strength=0.4,
        outpaint=(8, 0, 0, 0),
        image_sha256="a" * 64,
        clip_skip=2,
    )
    assert without_pictures(request) == replace(Request.from_settings(RECIPE.settings), clip_skip=2)


@pytest.mark.parametrize(
    ("name", "digits", "loaded", "said"),
    [
        (None, None, None, "It does not name the model"),
        ("tiny", "ab12", ("tiny", "ab12" * 16), "which is the loaded model."),
        ("other", "ab12", ("tiny", "ab12" * 16), "which is the loaded model."),
        ("tiny", "ffff", ("tiny", "ab12" * 16), "has other weights, so the image will differ."),
        ("tiny", None, ("tiny", "ab12" * 16), "a model of that name is loaded."),
        ("tiny", "ffff", ("big", "ab12" * 16), "is installed; choose it at the top of the page."),
        ("tiny", None, None, "is installed; choose it at the top of the page."),
        ("Deliberate_v5", "ffff", ("tiny", "ab12" * 16), "which is not installed"),
    ],
)
def test_which_model_it_was_made_with(
    name: str | None, digits: str | None, loaded: tuple[str, str] | None, said: str
) -> None:
    found = replace(read_any(TEXT, REGISTRY), model=name, model_hash=digits)
    assert said in model_sentence(found, loaded)


def test_nothing_of_theirs_is_markup() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    shown = report_html([ReportLine(hostile, hostile, "mapped", hostile, hostile)])
    assert hostile not in shown
    assert shown.count("&lt;img") == 4
    found = replace(read_any(TEXT, REGISTRY), model=hostile)
    assert "<img" not in summary_html(found, None)


def test_a_button_shows_what_the_workbench_refuses() -> None:
    def refuse(asked: Opening) -> list[str]:
        raise UserError("the sampler has no such option")

    shown = ShownRecipe(read_any(TEXT, REGISTRY))
    tab = built()
    *skipped, notice = opener(refuse, tab.recipe_opening, 3)(shown)
    assert len(skipped) == 3
    assert "The sampler has no such option" in notice
    assert "drop an image" in opener(refuse, tab.recipe_opening, 3)(None)[-1]
    assert opener(lambda asked: [asked.where], tab.recipe_opening, 1)(shown) == ["txt2img", ""]
