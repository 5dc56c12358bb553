"""Runs whose keeping is killed: `python -m tests.ui.killed FOLDER` makes FOLDER/1, FOLDER/2 and so on.

In each a whole run was kept before, and then a process was killed by the system (SIGKILL) while it kept a
batch of two: in the first before its first operation on a file, in the second before its second one, until
there are no more. Each is a fork, so that torch is imported once.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = {"open", "os.link", "os.rename", "os.remove", "os.listdir", "sqlite3.connect"}
OWNER = "ann's token"


def kill_before(number: int, folder: Path) -> None:
    """From now on this process lives until its operation of this number on a file of the folder."""
    begun = 0

    def count() -> None:
        nonlocal begun
        begun += 1
        if begun == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(folder) in str(arguments[0]):
            count()

    def fsync(fd: Any) -> None:
        count()
        real(fd)

    real, os.fsync = os.fsync, fsync
    sys.addaudithook(look)


def keeper(folder: Path) -> Callable[[Path], object]:
    """Makes two runs, keeps one in `folder`, and gives what keeps the other one wherever it is told to."""
    from core.request.request import Request
    from tests.ui.fakes import FakePipeline
    from ui.service.run_store import RunStore

    pipeline = FakePipeline()

    def made(seed: int, batch: int) -> tuple[Any, Any]:
        request = Request(prompt="a red circle", steps=3, width=64, height=64, seed=seed, batch=batch)
        run = pipeline.stream(request, cancel=threading.Event())
        return run, run.result()

    first, second = made(1, 1), made(10, 2)
    RunStore(folder).keep(OWNER, None, (None, None), *first)
    return lambda other: RunStore(other).keep(OWNER, None, (None, None), *second)


def main(folder: Path) -> None:
    """Kill a process at each point."""
    before = folder / "before"
    keep = keeper(before)
    number, code = 0, signal.SIGKILL
    while code == signal.SIGKILL:
        number += 1
        outputs = folder / str(number)
        shutil.copytree(before, outputs)
        child = os.fork()
        if child == 0:
            kill_before(number, outputs)
            keep(outputs)
            os._exit(0)
        code = signal.Signals(status) if (status := os.waitpid(child, 0)[1]) else signal.SIGCONT
    print(number)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
