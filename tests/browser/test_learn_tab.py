"""The Learn tab as a person uses it: every view drawn, moved and saved, in light, dark and on a telephone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PATIENCE, Site, sync_api
from tests.browser.tabs import WINDOWS, serve_tab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve_tab("learn", tmp_path_factory.mktemp("outputs")) as site:
        yield site


@pytest.fixture
def ready() -> str:
    return "#here"


def learn(page: Any, view: str) -> Any:
    """Open a view, and give its part of the page."""
    if not page.locator("#learn").is_visible():
        page.get_by_role("tab", name="learn", exact=True).click()
    if view != "Forward":
        page.get_by_role("tab", name=view, exact=True).click()
    return page.locator(f"#learn-{view.lower()}")


def test_nothing_is_drawn_before_the_tab_is_opened(open_page: Open) -> None:
    page = open_page()
    page.wait_for_timeout(1000)
    assert page.locator(".lc-shown").count() == 0
    part = learn(page, "Forward")
    expect(part.locator("svg.lc-plot")).to_be_visible()
    expect(part.locator(".lc-learn-words")).to_contain_text("1.44 times as strong as the noise")
    expect(part.locator(".katex-display").first).to_be_visible()
    expect(part.locator(".lc-learn-code figcaption").first).to_contain_text("core/learn/forward.py:")


def test_the_newest_timestep_is_what_stays(open_page: Open) -> None:
    page = open_page()
    part = learn(page, "Forward")
    expect(part.locator("svg.lc-plot")).to_be_visible()
    field = part.locator("#forward-t input[type=number]")
    for t in ("100", "500", "900"):
        field.fill(t)
        field.press("Tab")
    expect(part.locator(".lc-learn-words")).to_contain_text("At t = 900 of 1000")
    part.get_by_text("A picture", exact=True).click()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(3)


def test_schedules_mark_where_a_strength_starts(open_page: Open) -> None:
    part = learn(open_page(), "Schedules")
    expect(part.locator("svg.lc-plot")).to_have_count(2)
    field = part.locator("#schedules-strength input[type=number]")
    field.fill("0.6")
    field.press("Tab")
    expect(part.locator(".lc-learn-words")).to_contain_text("strength 0.6 x 20 = 12 steps")
    field.fill("0.05")
    field.press("Tab")
    steps = part.locator("#schedules-steps input[type=number]")
    steps.fill("5")
    steps.press("Tab")
    expect(part.get_by_role("alert")).to_contain_text("runs none")


def test_samplers_walk_side_by_side_and_are_saved(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    part = learn(page, "Reverse")
    expect(part.locator(".lc-learn-words p")).to_have_count(5)
    expect(part.locator(".lc-learn-words")).to_contain_text("Heun: 10 steps, 19 evaluations")
    expect(part.locator(".lc-learn-code figcaption").last).to_contain_text("samplers/ddpm.py:")
    field = part.locator("#reverse-evals input[type=number]")
    field.fill("6")
    field.press("Tab")
    expect(part.locator(".lc-learn-words")).to_contain_text("Heun: 3 steps, 5 evaluations")
    part.locator("#learn-reverse-gif").click()
    with page.expect_download() as download:
        part.locator("#learn-reverse-file").click()
    download.value.save_as(tmp_path / "reverse.gif")
    with Image.open(tmp_path / "reverse.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames > 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", ["Forward", "Schedules", "Reverse"])
@pytest.mark.parametrize(("name", "options"), WINDOWS.items())
def test_how_it_looks(
    open_page: Open, screenshots: Path, name: str, options: dict[str, Any], view: str
) -> None:
    page = open_page(**options)
    part = learn(page, view)
    expect(part.locator("svg.lc-plot").first).to_be_visible()
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"learn-{view.lower()}-{name}.png", full_page=name == "phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
