"""The plugins tab as a person uses it: what failed, what is checked, and how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, Site, sync_api
from tests.browser.tabs import LOOKS, serve_tab
from ui.page.tabs.plugins import EXAMPLE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

BROKEN = "from latentcanvas import hookimpl\nimport not_there_at_all\n"
WRONG = EXAMPLE.replace("x = x + ", "x = x + 0.5 * ").replace("my_euler", "half_euler").replace("My", "Half")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three plugins in a folder: a good one, one that cannot be imported, one that is wrong."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, source in (("my_euler", EXAMPLE), ("broken", BROKEN), ("half_euler", WRONG)):
        (folder / f"{name}.py").write_text(source)
    with serve_tab("plugins", folder) as site:
        yield site


@pytest.fixture(scope="module")
def ready() -> str:
    return "#plugin-list .lc-plugin"


def test_what_failed_and_why_is_there_and_a_check_shows_its_table(page: Any) -> None:
    broken = page.locator(".lc-plugin", has_text="broken.py")
    expect(broken).to_contain_text("No module named 'not_there_at_all'")
    expect(broken.locator("pre")).to_be_hidden()
    broken.get_by_text("Traceback", exact=True).click()
    expect(broken.locator("pre")).to_contain_text("ModuleNotFoundError")

    page.get_by_role("button", name="half_euler").click()
    expect(page.locator("#findings")).to_contain_text("in its own process")
    expect(page.locator("#check-stop")).to_be_enabled()
    expect(page.locator("#findings .lc-verdict")).to_contain_text("broken: rule")
    expect(page.locator("#findings td.lc-bad").first).to_have_text("broken")
    expect(page.locator("#check-run")).to_be_enabled()

    page.get_by_role("button", name="my_euler").click()
    expect(page.locator("#findings .lc-verdict")).to_have_text("13 of 13 rules hold")


def test_a_check_can_be_stopped_and_bad_options_are_a_sentence(page: Any) -> None:
    page.get_by_role("button", name="my_euler").click()
    expect(page.locator("#findings")).to_contain_text("in its own process")
    page.locator("#check-stop").click()
    expect(page.locator("#findings")).to_contain_text("stopped")
    page.locator("#check-options input").fill("eta=1")
    page.locator("#check-run").click()
    expect(page.locator("#findings").get_by_role("alert")).to_contain_text("has no options")


@pytest.mark.parametrize(("name", "options"), LOOKS)
def test_how_it_looks(
    open_page: Callable[..., Any], screenshots: Path, name: str, options: dict[str, Any]
) -> None:
    page = open_page(**options)
    page.screenshot(path=screenshots / f"plugins-{name}-empty.png", full_page=name == "phone")
    page.locator("#plugin-list").get_by_role("button", name="half_euler").click()
    expect(page.locator("#findings .lc-verdict")).to_be_visible()
    page.screenshot(path=screenshots / f"plugins-{name}-checked.png", full_page=name == "phone")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]
