"""The history tab as a person uses it: in a small page of its own, over real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.history import History
from core.recipes.png import read_recipe
from tests.browser.conftest import PATIENCE, ROOT, Opening, Windows, address, sync_api
from tests.core.histories import keep

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

Open = Callable[..., Any]


@contextmanager
def served(folder: Path, *arguments: str) -> Generator[str]:
    command = [sys.executable, "-m", "tests.browser.serve_history", str(folder), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder.parent / "gradio")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield address(server)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty runs: the newest three are told apart, one of them of three pictures, two in a family."""
    folder = tmp_path_factory.mktemp("site") / "outputs"
    history = History(folder)
    for i in range(57):
        keep(history, prompt=f"plain {i}", seed=i, row={"created": time.time() - 86400 * (2 + i)})
    root = keep(history, prompt="a red house", sampler="heun", batch=3, row={"owner": "red"})
    keep(history, prompt="a blue boat", row={"parent": root.id, "parent_step": 7, "owner": "blue"})
    keep(history, prompt="cannot be opened", row={"stopped": True})
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with served(folder) as url:
        yield url


def opened(windows: Windows, url: str, token: str = "", **options: Any) -> Any:
    """The history in a window of its own."""
    page = windows.open(url, **options)
    if token:
        page.locator("#token textarea, #token input").first.fill(token)
    page.get_by_role("tab", name="history").click()
    page.locator(".lch-tile, .lch-empty:not([hidden])").first.wait_for()
    return page


@pytest.fixture(scope="module")
def opening(site: str) -> Opening:
    return partial(opened, url=site)


@pytest.fixture
def open_page(windows: Windows) -> Open:
    return partial(opened, windows)


def tiles(page: Any) -> Any:
    return page.locator(".lch-tile")


def chosen(page: Any, prompt: str) -> Any:
    """Choose the run with this prompt; its detail."""
    page.locator(f'[data-run][aria-label^="{prompt}"]').click()
    expect(page.locator(".lch-prompt")).to_have_text(prompt)
    return page.locator(".lch-detail")


def test_search_filter_and_scroll(page: Any, screenshots: Path) -> None:
    expect(page.locator(".lch-count")).to_have_text("60 runs")
    expect(tiles(page)).to_have_count(48)
    page.screenshot(path=screenshots / "history-desktop.png")
    page.locator(".lch-scroll").evaluate("node => node.scrollTo(0, node.scrollHeight)")
    expect(tiles(page)).to_have_count(60)

    page.get_by_label("Search the prompts").fill('"red hou')
    expect(page.locator(".lch-count")).to_have_text("1 run")
    expect(tiles(page)).to_have_count(1)
    page.get_by_label("Search the prompts").fill("nothing like that")
    expect(page.locator(".lch-empty h2")).to_have_text("No matching runs")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".lch-count")).to_have_text("60 runs")

    page.get_by_label("Sampler").select_option("heun")
    expect(tiles(page)).to_have_count(1)
    page.get_by_label("Sampler").select_option("")
    page.get_by_label("From").fill(time.strftime("%Y-%m-%d"))
    expect(tiles(page)).to_have_count(3)
    page.get_by_label("Starred").check()
    expect(tiles(page)).to_have_count(0)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".lch-count")).to_have_text("60 runs")


def test_a_run_whole_and_its_family(page: Any, folder: Path, tmp_path: Path) -> None:
    detail = chosen(page, "a red house")
    expect(detail.locator("dl")).to_contain_text("heun")
    detail.get_by_role("button", name="Image 3 of 3").click()
    expect(detail.get_by_role("button", name="Image 3 of 3")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        detail.get_by_text("Download").click()
    name = download.value.suggested_filename
    saved = tmp_path / name
    download.value.save_as(saved)
    assert saved.read_bytes() == (folder / name).read_bytes()
    assert read_recipe(saved).settings.seed == 44

    detail.get_by_role("button", name="a blue boat, from step 7").click()
    expect(page.locator(".lch-prompt")).to_have_text("a blue boat")
    detail.get_by_role("button", name="Star", exact=True).click()
    expect(page.locator(".lch-starred")).to_have_count(1)
    detail.get_by_role("button", name="Starred", exact=True).click()
    expect(page.locator(".lch-starred")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(page.locator('[data-run][aria-label="a blue boat"]')).to_be_focused()


def test_open_in_the_workbench(page: Any, folder: Path) -> None:
    detail = chosen(page, "cannot be opened")
    detail.get_by_role("button", name="Open in the workbench").click()
    expect(page.locator(".lch-note")).to_have_text("This run cannot be opened.")
    chosen(page, "a blue boat").get_by_role("button", name="Open in the workbench").click()
    field = page.locator("#opened textarea, #opened input").first
    expect(field).to_be_visible()
    assert field.input_value().endswith(History(folder).search("blue boat")[0].id)
    page.get_by_role("tab", name="history").click()
    page.locator(".lch-detail").get_by_role("button", name="Close").click()
    expect(page.locator(".lch-detail")).to_be_hidden()


def test_the_keyboard_goes_through_the_grid(page: Any) -> None:
    first = tiles(page).nth(0).locator("[data-run]")
    expect(first).to_have_attribute("tabindex", "0")  # the grid is drawn
    page.get_by_label("Starred").focus()
    page.keyboard.press("Tab")
    expect(first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tiles(page).nth(2).locator("[data-run]")).to_be_focused()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.run") not in (None, "")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator(".lch-prompt")).to_have_text("cannot be opened")


def test_export_and_delete_what_is_selected(
    open_page: Open, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("deleting") / "outputs"
    history = History(folder)
    for prompt in ("one", "two", "three"):
        keep(history, prompt=prompt, batch=2)
    with served(folder) as url:
        page = open_page(url)
        for label in ("Select: one", "Select: three"):
            page.get_by_label(label).check(force=True)
        expect(page.locator(".lch-number")).to_have_text("2 selected")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export zip").click()
        download.value.save_as(tmp_path / "runs.zip")
        with zipfile.ZipFile(tmp_path / "runs.zip") as archive:
            assert archive.namelist() == ["000001.png", "000002.png", "000005.png", "000006.png", "runs.json"]

        picked = page.locator(".lch-picked")
        picked.get_by_role("button", name="Delete", exact=True).click()
        expect(picked).to_contain_text("Delete 2 runs with 4 images?")
        picked.get_by_role("button", name="Cancel").click()
        assert history.count() == 3
        picked.get_by_role("button", name="Delete", exact=True).click()
        picked.get_by_role("button", name="Delete permanently").click()
        expect(tiles(page)).to_have_count(1)
        expect(picked).to_be_hidden()
        assert sorted(path.name for path in folder.glob("*.png")) == ["000003.png", "000004.png"]

        detail = chosen(page, "two")
        detail.get_by_role("button", name="Delete", exact=True).click()
        expect(detail).to_contain_text("Delete this run and its 2 images?")
        detail.get_by_role("button", name="Delete permanently").click()
        expect(page.locator(".lch-empty h2")).to_have_text("No runs yet")
        expect(detail).to_be_hidden()
        assert history.count() == 0

        keep(history, prompt="new")
        page.get_by_role("tab", name="first").click()
        page.get_by_role("tab", name="history").click()
        expect(tiles(page)).to_have_count(1)


def test_guests_see_their_own_runs_alone(open_page: Open, folder: Path) -> None:
    with served(folder, "guests") as url:
        nobody = open_page(url)
        expect(nobody.locator(".lch-empty h2")).to_have_text("No runs yet")
        red = open_page(url, "red")
        expect(tiles(red)).to_have_count(1)
        detail = chosen(red, "a red house")
        expect(detail.locator(".lch-family")).to_be_hidden()
        theirs = History(folder).search("blue boat")[0]
        path = (folder / theirs.names[0]).resolve()
        for address in (f"/gradio_api/file={path}", f"/file={path}"):
            answer = red.request.get(url.rstrip("/") + address)
            assert answer.status in (403, 404)


@pytest.mark.parametrize(("name", "width", "height"), [("dark", 1440, 900), ("phone", 390, 844)])
def test_it_fits(open_page: Open, site: str, screenshots: Path, name: str, width: int, height: int) -> None:
    page = open_page(
        site, viewport={"width": width, "height": height}, color_scheme="dark" if name == "dark" else "light"
    )
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"history-{name}.png")
    for part in (".lch-count", ".lch-text", ".lch-tile:nth-child(4)"):
        where = page.locator(part).bounding_box()
        assert where is not None
        assert where["x"] >= 0
        assert where["x"] + where["width"] <= width
    chosen(page, "a red house")
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"history-{name}-run.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if name == "dark":
        assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight + 1")
    button = page.get_by_role("button", name="Open in the workbench")
    box = button.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] + box["height"] <= height
