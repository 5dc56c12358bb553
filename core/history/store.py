"""The history: save, find and delete runs.

Files come first: a run's images and steps are written before its row, and deleted before it. So a killed
process leaves at worst an image without a row, and `sync` adds one. A lost database is rebuilt from the
recipes in the images.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from core.checks import shown
from core.errors import UserError
from core.files import plain_errors
from core.history import export
from core.history.database import DamagedError, Database, UnwritableError
from core.history.queries import SELECT, insert, insert_found, of_ids, rows_of
from core.history.recovery import found_pictures, salvaged
from core.history.rows import RunRow, check_name, run_id
from core.history.search import Filter, clean
from core.history.thumbnails import thumbnail
from core.images.saved_inputs import forget_inputs
from core.recipes.recipe import ModelRef
from core.request.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)

FILE = "history.sqlite"
_GONE = "this run is not in the history; it was deleted, or it belongs to someone else"


class History:
    """The runs whose images are in `folder`. Any number of threads and processes may use one at once.

    Making one never fails. Where the folder is not writable, reading still works (from the images if there is
    no database), and `trouble` is the error that every write raises. A caller that names an `owner` finds,
    changes and deletes only that owner's runs; other ids are treated as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble = ""
        self._database = Database(folder / FILE)
        self._open()

    # Finding.

    def get(self, run: str, owner: str | None = None) -> RunRow:
        """The run with this id. Raises UserError when it is gone."""

        def work(connection: sqlite3.Connection) -> list[RunRow]:
            condition, values = of_ids([run], owner)
            return rows_of(connection, f"{SELECT} WHERE {condition}", values, strict=True)

        rows = self._read(work)
        if not rows:
            raise UserError(_GONE)
        return rows[0]

    def named(self, name: str, owner: str | None = None) -> RunRow:
        """The run that a person means: by its id, the first characters of it, or its image's name or number.

        Raises UserError when there is none, or more than one.
        """
        condition, values = Filter(owner=owner).sql()
        query = f"""{SELECT} WHERE {condition} AND (substr(id, 1, ?) = ? OR number IN (
            SELECT run FROM pictures WHERE name IN (?, ? || '.png', printf('%06d.png', ?))))"""
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 10 else -1
        values = [*values, max(len(name), 4), *[clean(name)] * 3, number]
        rows = self._read(lambda connection: rows_of(connection, query, values))
        if not rows:
            raise UserError(f"run {shown(name)}: the history has no run with this id or image")
        if len(rows) > 1:
            raise UserError(f"run {shown(name)}: several ids start like this; give more of the id")
        return rows[0]

    def search(self, text: str = "", *, limit: int = 60, offset: int = 0, **filters: Any) -> list[RunRow]:
        """The matching runs, newest first. Text and filters are those of `Filter`."""
        condition, values = Filter(text=text, **filters).sql()
        query = f"{SELECT} WHERE {condition} ORDER BY created DESC, number DESC LIMIT ? OFFSET ?"
        return self._read(lambda connection: rows_of(connection, query, [*values, limit, offset]))

    def count(self, text: str = "", **filters: Any) -> int:
        """How many runs match."""
        condition, values = Filter(text=text, **filters).sql()
        query = f"SELECT count(*) FROM runs WHERE {condition}"
        return int(self._read(lambda connection: connection.execute(query, values).fetchone()[0]))

    def models(self, owner: str | None = None) -> list[str]:
        """The models that runs were made with, by name."""
        return self._distinct("model", owner)

    def samplers(self, owner: str | None = None) -> list[str]:
        """The samplers that runs were made with, by name."""
        return self._distinct("sampler", owner)

    def branches(self, run: str, owner: str | None = None) -> list[RunRow]:
        """The runs that branched from this one, oldest first."""
        condition, values = Filter(owner=owner).sql()
        query = f"{SELECT} WHERE parent = ? AND {condition} ORDER BY created, number"
        return self._read(lambda connection: rows_of(connection, query, [clean(run), *values]))

    def tree(self, run: str, owner: str | None = None) -> list[RunRow]:
        """The whole tree: all branches of the first known ancestor, oldest first."""
        condition, values = Filter(owner=owner).sql()
        query = f"""
            WITH RECURSIVE
            above (id, height) AS (
                SELECT ?, 0 UNION
                SELECT parent, height + 1 FROM runs JOIN above USING (id)
                WHERE parent IS NOT NULL AND height < 1000),
            family (id) AS (
                SELECT id FROM (SELECT id FROM above ORDER BY height DESC LIMIT 1) UNION
                SELECT runs.id FROM runs JOIN family ON runs.parent = family.id)
            {SELECT} WHERE id IN family AND {condition} ORDER BY created, number"""
        return self._read(lambda connection: rows_of(connection, query, [clean(run), *values]))

    # Images.

    def path(self, name: str) -> Path:
        """The path of a run's image or steps file. Raises UserError for any other name."""
        return self.folder / check_name(name)

    def thumbnails(self, run: str, owner: str | None = None) -> list[bytes]:
        """A JPEG of each image, 256 pixels at most; empty for a missing one."""
        condition, values = of_ids([run], owner)
        query = (
            "SELECT name, thumbnail FROM pictures JOIN runs ON run = number "
            f"WHERE {condition} ORDER BY position"
        )
        return [small for _, small in self._thumbnails(query, values)]

    def covers(self, runs: Iterable[str], owner: str | None = None) -> dict[str, bytes]:
        """The JPEG of each run's first image, by the run's id; empty for a missing one."""
        condition, values = of_ids(runs, owner)
        query = (
            "SELECT name, thumbnail, id FROM pictures JOIN runs ON run = number "
            f"WHERE position = 0 AND {condition}"
        )
        return {row["id"]: small for row, small in self._thumbnails(query, values)}

    # Changing.

    def add(
        self,
        *,
        names: Sequence[str],
        settings: Settings,
        model: ModelRef,
        steps: str | None = None,
        evals: int = 0,
        seconds: float = 0.0,
        stopped: bool = False,
        owner: str = "",
        parent: str | None = None,
        parent_step: int | None = None,
        created: float | None = None,
    ) -> RunRow:
        """Save a run whose files (names in the folder) exist. `RunRow` describes the fields.

        It replaces a row that `sync` made for one of these images in the meantime. Raises UserError, and
        then nothing is saved.
        """
        row = RunRow(
            id=self._id(names),
            created=time.time() if created is None else created,
            names=tuple(names),
            settings=settings,
            model=model.name,
            model_sha256=model.sha256,
            steps=steps,
            evals=evals,
            seconds=seconds,
            stopped=stopped,
            owner=owner,
            parent=parent,
            parent_step=parent_step,
        )
        small = [thumbnail(self.path(name)) for name in names]
        self._write(lambda connection: insert(connection, row, small))
        return row

    def star(self, run: str, on: bool = True, owner: str | None = None) -> None:
        """Star or unstar a run. Raises UserError."""
        condition, values = of_ids([run], owner)
        query = f"UPDATE runs SET starred = ? WHERE {condition}"
        if not self._write(lambda connection: connection.execute(query, [on, *values]).rowcount):
            raise UserError(_GONE)

    def delete(self, runs: Iterable[str], owner: str | None = None) -> int:
        """Delete runs with their images, steps, and inputs that no other run uses; returns how many.

        Their branches stay. Raises UserError when a file cannot be deleted, and then all rows stay.
        """
        condition, values = of_ids(runs, owner)
        if self.trouble:
            raise UnwritableError(self.trouble)
        rows = self._read(lambda connection: rows_of(connection, f"{SELECT} WHERE {condition}", values))
        for row in rows:
            for name in (*row.names, *([row.steps] if row.steps else [])):
                with plain_errors(self.path(name)):
                    self.path(name).unlink(missing_ok=True)
        forget_inputs(self.folder, self._inputs_of(rows))
        condition, values = of_ids((row.id for row in rows), owner)  # without those that could not be read
        query = f"DELETE FROM runs WHERE {condition}"
        return int(self._write(lambda connection: connection.execute(query, values).rowcount))

    def export_zip(self, runs: Iterable[str], path: Path, owner: str | None = None) -> int:
        """Write the runs' images, byte for byte, and a list of them into a zip file; returns its size.

        The file is complete or not written at all. Raises UserError.
        """
        condition, values = of_ids(runs, owner)
        query = f"{SELECT} WHERE {condition} ORDER BY created, number"
        rows = self._read(lambda connection: rows_of(connection, query, values))
        return export.write_zip(self.folder, rows, path)

    def sync(self) -> int:
        """Add a row for each image in the folder that has none; returns how many. Raises UserError."""
        known = self._read(
            lambda connection: {name for [name] in connection.execute("SELECT name FROM pictures")}
        )
        rows = list(found_pictures(self.folder, known))

        def work(connection: sqlite3.Connection) -> int:
            return sum(insert_found(connection, row) for row in rows)

        return self._write(work) if rows else 0

    # The database.

    def _open(self) -> None:
        try:
            with suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
            if self._database.create():
                self.sync()
        except DamagedError:
            self._rebuild()
        except UnwritableError as error:
            self._read_only(str(error))
        except UserError as error:  # locked, full or newer: the next call will report it
            log.warning("%s", error)

    def _read_only(self, trouble: str, *, damaged: bool = False) -> None:
        """Continue read-only. If the database is unusable, a temporary one is made from the images."""
        log.warning("the history can only be read: %s", trouble)
        self.trouble = trouble
        if damaged or not self._database.path.exists():
            elsewhere = tempfile.mkdtemp(prefix="latentcanvas-")
            weakref.finalize(self, shutil.rmtree, elsewhere, ignore_errors=True)
            self._database = Database(Path(elsewhere) / FILE)
            self._database.create()
            rows = list(found_pictures(self.folder, set()))
            self._database.write(lambda connection: sum(insert_found(connection, row) for row in rows))

    def _rebuild(self) -> None:
        """Set a damaged database aside; rebuild from its readable rows and the images."""
        try:
            aside = self._database.set_aside()
        except UnwritableError as error:
            self._read_only(str(error), damaged=True)
            return
        if aside is None:
            return
        log.warning("%s was damaged: it is saved as %s and rebuilt", self._database.path, aside.name)
        rows = salvaged(aside)
        self._database.write(lambda connection: sum(insert_found(connection, row) for row in rows))
        self.sync()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._database.read(work)
        except DamagedError:
            self._rebuild()
            return self._database.read(work)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.trouble:
            raise UnwritableError(self.trouble)
        try:
            return self._database.write(work)
        except DamagedError:
            self._rebuild()
            return self._database.write(work)

    def _id(self, names: Sequence[str]) -> str:
        try:
            return run_id(names[0], self.path(names[0]).read_bytes()) if names else ""
        except OSError as error:
            raise UserError(f"{self.path(names[0])}: does not exist, so its run cannot be saved") from error

    def _inputs_of(self, rows: Sequence[RunRow]) -> set[str]:
        """The hashes of the inputs that only these runs use."""
        settings = [row.settings for row in rows]
        hashes = {sha256 for one in settings for sha256 in (one.image_sha256, one.mask_sha256) if sha256}
        query = """SELECT DISTINCT value FROM runs, json_each(?) WHERE instr(settings, value)
            AND runs.id NOT IN (SELECT value FROM json_each(?))"""
        values = [json.dumps(list(hashes)), json.dumps([row.id for row in rows])]
        return hashes - {used for [used] in self._read(lambda c: c.execute(query, values).fetchall())}

    def _distinct(self, column: str, owner: str | None) -> list[str]:
        condition, values = Filter(owner=owner).sql()
        query = f"SELECT DISTINCT {column} FROM runs WHERE {condition} ORDER BY {column}"
        return self._read(lambda connection: [name for [name] in connection.execute(query, values)])

    def _thumbnails(self, query: str, values: Sequence[Any]) -> list[tuple[sqlite3.Row, bytes]]:
        """Each row with its thumbnail; missing ones are made, and saved if possible."""

        def work(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()

        found, made = [], []
        for row in self._read(work):
            small = row["thumbnail"]
            if small is None:
                small = thumbnail(self.path(row["name"])) or b""
                made.append((small, row["name"]))
            found.append((row, small))
        kept = [pair for pair in made if pair[0]]
        if kept and not self.trouble:
            with suppress(UserError):  # they are made again the next time
                update = "UPDATE pictures SET thumbnail = ? WHERE name = ?"
                self._write(lambda connection: connection.executemany(update, kept))
        return found
