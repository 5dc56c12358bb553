"""A person's habits: queue, keys, reload, links, several at once, branches."""

from __future__ import annotations

from typing import Any

import pytest

from core.recipes.png import read_recipe
from tests.browser.conftest import PATIENCE, Site, Windows, sync_api
from tests.browser.stories import Open, ask, newest, on_tab, shown, tab, wait

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)


# Habits.


def test_keys_queue_skip_and_stop(page: Any) -> None:
    ask(page, "the first of them", steps="150", batch="8")
    for words in ("the second of them", "the third of them"):
        page.locator("#prompt textarea").fill(words)
        page.locator("#prompt textarea").press("Control+Enter")
        expect(page.locator("#queue")).to_contain_text(words)
    expect(page.locator("#status")).to_have_text("queue 3")
    wait(page, "live")
    page.get_by_role("button", name="Cancel: the second of them").click()
    expect(page.locator("#queue li")).to_have_count(2)
    page.locator("#skip").click()
    expect(page.locator("#status")).to_have_text("queue 1")
    wait(page, "live")
    page.locator("body").press("Escape")
    wait(page)
    expect(page.locator(".lc-report")).to_contain_text("stopped after step")
    made = int(page.get_by_role("slider", name="Step", exact=True).get_attribute("max"))
    assert 1 <= made < 150
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#status")).to_have_text("queue 0")


def test_several_runs_come_one_after_the_other(page: Any, site: Site) -> None:
    ask(page, steps="5", seed="70", batch="1", runs="3")
    expect(page.locator(".lc-report")).to_contain_text("seed 72")
    seeds = [read_recipe(path).settings.seed for path in sorted(site.outputs.glob("*.png"))[-3:]]
    assert seeds == [70, 71, 72]


def test_a_first_visitor_may_ask_before_the_page_has_heard_from_the_server(
    windows: Windows, site: Site
) -> None:
    page, held = windows.open("about:blank"), []

    def hold(route: Any) -> None:
        """The run goes ahead of all that the page asks at its opening."""
        if asked or "the earliest" in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    asked = False
    page.route("**/queue/join*", hold)
    page.goto(site.url)
    with page.expect_response(lambda response: "queue/join" in response.url):
        ask(page, "the earliest bird", steps="5", batch="1")
    asked = True
    assert held
    for route in held:
        route.continue_()
    wait(page)
    expect(page.locator(".lc-report")).to_contain_text("5 evaluations")


def test_a_reload_in_mid_run_loses_nothing(page: Any) -> None:
    tab(page, "img2img")
    tab(page, "txt2img")
    ask(page, "a red house", steps="150", batch="8", runs="1", seed="9")
    wait(page, "live")
    page.reload()
    wait(page, "live")
    expect(page.locator("#prompt textarea")).to_have_value("a red house")
    expect(page.locator("#steps input[type=number]")).to_have_value("150")
    expect(page.locator("#stop")).to_be_enabled()
    page.locator("#stop").click()
    wait(page)
    expect(page.locator(".lc-report")).to_contain_text("seed 9")
    tab(page, "history")
    expect(page.locator("#workbench")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("tab", name="history")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#workbench")).to_be_hidden()
    tab(page, "txt2img")
    wait(page)  # the newest run again
    expect(page.locator(".lc-report")).to_contain_text("seed 9")
    ask(page, "a red house", steps="30", seed="10")
    expect(page.locator("#status")).to_have_text("queue 1")
    page.reload()  # it ends while nobody looks
    expect(page.locator(".lc-report")).to_contain_text("seed 10")


def link_of(page: Any) -> str:
    """What the page's address needs behind it to open this run at this step."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("[data-menu=save]").click()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".lc-said").first).to_contain_text("Copied")
    address = str(page.evaluate("navigator.clipboard.readText()"))
    return address[address.index("?") :]


def test_an_address_opens_a_run_at_a_step(page: Any, open_page: Open) -> None:
    ask(page, "a yellow star", steps="8", batch="1", runs="1", seed="31")
    wait(page)
    page.get_by_role("slider", name="Step", exact=True).fill("3")
    other = open_page(at=link_of(page))
    wait(other)
    expect(other.locator(".lc-label")).to_contain_text("step 3 of 8")
    expect(other.locator("#prompt textarea")).to_have_value("a yellow star")
    expect(other.locator("#seed input")).to_have_value("31")


@pytest.mark.slow
def test_a_picture_goes_on_to_the_other_tabs_and_back(open_page: Open) -> None:
    page = open_page()
    ask(page, "a yellow star", steps="6", seed="33")
    wait(page)
    page.locator("[data-menu=send]").click()
    page.locator("[data-act=to-img2img]").click()
    page.locator("#picture img").wait_for()
    on_tab(page, "img2img")
    ask(page, "a blue star", steps="6", seed="34")
    expect(page.locator(".lc-report")).to_contain_text("strength 0.75")
    wait(page)
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".lc-said").first).to_contain_text("Identical: ")
    page.locator("[data-menu=send]").click()
    page.locator("[data-act=to-inpaint]").click()
    page.locator("#editor canvas").first.wait_for()
    expect(page.locator("#editor .empty")).to_have_count(0)
    other = open_page(at=link_of(page))
    other.locator("#picture img").wait_for()
    expect(other.get_by_role("tab", name="img2img")).to_have_attribute("aria-selected", "true")
    expect(other.locator("#rest")).to_be_hidden()


@pytest.mark.slow
def test_two_people_at_once_each_get_their_own(open_page: Open) -> None:
    ann, bob = open_page(), open_page()
    ask(ann, "a red house of my own", steps="24", batch="4", seed="100")
    ask(bob, "a blue boat", steps="10", seed="200")
    expect(bob.locator("#queue")).to_contain_text("someone else's run")
    expect(bob.locator("#queue")).not_to_contain_text("red house")
    wait(ann)
    wait(bob)
    expect(ann.locator(".lc-report")).to_contain_text("seed 100")
    expect(bob.locator(".lc-report")).to_contain_text("seed 200")


@pytest.mark.slow
def test_looking_back_never_waits_for_another_run(open_page: Open) -> None:
    looking, making = open_page(), open_page()
    ask(looking, steps="10")
    wait(looking)
    ask(making, steps="150", batch="8")
    wait(making, "live")
    before = shown(looking)
    looking.get_by_role("slider", name="Step", exact=True).fill("4")
    assert shown(looking) != before
    expect(making.locator(".lc-player")).to_have_attribute("data-phase", "live")
    making.locator("#stop").click()
    wait(making)


def test_branching_goes_on_with_what_the_form_says(page: Any, site: Site) -> None:
    ask(page, "a red house", steps="10", batch="1", runs="1", seed="8")
    wait(page)
    page.get_by_role("slider", name="Step", exact=True).fill("4")
    page.locator("#prompt textarea").fill("a blue house")
    page.get_by_role("button", name="Branch here").click()
    expect(page.locator(".lc-tree")).to_be_visible()
    settings = read_recipe(newest(site)).settings
    assert settings.branch is not None
    assert (settings.prompt, settings.branch.step, settings.branch.settings.prompt) == (
        "a blue house",
        4,
        "a red house",
    )


def test_a_tab_clicked_before_the_page_is_restored_is_kept(open_page: Open) -> None:
    page = open_page()
    tab(page, "history")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if '"history"' in (route.request.post_data or ""):  # what asks for the page as it was left
            held.append(route)
        else:
            route.continue_()

    page.route("**/queue/join*", hold)
    page.reload()
    for _ in range(PATIENCE // 50):
        if held:
            break
        page.wait_for_timeout(50)
    page.get_by_role("tab", name="img2img", exact=True).click()
    on_tab(page, "img2img")
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    page.locator("#examples button").first.wait_for(state="attached")  # the last that an opening page gets
    page.wait_for_timeout(500)
    on_tab(page, "img2img")
    expect(page.get_by_role("tab", name="img2img", exact=True)).to_have_attribute("aria-selected", "true")
