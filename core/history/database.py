"""The history's SQLite file, opened for each read or write.

A connection lives as long as one read or one write does. So threads and processes share nothing, a file that
was deleted or set aside is noticed at once, and a killed process leaves the file to SQLite's own recovery.
Where the file system has no locks, SQLite makes a folder next to the file instead (its VFS unix-dotfile).
Every error of SQLite becomes a `UserError` of one sentence; `History` can repair after a `DamagedError`.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, TypeVar

from core.errors import UserError

T = TypeVar("T")

FORMAT = 1
LOCK = ".lock"  # ends the name of the folder that SQLite's unix-dotfile makes as a lock
ALONE = "locking_mode = EXCLUSIVE"  # the write-ahead log then needs no shared memory
WAIT_SECONDS = 3.0  # for another process that is writing
# Committed rows survive a kill; a power cut may lose the last ones, and `sync` finds their images again.
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


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
if sys.platform == "win32":

    def lock(file: IO[bytes]) -> None:
        """Every file system of Windows has locks."""

else:
    import fcntl

    def lock(file: IO[bytes]) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DamagedError(UserError):
    """The file is not a database, or its content is inconsistent."""


class UnwritableError(UserError):
    """The file or its folder is not writable."""


class Database:
    """One file. `read` also works where nothing is writable, and finds nothing where there is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._can_lock: bool | None = None  # not known before the first try

    def create(self) -> bool:
        """Make the tables if there are none; True if they were made. Raises UserError."""
        with _Explained(self.path), closing(self.connect("rwc")) as connection:
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
        """The result of `work`. Raises UserError: locked for too long, damaged, made by a newer program."""
        with _Explained(self.path), closing(self._reader()) as connection:
            return work(connection)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do all of `work` or nothing. Raises UserError as `read` does, or where the file is read-only."""
        self.create()
        with _Explained(self.path), closing(self.connect("rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def check(self) -> None:
        """Check the whole file. Raises DamagedError if it is inconsistent."""

        def sound(connection: sqlite3.Connection) -> None:
            [[verdict]] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")

        self.read(sound)

    def set_aside(self) -> Path | None:
        """Give a damaged file another name in its folder; None where the file is sound.

        Then another process has already made a new one, or only the index of words is damaged and is rebuilt
        here. The write-ahead log is moved first: a new file must never find the log of an old one.
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
            raise UnwritableError(f"{self.path}: is damaged and cannot be renamed here; rename it") from error
        return aside

    def _reader(self) -> sqlite3.Connection:
        """A connection to the tables; to an empty database in memory where there is no file."""
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
        """Read-only files need immutable mode: SQLite reads its log only where it may write."""
        try:
            return self._probed("rw")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
            return self._probed("ro&immutable=1")

    def _probed(self, mode: str) -> sqlite3.Connection:
        connection = self.connect(mode)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, mode: str) -> sqlite3.Connection:
        """A connection in one of SQLite's modes: ro, rw or rwc."""
        where, pragmas = f"{self.path.absolute().as_uri()}?mode={mode}", PRAGMAS
        if self._can_lock is None:
            self._can_lock = can_lock(self.path.parent)
        if self._can_lock is False:
            where, pragmas = f"{where}&vfs=unix-dotfile", (ALONE, *PRAGMAS)
        connection = sqlite3.connect(where, timeout=WAIT_SECONDS, isolation_level=None, uri=True)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


class _Explained:
    """Turns SQLite's errors inside into UserErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise explained(self._path, error) from error


def can_lock(folder: Path) -> bool | None:
    """Whether files in this folder can be locked, which some network file systems refuse; None if that cannot
    be tried.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            lock(file)
    except OSError as error:
        return False if error.errno in _NO_LOCKS else None
    return True


def explained(path: Path, error: sqlite3.Error) -> UserError:
    """One sentence for an error of SQLite, by its message: Python before 3.11 has no error codes."""
    said = str(error).lower()
    if "locked" in said or "busy" in said:
        lock = path.with_name(path.name + LOCK)
        left = f", or delete {lock} if there is none" if lock.exists() else ""
        return UserError(f"{path}: is locked by another program; close that, or try again in a moment{left}")
    if "full" in said:
        return UserError(f"{path}: there is no space left on the disk; free some and try again")
    if "readonly" in said or "unable to open" in said:
        return UnwritableError(f"{path}: is not writable; change its permissions or choose another folder")
    damaged = "malformed" in said or "no such" in said  # a table or column that this format has
    if isinstance(error, sqlite3.OperationalError) and not damaged:
        return UserError(f"{path}: SQLite reports {said!r}; try again, or check its folder and disk")
    return DamagedError(f"{path}: is damaged; rename it, and the history is rebuilt from the images")


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
    """Readers then never wait for a writer. SQLite itself does not wait for another process here."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)
