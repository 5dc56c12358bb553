"""The txt2img tab as a person uses it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.images import read_recipe, read_text
from tests.browser.conftest import PATIENCE, ROOT, Site, sync_api

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

Open = Callable[..., Any]
PROMPT = "a large red circle on a blue background"

# Collects what the stage shows, from before a run starts.
WATCH = """() => {
  const player = document.querySelector(".lc-player");
  const picture = player.querySelector(".lc-picture");
  window.seen = new Set();
  new MutationObserver(() => {
    if (player.dataset.phase === "live") window.seen.add(picture.getAttribute("src"));
  }).observe(picture, { attributes: true });
}"""


def make(page: Any, prompt: str = PROMPT, **fields: str) -> None:
    """Fill the form and press Generate."""
    page.locator("#prompt textarea").fill(prompt)
    for name, value in fields.items():
        field = page.locator(f"#{name} input[type=number], #{name} input[type=text]").first
        field.fill(value)
        field.press("Tab")
    page.locator("#generate").click()


def wait_done(page: Any) -> None:
    page.locator(".lc-player[data-phase=done]").wait_for()


def shown(page: Any) -> str:
    return str(page.locator(".lc-picture").get_attribute("src"))


def test_a_prompt_becomes_a_picture_and_its_steps_stay(open_page: Open) -> None:
    page = open_page()
    page.evaluate(WATCH)
    make(page, steps="40")
    wait_done(page)
    previews = page.evaluate("[...window.seen]")
    assert len(previews) >= 2
    assert all(source.startswith("data:image/jpeg") for source in previews)
    expect(page.locator(".lc-label")).to_have_text("step 40 of 40, sigma 0, 40 evaluations")
    expect(page.locator("#report")).to_contain_text("40 evaluations")
    finished = shown(page)
    assert finished.startswith("data:image/png")

    slider = page.get_by_role("slider", name="Step", exact=True)
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 9, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    page.mouse.move(box["x"] + box["width"] * 0.4, middle, steps=5)
    page.mouse.up()
    step = int(slider.input_value())
    assert 10 <= step <= 24
    expect(page.locator(".lc-label")).to_contain_text(f"step {step} of 40")
    assert shown(page) != finished

    slider.press("ArrowRight")
    expect(page.locator(".lc-label")).to_contain_text(f"step {step + 1} of 40")
    page.get_by_role("button", name="Previous step").click()
    expect(page.locator(".lc-label")).to_contain_text(f"step {step} of 40")
    page.get_by_role("button", name="First step").click()
    expect(page.locator(".lc-label")).to_contain_text("step 1 of 40")
    page.get_by_role("button", name="Play").click()
    expect(page.locator(".lc-player[data-step='40']")).to_be_visible()
    assert shown(page) == finished


def test_views_and_full_decodes_of_any_step(open_page: Open) -> None:
    page = open_page()
    make(page, steps="12")
    wait_done(page)
    page.get_by_role("slider", name="Step", exact=True).fill("8")
    clean = shown(page)
    seen = {clean}
    for name in ("Noisy", "Prompted", "Unprompted", "Difference"):
        before = shown(page)
        page.locator(".lc-view").get_by_text(name, exact=True).click()
        expect(page.locator(".lc-picture")).not_to_have_attribute("src", before)
        seen.add(shown(page))
    assert len(seen) == 5
    page.locator(".lc-view").get_by_text("Clean", exact=True).click()
    assert shown(page) == clean
    page.get_by_role("button", name="Decode this step").click()
    expect(page.locator(".lc-badge")).to_have_text("decoded in full")
    assert shown(page).startswith("data:image/png")


def test_the_download_is_the_saved_file_with_its_recipe(open_page: Open, site: Site, tmp_path: Path) -> None:
    page = open_page()
    make(page, seed="1234", steps="10")
    wait_done(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    recipe = read_recipe(path)
    assert (recipe.settings.prompt, recipe.settings.seed, recipe.settings.steps) == (PROMPT, 1234, 10)
    assert "Seed: 1234" in read_text(path)["parameters"]
    assert path.read_bytes() == (site.outputs / path.name).read_bytes()


def test_a_batch_is_chosen_by_its_small_pictures(open_page: Open, site: Site) -> None:
    page = open_page()
    make(page, batch="3", seed="50", steps="8")
    wait_done(page)
    first = shown(page)
    page.get_by_role("button", name="Picture 2 of 3").click()
    expect(page.locator(".lc-picture")).not_to_have_attribute("src", first)
    expect(page.locator(".lc-picture")).to_have_attribute("src", re.compile("^data:image/png"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert read_recipe(site.outputs / download.value.suggested_filename).settings.seed == 51


def test_stop_keeps_what_was_made(open_page: Open) -> None:
    page = open_page()
    make(page, steps="150")
    page.locator(".lc-player[data-phase=live]").wait_for()
    page.get_by_role("button", name="Stop").click()
    wait_done(page)
    expect(page.locator("#report")).to_contain_text("stopped after step")
    made = int(page.get_by_role("slider", name="Step", exact=True).get_attribute("max"))
    assert 1 <= made < 150
    assert shown(page).startswith("data:image/png")
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()


def test_bad_input_gets_a_sentence_that_stays_until_the_next_action(open_page: Open) -> None:
    page = open_page()
    notice = page.locator("#notice").get_by_role("alert")
    make(page, width="130")
    expect(notice).to_contain_text("130")
    expect(notice).to_contain_text("multiple of 8")
    page.wait_for_timeout(2000)
    expect(notice).to_be_visible()
    make(page, width="128", seed="abc")
    expect(notice).to_contain_text("abc")
    make(page, seed="3", steps="5")
    wait_done(page)
    expect(notice).to_have_count(0)


def test_unknown_words_are_named_while_typing(open_page: Open) -> None:
    page = open_page()
    page.locator("#prompt textarea").press_sequentially("a red zyxgorb")
    expect(page.locator("#tokens")).to_contain_text("Not known to this model: zyxgorb")


def test_examples_fill_the_prompt_and_cards_start_a_run(open_page: Open) -> None:
    page = open_page()
    chip = page.locator("#examples button").first
    words = chip.inner_text()
    chip.click()
    expect(page.locator("#prompt textarea")).to_have_value(words)
    card = page.locator(".lc-cards button").last
    words = card.inner_text().strip()
    card.click()
    wait_done(page)
    expect(page.locator("#prompt textarea")).to_have_value(words)


def test_control_and_enter_generates(open_page: Open) -> None:
    page = open_page()
    page.locator("#prompt textarea").fill(PROMPT)
    page.locator("#prompt textarea").press("Control+Enter")
    wait_done(page)


def test_the_samplers_own_options_follow_the_sampler(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#option-ddim-eta")).to_be_visible()
    page.locator("#sampler input").click()
    page.get_by_role("option", name="DDPM").click()
    expect(page.locator("#option-ddim-eta")).to_be_hidden()
    make(page, steps="6")
    wait_done(page)


def test_looking_back_never_waits_for_another_run(open_page: Open) -> None:
    looking, making = open_page(), open_page()
    make(looking, steps="10")
    wait_done(looking)
    make(making, steps="150")
    making.locator(".lc-player[data-phase=live]").wait_for()
    before = shown(looking)
    looking.locator(".lc-view").get_by_text("Noisy", exact=True).click()
    looking.get_by_role("slider", name="Step", exact=True).fill("4")
    expect(looking.locator(".lc-picture")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    assert shown(looking) != before
    expect(making.locator(".lc-player")).to_have_attribute("data-phase", "live")
    making.get_by_role("button", name="Stop").click()
    wait_done(making)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}),
    ],
)
def test_how_it_looks(open_page: Open, screenshots: Path, name: str, options: dict[str, Any]) -> None:
    page = open_page(**options)
    page.screenshot(path=screenshots / f"{name}-empty.png")
    make(page, "a red house on a snowy hill under a full moon", batch="3", seed="2")
    page.locator(".lc-player[data-phase=live]").wait_for()
    page.screenshot(path=screenshots / f"{name}-live.png")
    wait_done(page)
    expect(page.locator("#generate")).to_be_enabled()
    page.wait_for_timeout(500)  # its colour comes back slowly
    page.screenshot(path=screenshots / f"{name}-done.png", full_page=name == "phone")
    height, width = page.evaluate(
        "[document.documentElement.scrollHeight, document.documentElement.scrollWidth]"
    )
    assert width <= page.viewport_size["width"]
    if name != "phone":
        assert height <= page.viewport_size["height"]
    if name == "light" and os.environ.get("LATENTCANVAS_UPDATE_SCREENSHOTS") == "1":
        target = ROOT / "docs" / "images" / "page.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(screenshots / "light-done.png", target)
