"""The file behind the history: SQLite, opened anew for each piece of work.

A connection lives as long as one read or one write does. So threads and processes share nothing, a file that
was deleted or set aside is noticed at once, and whoever is killed leaves the file to SQLite's own recovery.
Every error of SQLite becomes a `UserError` of one sentence; `DamagedError` is one that `History` can mend.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from core.errors import UserError

T = TypeVar("T")

FORMAT = 1
WAIT_SECONDS = 3.0  # for another process that is writing
# What is committed survives a kill; a power cut may cost the last rows, and `sync` finds their pictures.
PRAGMAS = ("foreign_keys = ON", "synchronous = NORMAL")

# `words` indexes the text of `runs` without a copy of it (https://www.sqlite.org/fts5.html, section 4.4.3).
SCHEMA = (
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created REAL NOT NULL,
        prompt TEXT NOT NULL,
        negative TEXT NOT NULL,
        settings TEXT NOT NULL,
        sampler TEXT NOT NULL,
        model TEXT NOT NULL,
        model_sha256 TEXT NOT NULL,
        evals INTEGER NOT NULL,
        seconds REAL NOT NULL,
        stopped INTEGER NOT NULL,
        starred INTEGER NOT NULL,
        owner TEXT NOT NULL,
        steps TEXT,
        parent TEXT,
        parent_step INTEGER)""",
    "CREATE INDEX runs_by_time ON runs (created DESC, number DESC)",
    "CREATE INDEX runs_by_parent ON runs (parent)",
    """CREATE TABLE pictures (
        name TEXT PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        thumbnail BLOB)""",
    "CREATE INDEX pictures_of_run ON pictures (run, position)",
    """CREATE VIRTUAL TABLE words USING fts5 (
        prompt, negative, content = 'runs', content_rowid = 'number',
        tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3')""",
    """CREATE TRIGGER runs_added AFTER INSERT ON runs BEGIN
        INSERT INTO words (rowid, prompt, negative) VALUES (new.number, new.prompt, new.negative);
    END""",
    """CREATE TRIGGER runs_deleted AFTER DELETE ON runs BEGIN
        INSERT INTO words (words, rowid, prompt, negative)
        VALUES ('delete', old.number, old.prompt, old.negative);
    END""",
    f"PRAGMA user_version = {FORMAT}",
)


class DamagedError(UserError):
    """The file is no database, or one whose content does not fit together."""


class UnwritableError(UserError):
    """The file or its folder may not be written."""


class Database:
    """One file. `read` works where nothing may be written, and finds nothing where there is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> bool:
        """Make the tables where there are none yet; True if that was so. Raises UserError."""
        with _Explained(self.path), closing(self._connect("rwc")) as connection:
            if _format(connection, self.path):
                return False
            _use_wal(connection)
            connection.execute("BEGIN IMMEDIATE")
            if _format(connection, self.path):  # another process was quicker
                return False
            _make_tables(connection)
            connection.execute("COMMIT")
            return True

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` finds. Raises UserError: locked for too long, damaged, made by a newer program."""
        with _Explained(self.path), closing(self._reader()) as connection:
            return work(connection)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do all of `work` or nothing. Raises UserError as `read` does, and where nothing can be written."""
        self.create()
        with _Explained(self.path), closing(self._connect("rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def check(self) -> None:
        """Read all of the file. Raises DamagedError if it does not fit together."""

        def sound(connection: sqlite3.Connection) -> None:
            [[verdict]] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")

        self.read(sound)

    def set_aside(self) -> Path | None:
        """Give a damaged file another name in its folder; None where the file is sound.

        Then another process has made a new one already, or the damage is in the index of words alone: that is
        made anew here. The log beside the file goes first: a new file must never find the log of an old one.
        """
        with suppress(UserError):
            self.check()
            self.write(lambda connection: connection.execute("INSERT INTO words (words) VALUES ('rebuild')"))
            return None
        when = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        aside = self.path.with_name(f"{self.path.stem}.damaged-{when}.sqlite")
        try:
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + ending).replace(aside.with_name(aside.name + ending))
        except OSError as error:
            raise UnwritableError(f"{self.path}: is damaged, and may not be renamed; rename it") from error
        return aside

    def _reader(self) -> sqlite3.Connection:
        """A connection that finds the tables; those of an empty database in memory where there is no file."""
        connection = self._readable() if os.path.exists(self.path) else _empty()
        try:
            if _format(connection, self.path):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return _empty()

    def _readable(self) -> sqlite3.Connection:
        """SQLite reads its own log only where it may write, unless it is told that nobody else is there."""
        try:
            return self._probed("rw")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
            return self._probed("ro&immutable=1")

    def _probed(self, mode: str) -> sqlite3.Connection:
        connection = self._connect(mode)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        where = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(where, timeout=WAIT_SECONDS, isolation_level=None, uri=True)
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


class _Explained:
    """What SQLite raises inside becomes a UserError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise explained(self._path, error) from error


def explained(path: Path, error: sqlite3.Error) -> UserError:
    """One sentence for what SQLite said. Its error codes are not there before Python 3.11; its words are."""
    said = str(error).lower()
    if "locked" in said or "busy" in said:
        return UserError(f"{path}: is locked by another program; close that, or try again in a moment")
    if "full" in said:
        return UserError(f"{path}: there is no space left on the disk; free some and try again")
    if "readonly" in said or "unable to open" in said:
        return UnwritableError(f"{path}: may not be written; change its permissions or choose another folder")
    damaged = "malformed" in said or "no such" in said  # a table or column that this format has
    if isinstance(error, sqlite3.OperationalError) and not damaged:
        return UserError(f"{path}: SQLite says {said!r}; try again, or look at its folder and disk")
    return DamagedError(f"{path}: is damaged; rename it, and the history is made anew from the pictures")


def _format(connection: sqlite3.Connection, path: Path) -> int:
    """The format of the tables, 0 where there are none. Raises UserError for a newer one."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise UserError(f"{path}: was made by a newer LatentCanvas; update this one")
    return int(version)


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _make_tables(connection)
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers then never wait for a writer. Here SQLite does not wait by itself for who does the same."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)
