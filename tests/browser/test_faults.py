"""What goes wrong around the page while it is open: each time one sentence, and the page goes on."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.inference.trajectory import Trajectory
from core.recipes.png import read_recipe
from tests.browser import confined
from tests.browser.conftest import PATIENCE, ROOT, Site, address, free_port, sync_api

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not confined.possible(), reason="no disk of one's own can be made here"),
]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

PLUGIN = """
from latentcanvas import Step, hookimpl

def unlucky(denoise, x, sigmas, noise):
    for i in range(len(sigmas) - 1):
        if i == 2:
            raise RuntimeError("out of luck")
        clean = denoise(x, sigmas[i])
        x = clean + sigmas[i + 1] * (x - clean) / sigmas[i]
        yield Step(i, sigmas[i + 1], x, clean)

@hookimpl
def register_samplers(register):
    register("unlucky", unlucky, title="Unlucky")
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[confined.Disk, Site]]:
    """A page whose outputs are a small disk of its own, with a plugin that raises."""
    outputs, plugins = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("plugins")
    (plugins / "unlucky.py").write_text(PLUGIN)
    program = [sys.executable, "-m", "tests.browser.serve_fake", free_port(), str(outputs), str(plugins)]
    config = str(tmp_path_factory.mktemp("config"))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "LATENTCANVAS_CONFIG": config}
    with subprocess.Popen(
        confined.command(outputs, program),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            url = address(server)
            made = confined.Disk(server.pid, outputs)
            yield made, Site(url, made.path)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def site(disk: tuple[confined.Disk, Site]) -> Site:
    return disk[1]


def ask(page: Any, seed: int) -> None:
    page.locator("#seed input").fill(str(seed))
    page.locator("#seed input").press("Tab")
    page.locator(".lc-generate:visible").click()


def begin(page: Any) -> None:
    """A form of a small picture."""
    page.locator("#prompt textarea").fill("a red circle")
    for name in ("width", "height"):
        page.locator(f"#{name} input").first.fill("64")
        page.locator(f"#{name} input").first.press("Tab")
    page.locator("#steps input[type=number]").fill("4")
    page.locator("#steps input[type=number]").press("Tab")


def shows(page: Any, seed: int) -> Image.Image:
    """Wait for this run in the player; its picture."""
    expect(page.locator(".lc-report")).to_contain_text(f"seed {seed}")
    page.locator(".lc-player[data-phase=done]").wait_for(state="attached")
    source = page.locator(".lc-picture").first.get_attribute("src")
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def said(page: Any, words: str) -> None:
    """The page says one sentence, in which these words are."""
    alert = page.locator("#notice").get_by_role("alert")
    expect(alert).to_contain_text(words)
    sentence = alert.inner_text()
    assert "\n" not in sentence
    assert not re.search(r"Traceback|Errno|\.py\"", sentence), sentence


def goes_on(page: Any, site: Site, seed: int) -> None:
    """The next run is made, shown and kept, and nothing is said."""
    ask(page, seed)
    shows(page, seed)
    expect(page.locator("#notice").get_by_role("alert")).to_have_count(0)
    assert seed in [read_recipe(path).settings.seed for path in site.outputs.glob("*.png")]
    nothing_broken(site.outputs)


def nothing_broken(outputs: Path) -> None:
    """Pictures and steps are whole, and nothing else lies about but the history."""
    for path in outputs.iterdir():
        if path.suffix == ".png":
            Image.open(path).load()
            read_recipe(path)
        elif path.name.endswith(".steps.safetensors"):
            assert len(Trajectory.open(path).steps) == 4
        else:
            assert path.name.startswith("history.sqlite"), path.name


def rows(site: Site) -> int:
    return len(list(site.outputs.glob("*.png")))


def in_history(page: Any, count: int) -> None:
    """The history tab shows so many runs, perhaps after a while."""
    page.get_by_role("tab", name="history", exact=True).click()
    shown = page.locator(".lch-count")
    shown.wait_for()
    for _ in range(40):
        page.evaluate("document.querySelector('#history .lch').dispatchEvent(new Event('refresh'))")
        page.wait_for_timeout(250)
        if shown.inner_text().split()[:1] == [str(count)]:
            break
    expect(shown).to_have_text(f"{count} runs" if count != 1 else "1 run")
    page.get_by_role("tab", name="txt2img", exact=True).click()


def test_a_plugin_that_raises_in_its_third_step(page: Any, site: Site) -> None:
    begin(page)
    page.locator("#sampler input").click()
    page.get_by_role("option", name="Unlucky", exact=False).click()
    ask(page, 11)
    said(page, "failed at step 3 with RuntimeError: out of luck")
    said(page, "Sampler unlucky (unlucky.py")
    page.locator("#sampler input").click()
    page.get_by_role("option", name="Euler", exact=True).click()
    goes_on(page, site, 12)


def test_a_disk_without_space(page: Any, disk: tuple[confined.Disk, Site], tmp_path: Path) -> None:
    small, site = disk
    begin(page)
    before = rows(site)
    with small.full():
        ask(page, 21)
        said(page, "The image is not saved: ")
        said(page, "there is no space left on the disk; free some or choose another folder")
        shows(page, 21)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download PNG").click()
        download.value.save_as(tmp_path / "a.png")
        assert read_recipe(tmp_path / "a.png").settings.seed == 21
        in_history(page, before)
        assert rows(site) == before
    goes_on(page, site, 22)
    in_history(page, before + 1)


@pytest.mark.parametrize(
    "left", [24_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (8_000, 64_000))]
)
def test_a_disk_with_hardly_any_space(page: Any, disk: tuple[confined.Disk, Site], left: int) -> None:
    """Whatever of a run fits is whole, and in the history when there is space again."""
    small, site = disk
    begin(page)
    with small.full(left):
        ask(page, left)
        said(page, "no space left on the disk")
        shows(page, left)
    goes_on(page, site, left + 1)
    in_history(page, rows(site))


def test_outputs_that_may_not_be_written(page: Any, disk: tuple[confined.Disk, Site]) -> None:
    small, site = disk
    begin(page)
    before = rows(site)
    with small.read_only():
        ask(page, 31)
        said(page, "The image is not saved: ")
        said(page, "you may not write there; change its permissions or choose another folder")
        shows(page, 31)
        in_history(page, before)
    goes_on(page, site, 32)
    in_history(page, before + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statements", "seed"),
    [
        (["BEGIN IMMEDIATE"], 41),
        (["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM pictures"], 51),
    ],
    ids=["for writing", "for reading too"],
)
def test_a_locked_history(
    page: Any, disk: tuple[confined.Disk, Site], statements: list[str], seed: int
) -> None:
    small, site = disk
    begin(page)
    before = rows(site)
    with small.locked(*statements):
        ask(page, seed)
        said(page, "The image is saved, but not in the history yet: ")
        said(page, "is locked by another program; close that, or try again in a moment")
        shows(page, seed)
    in_history(page, before + 1)  # by itself
    goes_on(page, site, seed + 1)
    in_history(page, before + 2)
