"""The step player as a person uses it, on a page of its own over kept runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PATIENCE, ROOT, Site, address, sync_api
from tests.browser.tabs import LOOKS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page with the player alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.browser.serve_player", port]
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield Site(address(server), tmp_path_factory.mktemp("outputs"))
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def ready() -> str:
    return "#show-first"


def show(page: Any, run: str) -> None:
    """Open a run anew, which takes another one before, and wait for it."""
    for one in ("blue", run):
        page.locator(f"#show-{one}").click()
        page.wait_for_function("run => document.querySelector('.lc-strip').dataset.run === run", arg=one)
        page.locator(".lc-player[data-phase=done]").wait_for()


def shown(page: Any) -> str:
    return str(page.locator(".lc-picture").first.get_attribute("src"))


def at_step(page: Any, step: int) -> None:
    expect(page.locator(f".lc-player[data-step='{step}']")).to_be_visible()


def choose(page: Any, group: str, name: str) -> None:
    """One of a group of radio buttons."""
    page.locator(f"{group} label").filter(has=page.get_by_text(name, exact=True)).click()


def slider(page: Any) -> Any:
    return page.get_by_role("slider", name="Step", exact=True)


def test_six_views_each_say_what_they_are(page: Any) -> None:
    show(page, "first")
    slider(page).fill("9")
    seen: set[str] = set()
    for name in ("Clean", "Noisy", "Noise", "Conditional", "Unconditional", "Difference"):
        label = page.locator(".lc-view label").filter(has=page.get_by_text(name, exact=True))
        assert len(label.get_attribute("title")) > 30
        label.click()
        frames = "document.querySelector('.lc-picture').src"
        page.wait_for_function(f"seen => !seen.includes({frames})", arg=list(seen))
        expect(page.locator(".lc-badge")).not_to_have_text("")
        seen.add(shown(page))
    assert len(seen) == 6
    assert all(source.startswith("data:image/jpeg") for source in seen)


def test_scrubbing_never_asks_the_server(page: Any) -> None:
    show(page, "long")
    asked: list[str] = []
    page.on("request", hear := lambda request: asked.append(request.url))
    took = page.evaluate(
        """async () => {
          const slider = document.querySelector(".lc-slider");
          const picture = document.querySelector(".lc-picture");
          const times = [];
          for (let step = 1; step < 150; step += 3) {
            const began = performance.now();
            slider.value = String(step);
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            await picture.decode();
            times.push(performance.now() - began);
          }
          return times;
        }"""
    )
    page.remove_listener("request", hear)
    assert sorted(took)[int(len(took) * 0.9)] < 200
    assert [url for url in asked if not url.startswith("data:")] == []


def test_keys_move_play_and_end(page: Any) -> None:
    show(page, "first")
    page.locator(".lc-stage").focus()
    page.keyboard.press("Home")
    at_step(page, 1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    at_step(page, 3)
    page.keyboard.press("ArrowLeft")
    at_step(page, 2)
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.keyboard.press("End")
    at_step(page, 20)
    expect(page.get_by_role("button", name="Replay")).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")  # with nothing in focus too
    at_step(page, 19)


def test_speeds_are_what_they_say(page: Any) -> None:
    show(page, "first")
    taken = {}
    for speed in ("x1", "x4"):
        choose(page, ".lc-speed", speed)
        taken[speed] = page.evaluate(
            """() => new Promise((resolve) => {
              const player = document.querySelector(".lc-player");
              const began = performance.now();
              new MutationObserver((_, self) => {
                if (player.dataset.step !== "20") return;
                self.disconnect();
                resolve(performance.now() - began);
              }).observe(player, { attributes: true, attributeFilter: ["data-step"] });
              document.querySelector("[data-act=first]").click();
              document.querySelector("[data-act=play]").click();
            })"""
        )
    assert 2500 < taken["x1"] < 8000
    assert taken["x4"] < taken["x1"] / 2


def test_a_click_on_a_plot_goes_to_its_step(page: Any) -> None:
    show(page, "first")
    for name in ("sigma", "guidance", "distance"):
        plot = page.locator(f"[data-curve={name}] svg")
        box = plot.bounding_box()
        assert box["height"] > 40
        page.locator("[data-act=last]").click()
        plot.click(position={"x": 5 + (box["width"] - 10) * 9 / 19, "y": box["height"] / 2})
        at_step(page, 10)
        expect(page.locator(f"[data-curve={name}] output")).not_to_have_text("")
    expect(page.locator("[data-curve=between]")).to_be_hidden()
    show(page, "plain")
    expect(page.locator("[data-curve=guidance]")).to_be_hidden()


def test_a_step_is_decoded_in_full_and_saved_with_what_it_is(page: Any) -> None:
    show(page, "first")
    choose(page, ".lc-view", "Clean")
    page.locator("[data-step='6']").last.click()
    page.get_by_role("button", name="Decode in full").click()
    expect(page.locator(".lc-badge")).to_have_text("clean estimate, decoded in full")
    assert shown(page).startswith("data:image/png")
    expect(page.get_by_role("button", name="Decode in full")).to_be_disabled()
    choose(page, ".lc-view", "Noisy")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="This step as PNG").click()
    assert download.value.suggested_filename == "first-0-step-6-noisy.png"
    image = Image.open(BytesIO(Path(download.value.path()).read_bytes()))
    assert image.info["Description"] == "Step 6 of 20, noisy state, of first-0.png"
    about = json.loads(image.info["latentcanvas_step"])
    assert (about["step"], about["view"], about["recipe"]["settings"]["seed"]) == (6, "noisy", 7)
    assert "latentcanvas" not in image.info


def test_the_steps_are_saved_as_a_gif_and_on_a_sheet(page: Any) -> None:
    show(page, "first")
    for name, kind in (("Steps as GIF", "GIF"), ("Contact sheet", "PNG")):
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        image = Image.open(BytesIO(Path(download.value.path()).read_bytes()))
        assert image.format == kind
    assert page.get_by_role("button", name=name).is_hidden()


def test_two_runs_side_by_side_follow_one_slider(page: Any, screenshots: Path) -> None:
    show(page, "first")
    page.get_by_role("button", name="Pin", exact=True).click()
    expect(page.get_by_role("button", name="Pinned")).to_have_attribute("aria-pressed", "true")
    show(page, "plain")
    page.get_by_role("button", name="Side by side").click()
    page.locator("#lc-pair-menu button").first.click()
    expect(page.locator(".lc-versus")).to_be_visible()
    second = page.locator(".lc-second")
    slider(page).fill("4")
    early = second.get_attribute("src")
    slider(page).fill("12")
    assert second.get_attribute("src") != early
    expect(page.locator(".lc-said").first).to_contain_text("different sizes")
    page.get_by_role("button", name="End the comparison").click()
    expect(second).to_be_hidden()

    show(page, "first")
    page.get_by_role("button", name="Side by side").click()
    page.locator("#lc-pair-menu button", has_text="CFG 9").click()
    expect(page.locator("[data-curve=between] svg path").first).to_be_visible()
    divider = page.get_by_role("slider", name="Divider between the two images")
    divider.press("ArrowRight")
    expect(divider).to_have_value("51")
    box = page.locator(".lc-frame").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 40)
    expect(divider).to_have_value("25")
    assert "25%" in second.get_attribute("style")
    choose(page, ".lc-view", "Noisy")
    expect(page.locator(".lc-badge")).to_have_text("noisy state")
    page.screenshot(path=screenshots / "player-side-by-side.png")


def test_branches_open_and_begin_where_one_looks(page: Any) -> None:
    show(page, "first")
    expect(page.get_by_role("button", name="Branch here")).to_be_disabled()
    page.get_by_role("button", name="Image 2 of 3").click()
    slider(page).fill("8")
    page.get_by_role("button", name="Branch here").click()
    heard = page.locator("#heard textarea")
    expect(heard).to_have_value(json.dumps({"run": "first", "image": 1, "step": 8, "prompt": None}))
    tree = page.get_by_role("navigation", name="Branches of this run")
    expect(tree.get_by_role("button")).to_have_count(4)
    tree.get_by_role("button", name="from step 14: seed 9").click()
    expect(tree.locator("[aria-current=true]")).to_contain_text("seed 9")
    expect(page.locator(".lc-report")).to_contain_text("seed 9")


def test_a_link_to_a_step_is_copied(open_page: Open, site: Site) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    show(page, "first")
    slider(page).fill("5")
    page.locator("[data-menu=save]").click()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".lc-said").first).to_contain_text("step 5")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith("/?run=first&step=5")
    assert copied.startswith(site.url.rstrip("/"))


def test_a_run_is_watched_and_then_whole(page: Any) -> None:
    page.locator("#watch").click()
    page.locator(".lc-player[data-phase=live]").wait_for()
    bar = page.get_by_role("progressbar", name="Model evaluations")
    expect(bar).to_have_attribute("aria-valuemax", "12")
    expect(page.locator(".lc-label")).to_contain_text("of 12 evaluations")
    choose(page, ".lc-view", "Noisy")
    expect(page.locator(".lc-badge")).to_have_text("noisy state")
    assert page.locator(".lc-view input:enabled").count() == 2
    page.locator(".lc-player[data-phase=done]").wait_for()
    expect(bar).to_be_hidden()
    expect(page.locator(".lc-report")).to_contain_text("denoise")


def test_a_run_without_steps_and_one_that_was_stopped(page: Any) -> None:
    page.locator("#show-bare").click()
    expect(page.locator(".lc-label")).to_have_text("the steps of this run were not saved")
    assert shown(page).startswith("data:image/png")
    expect(page.get_by_role("button", name="Download PNG")).to_be_enabled()
    expect(page.get_by_role("button", name="Verify")).to_be_enabled()
    show(page, "stopped")
    expect(page.locator(".lc-badge")).to_have_text("stopped here, decoded")
    expect(page.locator(".lc-report")).to_contain_text("stopped after step 9 of 20")


def test_every_control_has_a_name_and_a_place_in_the_order(page: Any) -> None:
    show(page, "first")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(".lc-player button, .lc-player input")].filter((control) => {
          const own = control.getAttribute("aria-label") || control.textContent.trim();
          const label = control.closest("label");
          return control.offsetParent && !own && !(label && label.textContent.trim());
        }).map((control) => control.outerHTML)"""
    )
    assert nameless == []
    page.locator(".lc-stage").focus()
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert order[:3] == ["Image 1 of 3", "Image 2 of 3", "Image 3 of 3"]
    assert page.evaluate(
        "[...document.querySelectorAll('.lc-player [tabindex]')].every((n) => n.tabIndex < 1)"
    )


@pytest.mark.parametrize(("name", "options"), LOOKS)
def test_how_it_looks(open_page: Open, screenshots: Path, name: str, options: dict[str, Any]) -> None:
    page = open_page(**options)
    show(page, "first")
    slider(page).fill("9")
    page.screenshot(path=screenshots / f"player-{name}.png", full_page=name == "phone")
    height, width = page.evaluate(
        "[document.documentElement.scrollHeight, document.documentElement.scrollWidth]"
    )
    assert width <= page.viewport_size["width"]
    stage = page.locator(".lc-stage").bounding_box()
    if name != "phone":
        assert height <= page.viewport_size["height"]
        side, controls = (page.locator(part).bounding_box() for part in (".lc-side", ".lc-time"))
        assert stage["width"] * stage["height"] > 2 * side["width"] * side["height"]
        assert stage["height"] > 2 * controls["height"]
    else:
        assert stage["y"] < 100
        assert stage["width"] > 340
