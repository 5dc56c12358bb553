"""Recover rows: from images in a folder that have none, and from a damaged database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from core.checks import check_flag, check_number, check_whole
from core.errors import UserError
from core.history.database import Database
from core.history.rows import COLUMNS, PICTURE, STEPS, RunRow, run_id
from core.recipes.png import read_recipe
from core.recipes.recipe import Recipe
from core.request.settings import Settings
from core.weights.readers.mapped_file import MappedFile
from core.weights.readers.safetensors_file import read_safetensors

_KEY = "latentcanvas"
_MOST = 10**9


def found_pictures(folder: Path, known: set[str]) -> Iterator[RunRow]:
    """A row for each run whose images have a recipe and are not in `known`, by name.

    Images of one batch are one run where the first one's steps file says so, else each is its own run.
    """
    try:
        names = sorted(path.name for path in folder.glob(f"*{PICTURE}") if not path.name.startswith("."))
    except OSError:
        return
    recipes: dict[str, Recipe] = {}
    for name in names:
        if name not in known:
            with suppress(UserError, OSError):  # another program's image, or one that is damaged
                recipes[name] = read_recipe(folder / name)
    taken: set[str] = set()
    for name in recipes:
        if name not in taken:
            with suppress(UserError, OSError):
                row = _row(folder / name, recipes)
                taken.update(row.names)
                yield row


def salvaged(database: Path) -> list[RunRow]:
    """The rows that can still be read from a damaged database: only it holds stars, owners and branches."""
    rows: list[RunRow] = []
    with suppress(sqlite3.Error), closing(Database(database).connect("rw")) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute(f"SELECT number, {', '.join(COLUMNS)} FROM runs ORDER BY number"):
            query = "SELECT name FROM pictures WHERE run = ? ORDER BY position"
            names = tuple(name for [name] in connection.execute(query, [row["number"]]))
            with suppress(UserError):
                rows.append(RunRow.of(row, names))
    return rows


def _row(path: Path, recipes: Mapping[str, Recipe]) -> RunRow:
    """The run whose first image this is."""
    recipe, steps = recipes[path.name], path.with_suffix(STEPS)
    more = _said(steps, recipe.settings)
    settings = more.get("settings", recipe.settings)
    names = _batch(path.name, settings, recipes)
    own: dict[str, Any] = {"stopped": recipe.settings.stop_after is not None} | more
    own["settings"] = settings if len(names) == settings.batch else recipe.settings
    return RunRow(
        id=run_id(path.name, path.read_bytes()),
        created=max(path.stat().st_mtime, 0.0),
        names=names,
        steps=steps.name if steps.is_file() else None,
        model=recipe.model.name,
        model_sha256=recipe.model.sha256,
        **own,
    )


def _batch(first: str, settings: Settings, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """The images of a batch: those that follow with its settings."""
    names = list(recipes)
    following = names[names.index(first) :][: settings.batch]
    same = [recipes[name].settings == settings.for_image(i) for i, name in enumerate(following)]
    return tuple(following) if all(same) and len(following) == settings.batch else (first,)


def _said(steps: Path, settings: Settings) -> dict[str, Any]:
    """The run's values in a steps file, if it belongs to an image of these settings."""
    try:
        values = json.loads(_notes(steps))
        whole = Settings.from_dict(values["settings"])
        if whole.for_image(0) != settings:
            return {}
        evals, seconds = values["steps"][-1][2], sum(values["seconds"].values())
        check_whole("evals", evals, 0, _MOST)
        check_number("seconds", seconds, 0, _MOST)
        check_flag("stopped", values["stopped"])
        return {"settings": whole, "stopped": values["stopped"], "evals": evals, "seconds": float(seconds)}
    except (OSError, UserError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}  # the image is enough; opening the steps file will report its error


def _notes(steps: Path) -> str:
    """The JSON in a steps file (core/inference/trajectory_file.py), read without torch."""
    _, metadata = read_safetensors(MappedFile(steps))
    return metadata[_KEY]
