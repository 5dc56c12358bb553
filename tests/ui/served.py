"""The real server over the tests' fake model, in a process of its own, for tests that speak HTTP to it.

`python -m tests.ui.served FOLDER OPTIONS`: in this folder, with these PageOptions as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS_A_STEP = 0.05


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, what it said at the start, its folders, and what it complains of."""

    url: str
    said: str
    folder: Path
    temporary: Path
    log: Path


@contextmanager
def served(folder: Path, *, embedded: bool = False, **options: Any) -> Generator[Served]:
    """Serve from `folder` (its current folder) on a free port; `options` are those of PageOptions.

    embedded: on the real model that the project ships. Fails when the server does not start, and when it
    leaves anything behind.
    """
    temporary = folder.with_name(folder.name + "-temporary")
    temporary.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        options = {"port": probe.getsockname()[1], **options}
    command = [sys.executable, "-m", "tests.ui.served", str(folder), json.dumps(options), str(int(embedded))]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
    log = folder.with_name(folder.name + ".log")
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=file, text=True
        ) as server,
    ):
        try:
            said = until_served(server)
            address = re.search(r"http://127\.0\.0\.1:[0-9]+", said)
            assert address, said + log.read_text()
            [own] = temporary.glob("latentcanvas-page-*")
            yield Served(address[0], said, folder, own, log)
        finally:
            server.terminate()
            server.wait(60)
        assert not own.exists()


def until_served(server: subprocess.Popen[str]) -> str:
    """What a server says until it serves."""
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if line == "served\n":
            break
    return said


def main(folder: str, options: str, embedded: str) -> None:
    """Serve as the command does, and say when that is done."""
    from core.plugins import current
    from tests.ui.fakes import FakePipeline
    from ui import app

    def lines(*arguments: Any, **named: Any) -> list[str]:
        return [*said(*arguments, **named), "served"]

    said, app.lines = app.lines, lines
    os.chdir(folder)
    values = json.loads(options)
    for name in ("outputs", "config"):
        if name in values:
            values[name] = Path(values[name])
    load = None if int(embedded) else lambda name: FakePipeline(current.registry(), SECONDS_A_STEP)
    with contextlib.suppress(KeyboardInterrupt):  # as the command does
        app.serve(app.PageOptions(**values), load)


if __name__ == "__main__":
    main(*sys.argv[1:])
