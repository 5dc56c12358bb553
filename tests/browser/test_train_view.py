"""Training from the page as a person does it: begun, reloaded, stopped, gone on with, used in txt2img."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, ROOT, Site, address, free_port, sync_api
from tests.browser.serve_train import HELD_AT
from tests.browser.stories import generate, on_tab, tab, wait
from tests.browser.tabs import PHONE
from tests.browser.test_workbench import NAMELESS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)
Open = Callable[..., Any]
STEPS = "96"  # an eighth of them, after which there are samples, is less than HELD_AT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("train")
    command = [sys.executable, "-m", "tests.browser.serve_train", free_port(), str(folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield Site(address(server), folder, server.pid)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def ready() -> str:
    return "#tabs button[role=tab]"  # a model of points has no examples to wait for


def train_view(page: Any, size: Any = None) -> Any:
    """Open the view, in a window of this size. A narrow one has its tabs in a menu: so it is wide before."""
    tab(page, "learn")
    if size is not None:
        page.set_viewport_size(size)
    page.get_by_role("tab", name="Train", exact=True).click()
    return page.locator("#learn-train")


def ask_steps(part: Any, steps: str) -> None:
    field = part.locator("#train-steps input")
    field.fill(steps)
    field.press("Tab")


def picture(page: Any, screenshots: Path, name: str) -> None:
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"train-{name}.png", full_page=name.startswith("phone"))
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.slow
def test_a_model_is_trained_and_used(open_page: Open, site: Site, screenshots: Path) -> None:
    page = open_page()
    part = train_view(page)
    expect(part.locator(".lc-learn-code pre").first).to_be_visible()
    expect(part.locator(".lc-lesson .katex-display")).to_be_visible()
    expect(part.locator(".lc-learn-words")).to_contain_text("Choose a recipe and press Train")
    assert page.evaluate(NAMELESS) == []
    picture(page, screenshots, "empty")

    ask_steps(part, "0")
    part.locator("#learn-train-start").click()
    expect(part.get_by_role("alert")).to_contain_text("Steps 0: must be a whole number")

    (site.outputs / "hold").touch()
    ask_steps(part, STEPS)
    part.locator("#learn-train-start").click()
    expect(part.locator("#learn-train-notice")).to_contain_text(
        f"Step {HELD_AT} of {STEPS} of the UNet, about"
    )
    expect(part.locator("#learn-train-start")).to_be_disabled()
    expect(part.locator("#learn-train-stop")).to_be_enabled()
    expect(part.locator("#learn-train-use")).to_be_hidden()
    expect(part.get_by_role("alert")).to_have_count(0)
    expect(part.locator("svg.lc-plot")).to_be_visible()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(2)
    picture(page, screenshots, "live")

    page.reload()
    part = page.locator("#learn-train")
    if not part.is_visible():
        part = train_view(page)
    expect(part.locator("svg.lc-plot")).to_be_visible()
    part.locator("#learn-train-stop").click()
    expect(part.locator("#learn-train-notice")).to_contain_text("Stopping after the next step...")
    (site.outputs / "hold").unlink()
    expect(part.locator("#learn-train-notice")).to_contain_text("Stopped; a checkpoint is saved.")
    assert (site.outputs / "runs" / "points" / "unet.checkpoint").is_file()
    part.locator("#learn-train-go-on").click()
    expect(part.locator("#learn-train-notice")).to_contain_text("the model is named points", timeout=600_000)
    expect(part.locator(".lc-learn-words")).to_contain_text(f"after {STEPS} of {STEPS} steps")
    expect(part.locator("#learn-train-go-on")).to_be_hidden()
    picture(page, screenshots, "light")

    page.locator("#model input").click()
    expect(page.get_by_role("option", name="points", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    part.locator("#learn-train-use").click()
    on_tab(page, "txt2img")
    expect(page.locator("#model input")).to_have_value("points")
    expect(page.locator("#width input").first).to_have_value("256")
    expect(page.locator("#schedule input").first).to_have_value("Karras")
    generate(page).click()
    wait(page)
    picture(page, screenshots, "used")
    assert len(list((site.outputs / "outputs").glob("*.png"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dark", "phone"])
def test_how_it_looks(open_page: Open, screenshots: Path, name: str) -> None:
    """What was trained above is found by every page; without it, one is trained first."""
    page = open_page(color_scheme="dark" if name == "dark" else "light")
    part = train_view(page, PHONE["viewport"] if name == "phone" else None)
    expect(part.locator(".lc-learn-words")).to_be_visible()
    if "Choose a recipe" in part.locator(".lc-learn-words").inner_text():
        ask_steps(part, "8")
        part.locator("#learn-train-start").click()
    expect(part.locator("svg.lc-plot")).to_be_visible()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(2)
    expect(part.locator("#learn-train-use")).to_be_visible()
    picture(page, screenshots, name)


@pytest.mark.slow
def test_what_another_process_left_is_gone_on_with(open_page: Open, site: Site, screenshots: Path) -> None:
    left = site.outputs / "runs" / "left"
    code = "import sys; from ui.cli import main; sys.exit(main())"
    changed = ("train.unet.steps=100000", "train.unet.save_every=5", "train.unet.sample_every=0")
    command = [
        *(sys.executable, "-c", code, "train", str(site.outputs / "small-points.toml")),
        *("--device", "cpu", "--out", str(left)),
        *(text for change in changed for text in ("--set", change)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **quiet) as other:
        try:
            while not (left / "unet.checkpoint").exists():
                assert other.poll() is None
                time.sleep(0.1)
            page = open_page()
            part = train_view(page)
            expect(part.locator("#train-unfinished input")).to_have_value("left")
            assert page.evaluate(NAMELESS) == []
            part.locator("#learn-train-go-on").click()
            expect(part.get_by_role("alert")).to_contain_text("left is in training elsewhere: stop it there")
            picture(page, screenshots, "elsewhere")
        finally:
            other.send_signal(signal.SIGINT)  # it writes a checkpoint
    part.locator("#learn-train-go-on").click()
    expect(part.locator("#learn-train-notice")).to_contain_text(" of 100000 of the UNet, about")
    expect(part.locator("#train-unfinished")).to_be_hidden()
    part.locator("#learn-train-stop").click()
    expect(part.locator("#learn-train-notice")).to_contain_text("Stopped; a checkpoint is saved.")
    expect(part.locator("svg.lc-plot")).to_be_visible()
    expect(part.locator("#train-unfinished input")).to_have_value("left")
    picture(page, screenshots, "unfinished")
    page.set_viewport_size(PHONE["viewport"])
    picture(page, screenshots, "phone-unfinished")
