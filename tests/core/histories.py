"""What the tests of the history share: runs with small pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from core.files import write_numbered
from core.history import History, RunRow
from core.images import ModelRef, png_bytes
from core.request import Settings
from tests.core.recipes import RECIPE, SETTINGS

SIDE = 64


def asked(**changes: Any) -> Settings:
    """The usual settings with these changes."""
    return replace(SETTINGS, **changes)


def save(
    folder: Path, settings: Settings, *, model: ModelRef = RECIPE.model, size: int = SIDE
) -> Sequence[str]:
    """The pictures of a run, each of a colour of its own; their names."""
    names = []
    for i in range(settings.batch):
        own = settings.for_image(i)
        image = Image.new("RGB", (size, size), (own.seed * 37 % 256, own.seed * 101 % 256, 128))
        png = png_bytes(image, replace(RECIPE, settings=own, model=model))
        names.append(write_numbered(folder, png).name)
    return names


def keep(history: History, *, model: ModelRef = RECIPE.model, row: Any = None, **changes: Any) -> RunRow:
    """A run with these settings, saved and added; `row` is what `add` takes beside them."""
    settings = asked(**changes)
    names = save(history.folder, settings, model=model)
    return history.add(names=names, settings=settings, model=model, **(row or {}))
