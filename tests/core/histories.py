"""What the tests of the history share: runs with small pictures."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from core.files import write_numbered
from core.history import History, RunRow
from core.history.database import Database
from core.history.queries import insert
from core.recipes.png import png_bytes
from core.recipes.recipe import ModelRef
from core.request.settings import Settings
from tests.core.recipes import RECIPE, SETTINGS

SIDE = 64
MANY = 5000
WORDS = ("red", "blue", "house", "moon", "lighthouse", "snow", "hill", "boat", "night", "sun", "forest")


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


def execute(history: History, statement: str, *values: object) -> list[Any]:
    """What another program does to the database; the rows that it gives."""
    with closing(sqlite3.connect(history.folder / "history.sqlite", isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def many(folder: Path, count: int = MANY) -> Path:
    """So many runs with prompts of 20 words and thumbnails of 8 kB, as 512x512 pictures have; no pictures."""
    chance = random.Random(0)
    small = chance.randbytes(8192)

    def row(i: int) -> RunRow:
        prompt = f"{' '.join(chance.choices(WORDS, k=20))} number{i}"
        return RunRow(
            id=f"{i:016x}",
            created=1e9 + i,
            names=(f"{i:06d}.png",),
            settings=asked(prompt=prompt, negative="blurry", seed=i, sampler=chance.choice(["ddim", "heun"])),
            model=chance.choice(["tiny", "sd15"]),
            model_sha256="0" * 64,
            owner=chance.choice(["", "guest"]),
        )

    rows = [row(i) for i in range(count)]

    Database(folder / "history.sqlite").create()
    with closing(sqlite3.connect(folder / "history.sqlite")) as connection, connection:
        for row in rows:
            insert(connection, row, [small])
    return folder
