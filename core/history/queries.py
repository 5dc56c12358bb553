"""Write and read runs in the tables, as `RunRow`."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from core.errors import UserError
from core.history.rows import COLUMNS, SEARCHED, RunRow, settings_text
from core.history.search import Filter

log = logging.getLogger(__name__)

SELECT = f"SELECT number, {', '.join(COLUMNS)} FROM runs"
_INSERT = (
    f"INSERT INTO runs ({', '.join((*COLUMNS, *SEARCHED))}) "
    f"VALUES ({', '.join(f':{name}' for name in (*COLUMNS, *SEARCHED))})"
)


def of_ids(runs: Iterable[str], owner: str | None) -> tuple[str, list[Any]]:
    """(condition, values) for these ids, as one JSON value: SQL limits the number of values."""
    condition, values = Filter(owner=owner).sql()
    wanted = json.dumps([str(run) for run in runs])
    return f"id IN (SELECT value FROM json_each(?)) AND {condition}", [wanted, *values]


def rows_of(
    connection: sqlite3.Connection, query: str, values: Sequence[Any], *, strict: bool = False
) -> list[RunRow]:
    """The runs of a query. One with settings of a newer program is left out, or raises with `strict`."""
    connection.row_factory = sqlite3.Row
    names = "SELECT name FROM pictures WHERE run = ? ORDER BY position"
    rows = []
    for row in connection.execute(query, values).fetchall():
        pictures = connection.execute(names, [row["number"]]).fetchall()
        try:
            rows.append(RunRow.of(row, tuple(name for [name] in pictures)))
        except UserError as error:
            if strict:
                raise UserError(f"this run of the history cannot be read ({error})") from error
            log.warning("run %s of the history cannot be read: %s", row["id"], error)
    return rows


def insert(connection: sqlite3.Connection, row: RunRow, thumbnails: Sequence[bytes | None] = ()) -> None:
    """Add a run; it replaces any run that had its images."""
    connection.execute("DELETE FROM runs WHERE id = ?", [row.id])
    earlier: set[tuple[int]] = set()
    for name in row.names:
        earlier |= set(connection.execute("SELECT run FROM pictures WHERE name = ?", [name]))
        connection.execute("DELETE FROM pictures WHERE name = ?", [name])
    unless = "(SELECT count(*) FROM pictures WHERE run = number)"
    connection.executemany(f"DELETE FROM runs WHERE number = ? AND NOT {unless}", earlier)
    number = connection.execute(_INSERT, row.values()).lastrowid
    padded = [*thumbnails, *[None] * (len(row.names) - len(thumbnails))]
    pictures = [(name, number, i, padded[i]) for i, name in enumerate(row.names)]
    connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", pictures)


def insert_found(connection: sqlite3.Connection, row: RunRow) -> bool:
    """Add a run that `sync` found, unless its image has been added in the meantime.

    Its parent is found by the settings it branched from.
    """
    known = "SELECT 1 FROM pictures WHERE name = ? UNION SELECT 1 FROM runs WHERE id = ?"
    if connection.execute(known, [row.names[0], row.id]).fetchone():
        return False
    branch = row.settings.branch
    if branch is not None and row.parent is None:
        parent = "SELECT id FROM runs WHERE settings = ? ORDER BY created DESC, number DESC LIMIT 1"
        for [found] in connection.execute(parent, [settings_text(branch.settings)]).fetchall():
            row = replace(row, parent=found, parent_step=branch.step)
    insert(connection, row)
    return True
