"""What all tests share: a clean environment, and skips for what a machine may lack."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.strangers import install as install  # a fixture
from ui.commands.checks import BROWSERS

# `test` runs a process of tests on each core: with more threads they would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
assert "torch" not in sys.modules, "it reads the number of threads when it is imported"
# Or each gr.Blocks of a test asks for Gradio's newest version.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser or an accelerator where there is none."""
    _skip(items, "browser", "no Chromium on this machine", there=any(map(shutil.which, BROWSERS)))
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        _skip(items, "gpu", "no accelerator on this machine", there=torch.cuda.is_available())


@pytest.fixture(scope="module", autouse=True)
def _what_stays() -> Iterator[None]:
    """What a file leaves behind, imports above all: looking there for garbage takes a third of a second."""
    yield
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def _skip(items: list[pytest.Item], marker: str, reason: str, *, there: bool) -> None:
    if not there:
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own variables must not change what is tested."""
    for name in ("LATENTCANVAS_LOAD_PLUGINS", "GRADIO_SERVER_PORT", "GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.delenv(name, raising=False)
