"""A server whose outputs are a small disk of its own: it can be filled, and its permissions count, even for
the administrator of this machine.

That takes Linux, with namespaces that whoever runs the tests may make; see `possible`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MEGABYTES = 8
ENTER = ["--user", "--mount", "--preserve-credentials"]
# An administrator may write anywhere; without these two only where the permissions say so.
WITHOUT = "--bounding-set=-dac_override,-dac_read_search"
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("locked", flush=True)
sys.stdin.read()
"""


def command(folder: Path, program: Sequence[str]) -> list[str]:
    """The program, with `folder` as a disk of its own; it is the same process in the end."""
    mount = f'mount -t tmpfs -o size={MEGABYTES}m none "$0" && exec setpriv {WITHOUT} "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder), *program]


@cache
def possible() -> bool:
    """Whether this machine lets us."""
    if not all(map(shutil.which, ("unshare", "setpriv", "nsenter", "mount"))):
        return False
    done = subprocess.run(command(Path("/mnt"), ["true"]), capture_output=True)
    return done.returncode == 0


class Disk:
    """The disk of a running server, from outside."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder = pid, folder
        self.path = Path(f"/proc/{pid}/root{folder}")

    @contextmanager
    def full(self, left: int = 0) -> Generator[None]:
        """No space on it, but for `left` bytes."""
        filler = self.path / "something else"
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        filler.write_bytes(bytes(free - left))
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Generator[None]:
        """Nothing may be made or deleted in it."""
        self.path.chmod(0o555)
        try:
            yield
        finally:
            self.path.chmod(0o755)

    @contextmanager
    def locked(self, *statements: str) -> Generator[None]:
        """Its history held by another process, which has done these."""
        database = str(self._folder / "history.sqlite")
        enter = ["nsenter", "--target", str(self._pid), *ENTER]
        locker = subprocess.Popen(
            [*enter, sys.executable, "-c", LOCK, database, *statements],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with locker:
            assert locker.stdout is not None
            assert locker.stdout.readline() == "locked\n"
            yield
            locker.kill()
