"""Unfinished runs, and the lock that keeps two processes out of one run's folder.

Nothing here imports torch, because the page uses this before any training.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO

from core.errors import UserError
from core.files import plain_errors

RECIPE = "recipe.json"  # the recipe of the run with all its values
FINISHED = Path("model", "README.md")  # the model's card, which is written last
LOCK = "training.lock"


def unfinished(runs: Path) -> list[Path]:
    """The folders in `runs` with a recipe and a checkpoint, but no finished model: the newest checkpoint's
    first.
    """
    newest: dict[Path, float] = {}
    with contextlib.suppress(OSError):  # no such folder, or not readable: nothing to resume
        for folder in runs.iterdir():
            saved = [path.stat().st_mtime for path in folder.glob("*.checkpoint")]
            if saved and (folder / RECIPE).is_file() and not (folder / FINISHED).is_file():
                newest[folder] = max(saved)
    return sorted(newest, key=lambda folder: newest[folder], reverse=True)


@contextlib.contextmanager
def only_one(folder: Path) -> Generator[None]:
    """Hold the lock of a run's folder. The system releases it however the process ends.

    Raises UserError if another training holds it, in this process or another.
    """
    path = folder / LOCK
    with plain_errors(path):
        file = path.open("a", encoding="utf-8")
    with file:
        if not _lock(file):
            raise UserError(f"the run {folder} is in training elsewhere: stop it there, or wait for its end.")
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        """Lock the first byte; False when someone else has it."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        """Take the lock; False if someone else has it. True on file systems without locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
