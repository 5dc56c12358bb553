"""The page is there soon: after little more than what importing Gradio takes."""

from __future__ import annotations

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("what a process has used is read from /proc", allow_module_level=True)

from tests.ui.first_load import first_load, importing_gradio


@pytest.mark.slow
def test_the_page_is_there_soon() -> None:
    importing_gradio()
    _, alone = importing_gradio()
    load = first_load()
    assert load.cpu < 2 * alone
    assert load.page <= load.model
