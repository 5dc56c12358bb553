"""The compare tab as a person uses it: values, cost, a grid that fills in, its runs and its sheet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.recipes.png import read_recipe
from tests.browser.conftest import PATIENCE, Site, sync_api
from tests.browser.tabs import LOOKS, serve_tab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve_tab("compare", tmp_path_factory.mktemp("outputs")) as site:
        yield site


@pytest.fixture(scope="module")
def ready() -> str:
    return "#compare-base p"


def choose(page: Any, axis: int, title: str) -> None:
    page.locator(f"#axis-{axis} input").click()
    page.get_by_role("option", name=title, exact=True).click()


def fill(page: Any, **values: str) -> None:
    for name, words in values.items():
        page.locator(f"#{name.replace('_', '-')} textarea").fill(words)


def done(page: Any) -> None:
    page.locator(".lc-grid[data-state=done]").wait_for()


def test_a_grid_is_costed_fills_in_and_opens_its_runs(page: Any, site: Site, tmp_path: Path) -> None:
    expect(page.locator(".lc-grid-empty")).to_be_visible()
    fill(page, values_0="4, 8-12 (+4)", values_1="1, 5")
    expect(page.locator("#compare-cost")).to_contain_text("6 images (3 × 2), 48 model evaluations")
    expect(page.locator("#compare-base")).to_contain_text("a red house on a snowy hill")
    page.locator("#compare-start").click()
    expect(page.locator(".lc-grid thead th")).to_have_text(["4", "8", "12"])
    expect(page.locator(".lc-grid tbody th")).to_have_text(["1", "5"])
    page.locator(".lc-spot img").first.wait_for()
    done(page)
    expect(page.locator(".lc-spot img")).to_have_count(6)
    expect(page.locator(".lc-grid-words")).to_have_text("6 of 6 images")
    assert len(list(site.outputs.glob("*.png"))) == 6

    page.get_by_role("button", name="Steps: 12, CFG scale: 5, open").click()
    expect(page.locator("#opened textarea")).to_have_value(re.compile("^someone opened .+"))

    page.locator("#compare-save").click()
    expect(page.locator("#compare-notice")).to_contain_text("pixels")
    with page.expect_download() as download:
        page.locator("#compare-file").click()
    download.value.save_as(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet.load()
        assert 'X Values: "4, 8-12 (+4)"' in sheet.info["parameters"]
    assert read_recipe(sorted(site.outputs.glob("*.png"))[0]).settings.seed == 3

    fill(page, values_0="20")
    expect(page.locator("#compare-cost")).to_contain_text("at the last run's speed")
    page.reload()
    expect(page.locator(".lc-spot img")).to_have_count(6)


def test_mistakes_are_said_before_anything_runs(page: Any) -> None:
    fill(page, values_0="5, x", values_1="200")
    mistakes = page.locator("#compare-cost li")
    expect(mistakes).to_have_count(2)
    expect(mistakes.first).to_contain_text("Steps: 'x': is not a number or a range")
    expect(mistakes.last).to_contain_text("cfg scale 200.0: must be a number between 0 and 100")
    page.locator("#compare-start").click()
    expect(page.locator("#compare-notice li")).to_have_count(2)


def test_all_of_a_list_and_words(page: Any) -> None:
    choose(page, 0, "Model")
    page.locator("#all-0").click()
    expect(page.locator("#values-0 textarea")).to_have_value("tiny, small")
    fill(page, values_1="1")
    expect(page.locator("#compare-cost")).to_contain_text("1 model to load")
    choose(page, 0, "Prompt S/R")
    expect(page.locator("#values-0 textarea")).to_have_value("")
    fill(page, values_0='red, "blue, dark"')
    expect(page.locator("#compare-cost")).to_contain_text("2 images (2 × 1)")


def test_stop_and_a_page_that_comes_back_in_mid_run(open_page: Open, site: Site) -> None:
    page = open_page()
    choose(page, 1, "Seed")
    fill(page, values_0="60", values_1="1-40")
    page.locator("#compare-start").click()
    page.locator(".lc-spot img").first.wait_for()
    again = page.context.new_page()  # a reload aborts Gradio's own streams, which it says on the console
    page.close()
    page = again
    page.goto(site.url)
    page.locator(".lc-grid[data-state=running]").wait_for()
    page.locator(".lc-spot img").nth(1).wait_for()
    page.locator("#compare-stop").click()
    done(page)
    expect(page.locator(".lc-grid-words")).to_contain_text("stopped: ")
    expect(page.locator("#compare-start")).to_be_enabled()


def test_a_race_gives_each_the_same_evaluations(page: Any) -> None:
    page.locator("#compare-mode").get_by_text("Equal evaluations").click()
    expect(page.locator("#race-evals")).to_be_visible()
    expect(page.locator("#values-0")).to_be_hidden()
    expect(page.locator("#compare-cost")).to_contain_text("5 images, 99 model evaluations")
    page.locator("#compare-start").click()
    expect(page.locator(".lc-grid-flow li")).to_have_count(5)  # what was there before had no such list
    done(page)
    expect(page.locator(".lc-spot img")).to_have_count(5)
    expect(page.locator(".lc-grid-flow")).to_contain_text("Heun, 10 steps, 19 evaluations")


@pytest.mark.parametrize(("name", "options"), LOOKS)
def test_how_it_looks(open_page: Open, screenshots: Path, name: str, options: dict[str, Any]) -> None:
    page = open_page(**options)
    page.screenshot(path=screenshots / f"compare-{name}-before.png", full_page=name == "phone")
    choose(page, 1, "Prompt S/R")
    fill(page, values_0="5, 10-20 (+10)", values_1='red, "a dark and rather dirty shade of green", blue')
    expect(page.locator("#compare-cost")).to_contain_text("9 images")
    page.locator("#compare-start").click()
    page.locator(".lc-grid[data-state=running]").wait_for()
    page.screenshot(path=screenshots / f"compare-{name}-running.png", full_page=name == "phone")
    done(page)
    page.screenshot(path=screenshots / f"compare-{name}-done.png", full_page=name == "phone")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]
