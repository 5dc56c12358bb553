"""The pipeline that the commands' tests load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import core.plugins.current
from tests.ui.commandline import LoadedPipeline


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[LoadedPipeline]]:
    """The fake in place of core.inference.pipeline, in an empty current folder."""
    monkeypatch.setitem(sys.modules, "core.inference.pipeline", SimpleNamespace(Pipeline=LoadedPipeline))
    monkeypatch.setattr(LoadedPipeline, "loaded", [])
    monkeypatch.setattr(LoadedPipeline, "parts", [])
    monkeypatch.setattr(LoadedPipeline, "error", None)
    monkeypatch.chdir(tmp_path)
    core.plugins.current.configure()
    yield LoadedPipeline
    core.plugins.current.configure()
