"""Unfinished runs, and the lock that keeps two processes out of one run's folder.

Nothing here imports torch, because the page uses this before any training.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import UserError
from core.files import plain_errors

RECIPE = "recipe.json"  # the recipe of the run with all its values
FINISHED = Path("model", "README.md")  # the model's card, which is written last
LOCK = "training.lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks: nothing to hold


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
    lock = FileLock(folder / LOCK, timeout=0)
    with plain_errors(folder / LOCK):
        try:
            lock.acquire()
        except Timeout:
            problem = f"the run {folder} is in training elsewhere: stop it there, or wait for its end."
            raise UserError(problem) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        lock.release()
