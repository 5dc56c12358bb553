"""The Learn tab as a person uses it: every view drawn, moved and saved, in light, dark and on a telephone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.learn.lessons import LESSONS
from tests.browser.conftest import PATIENCE, Site, sync_api
from tests.browser.tabs import LOOKS, PHONE, serve_tab
from tests.browser.test_workbench import NAMELESS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)
Open = Callable[..., Any]
VIEWS = [lesson.title.partition(":")[0] for lesson in LESSONS.values()]
NAMES = {"Latent space": "latents", "DDPM and DDIM": "ddpm"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve_tab("learn", tmp_path_factory.mktemp("outputs")) as site:
        yield site


@pytest.fixture(scope="module")
def ready() -> str:
    return "#here"


def learn(page: Any, view: str) -> Any:
    """Open a view, and give its part of the page."""
    if not page.locator("#learn").is_visible():
        page.get_by_role("tab", name="learn", exact=True).click()
    page.get_by_role("tab", name=view, exact=True).click()
    return page.locator(f"#learn-{NAMES.get(view, view.lower())}")


def test_nothing_is_drawn_before_the_tab_is_opened(page: Any) -> None:
    page.wait_for_timeout(1000)
    assert page.locator(".lc-shown").count() == 0
    part = learn(page, "Forward")
    expect(part.locator("svg.lc-plot")).to_be_visible()
    expect(part.locator(".lc-learn-words")).to_contain_text("1.44 times as strong as the noise")
    expect(part.locator(".katex-display").first).to_be_visible()
    expect(part.locator(".lc-learn-code figcaption").first).to_contain_text("core/learn/forward.py:")


def test_the_newest_timestep_is_what_stays(page: Any) -> None:
    part = learn(page, "Forward")
    expect(part.locator("svg.lc-plot")).to_be_visible()
    field = part.locator("#forward-t input[type=number]")
    for t in ("100", "500", "900"):
        field.fill(t)
        field.press("Tab")
    expect(part.locator(".lc-learn-words")).to_contain_text("At t = 900 of 1000")
    part.get_by_text("An image", exact=True).click()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(3)


def test_schedules_mark_where_a_strength_starts(page: Any) -> None:
    part = learn(page, "Schedules")
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
    expect(part.get_by_role("alert")).to_contain_text("run at least 1 step")
    part.locator("#schedules-form").click()
    expect(part.locator(".lc-learn-words")).to_contain_text("Karras: strength 0.5 x 12 = 6 steps")
    expect(part.get_by_role("alert")).to_have_count(0)


@pytest.mark.slow
def test_samplers_walk_side_by_side_and_are_saved(page: Any, tmp_path: Path) -> None:
    part = learn(page, "Reverse")
    expect(part.locator(".lc-learn-words")).to_contain_text("Nearest to fresh data is")
    expect(part.locator(".lc-learn-code figcaption").last).to_contain_text("samplers/ddpm.py:")
    before = part.locator(".lc-learn-words").inner_text()
    for name, value in (("share", "50"), ("evals", "40"), ("evals", "6")):
        field = part.locator(f"#reverse-{name} input[type=number]")
        field.fill(value)
        field.press("Tab")
    expect(part.locator(".lc-learn-words")).not_to_have_text(before)
    expect(part.get_by_role("alert")).to_have_count(0)
    part.locator("#learn-reverse-gif").click()
    with page.expect_download() as download:
        part.locator("#learn-reverse-file").click()
    download.value.save_as(tmp_path / "reverse.gif")
    with Image.open(tmp_path / "reverse.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames > 10  # pyrefly: ignore[missing-attribute]


def test_the_model_is_taken_apart(page: Any, tmp_path: Path) -> None:
    part = learn(page, "Latent space")
    part.locator("#learn-latents-png").click()
    expect(part.get_by_role("alert")).to_contain_text("There is nothing to save yet")
    part.locator("#learn-latents-start").click()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(4 + 16)
    expect(part.locator(".lc-learn-words")).to_contain_text("PSNR")
    expect(part.get_by_role("alert")).to_have_count(0)
    part.locator("#learn-latents-png").click()
    with page.expect_download() as download:
        part.locator("#learn-latents-file").click()
    download.value.save_as(tmp_path / "latents.png")
    with Image.open(tmp_path / "latents.png") as sheet:
        assert sheet.width == 1000


def test_guidance_over_two_scales_and_bad_ones(page: Any) -> None:
    part = learn(page, "Guidance")
    scales = part.locator("#guidance-scales input")
    scales.fill("1, x")
    part.locator("#learn-guidance-start").click()
    expect(part.get_by_role("alert")).to_contain_text("write numbers with commas between")
    scales.fill("1, 4")
    part.locator("#learn-guidance-start").click()
    expect(part.locator("#learn-guidance-notice")).to_contain_text("Evaluation")
    expect(part.locator(".lc-learn-pictures img")).to_have_count(4 + 2 + 2)
    expect(part.locator("svg.lc-plot")).to_be_visible()


@pytest.mark.slow
def test_prompts_over_scales(open_page: Open, screenshots: Path, tmp_path: Path) -> None:
    page = open_page()
    part = learn(page, "Guidance")
    expect(part.locator("#guidance-prompts")).to_be_hidden()
    part.get_by_text("Several prompts over the scales", exact=True).click()
    expect(part.locator("#guidance-prompt")).to_be_hidden()
    expect(part.locator("#guidance-at")).to_be_hidden()
    assert page.evaluate(NAMELESS) == []
    typed = part.locator("#guidance-prompts textarea")
    typed.fill("a red house")
    part.locator("#learn-guidance-start").click()
    expect(part.get_by_role("alert")).to_contain_text("1 prompt: a grid takes 2 to 12")
    typed.fill("a red house on a snowy hill\n\na large blue circle")
    part.locator("#guidance-scales input").fill("0, 1, 4")
    part.locator("#learn-guidance-start").click()
    pictures = part.locator(".lc-learn-pictures img")
    expect(pictures).to_have_count(6)
    assert part.locator(".lc-shown h4").all_inner_texts() == [
        "a red house on a snowy hill",
        "a large blue circle",
    ]
    assert part.locator("figcaption").all_inner_texts()[:3] == ["scale 0", "scale 1", "scale 4"]
    sources = [picture.get_attribute("src") for picture in pictures.all()]
    assert sources[0] == sources[3]  # without the prompt both are one picture
    assert len(set(sources)) == 5
    expect(part.locator(".lc-learn-words")).to_contain_text("0.00 apart at scale 0")
    sizes: dict[str, Any] = {"light": page.viewport_size, "phone": PHONE["viewport"]}
    for name, size in sizes.items():
        page.set_viewport_size(size)
        page.wait_for_timeout(300)
        page.screenshot(path=screenshots / f"learn-guidance-grid-{name}.png", full_page=name == "phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
    part.locator("#learn-guidance-gif").click()
    with page.expect_download() as download:
        part.locator("#learn-guidance-file").click()
    download.value.save_as(tmp_path / "guidance.gif")
    with Image.open(tmp_path / "guidance.gif") as film:
        assert film.n_frames == 3  # pyrefly: ignore[missing-attribute]


def test_between_two_pictures_after_two_seeds(page: Any) -> None:
    part = learn(page, "Interpolation")
    expect(part.locator("#between-second")).to_be_visible()
    part.get_by_text("Two images", exact=True).click()
    expect(part.locator("#between-second")).to_be_hidden()
    count = part.locator("#between-count input[type=number]")
    count.fill("3")
    count.press("Tab")
    part.locator("#learn-interpolation-start").click()
    expect(part.locator(".lc-learn-pictures img")).to_have_count(9)


def test_a_thousand_steps_can_be_stopped(page: Any) -> None:
    part = learn(page, "DDPM and DDIM")
    part.locator("#learn-ddpm-start").click()
    expect(part.locator("#learn-ddpm-notice")).to_contain_text("Evaluation")
    part.locator("#learn-ddpm-stop").click()
    expect(part.get_by_role("alert")).to_contain_text("The run was stopped before its end")
    expect(part.locator("#learn-ddpm-start")).to_be_enabled()


def test_every_view_opens_and_each_control_has_a_name(page: Any) -> None:
    for view in VIEWS:
        part = learn(page, view)
        expect(part).to_be_visible()
        expect(part.locator(".lc-learn-code pre").first).to_be_visible()
        expect(part.locator(".lc-lesson .katex").first).to_be_visible()
        assert page.evaluate(NAMELESS) == [], view


@pytest.mark.parametrize("view", ["Forward", "Schedules", "Reverse", "Latent space"])
@pytest.mark.parametrize(("name", "options"), LOOKS)
def test_how_it_looks(
    open_page: Open, screenshots: Path, name: str, options: dict[str, Any], view: str
) -> None:
    page = open_page(**options)
    part = learn(page, view)
    if view == "Latent space":
        part.locator("#learn-latents-start").click()
    expect(part.locator("svg.lc-plot, .lc-learn-pictures img").first).to_be_visible()
    page.wait_for_timeout(300)
    page.screenshot(path=screenshots / f"learn-{view.lower()}-{name}.png", full_page=name == "phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
