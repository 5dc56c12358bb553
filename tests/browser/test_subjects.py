"""What the model can paint: behind a link at the prompt, and from there into the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, Site, serving, sync_api

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]
expect = sync_api.expect
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("config"), fake=True) as site:
        yield site


def test_subjects_are_shown_by_a_link_and_go_into_the_prompt(page: Any) -> None:
    link = page.get_by_role("button", name="What this model can paint")
    prompt, subjects = page.locator("#prompt textarea"), page.locator(".lc-subjects")
    expect(subjects).to_be_hidden()
    link.click()
    tiles = subjects.locator("button")
    expect(tiles).to_have_count(3)
    expect(tiles.nth(2).locator("span")).to_have_css("background-position", "0px 100%")
    expected = ("a red circle", "a red circle and a star", "a red circle and a star on a hill")
    for tile, words in enumerate(expected):
        tiles.nth(tile).click()
        expect(prompt).to_have_value(words)
    link.click()
    expect(subjects).to_be_hidden()
