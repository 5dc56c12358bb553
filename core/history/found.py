"""Rows for what no row is known of: pictures in a folder, and a damaged database."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from core.errors import UserError
from core.history.rows import COLUMNS, RunRow, run_id
from core.images import read_recipe

log = logging.getLogger(__name__)


def found_pictures(folder: Path, known: set[str]) -> Iterator[RunRow]:
    """A row for each picture with a recipe that is not in `known`, oldest first; what they were called."""
    try:
        names = sorted(path.name for path in folder.glob("*.png") if not path.name.startswith("."))
    except OSError:
        return
    for name in names:
        if name not in known:
            with suppress(UserError, OSError):  # another program's picture, or one that is damaged
                yield _row(folder / name)


def salvaged(database: Path) -> list[RunRow]:
    """The rows that can still be read of a damaged database: stars, owners and branches are only there."""
    rows: list[RunRow] = []
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute(f"SELECT number, {', '.join(COLUMNS)} FROM runs ORDER BY number"):
            query = "SELECT name FROM pictures WHERE run = ? ORDER BY position"
            names = tuple(name for [name] in connection.execute(query, [row["number"]]))
            with suppress(UserError, ValueError, TypeError):
                rows.append(RunRow.of(row, names))
    return rows


def _row(path: Path) -> RunRow:
    recipe = read_recipe(path)
    steps = path.with_suffix(".steps.safetensors")
    return RunRow(
        id=run_id(path.name, path.read_bytes()),
        created=path.stat().st_mtime,
        names=(path.name,),
        settings=recipe.settings,
        model=recipe.model.name,
        model_sha256=recipe.model.sha256,
        steps=steps.name if steps.is_file() else None,
    )
