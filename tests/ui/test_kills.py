"""Whoever is killed (SIGKILL) in mid-run or mid-save leaves nothing broken, and loses nothing of before."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from core.history import History
from core.inference.trajectory import Trajectory
from core.recipes.png import read_recipe
from tests.ui.killed import OWNER
from tests.ui.served import ROOT, SECONDS_A_STEP, until_served

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes end in other ways here")


def whole(outputs: Path) -> dict[str, bytes]:
    """The pictures in the folder; fails if any file is broken, or is none that may be there."""
    pictures = {}
    for path in outputs.iterdir():
        if path.suffix == ".png":
            Image.open(path).load()
            read_recipe(path)
            pictures[path.name] = path.read_bytes()
        elif path.name.endswith(".steps.safetensors"):
            steps = Trajectory.open(path)
            assert steps.state(len(steps.steps)).isfinite().all()
            assert path.with_name(path.name.split(".")[0] + ".png").exists()
        elif path.name.startswith("."):
            assert path.name.startswith(".latentcanvas-")
            assert path.suffix == ".tmp"
        else:
            assert path.name.startswith("history.sqlite")
    return pictures


def test_a_kill_before_any_operation_of_a_save(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ui.killed", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 20
    first = (tmp_path / "before" / "000001.png").read_bytes()
    history = History(tmp_path / "before")
    [row] = history.search()
    found = []
    for point in range(1, points + 1):
        outputs = tmp_path / str(point)
        pictures = whole(outputs)
        assert pictures.pop("000001.png") == first
        history = History(outputs)
        assert history.get(row.id) == row
        history.sync()
        rows = history.search()
        assert {name for one in rows for name in one.names} == {"000001.png", *pictures}
        found.append((len(pictures), len(rows)))
        for one in rows:
            assert one.steps is None or len(Trajectory.open(outputs / one.steps).steps) == 3
    # Nothing yet, one of two pictures, both of them, and from the file of steps on they are one run again.
    assert list(dict.fromkeys(found)) == [(0, 1), (1, 2), (2, 3), (2, 2)]
    assert history.search(limit=1)[0].owner == OWNER  # the last one lived


# The real server.


@dataclass(frozen=True)
class Life:
    """A server that will be killed."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, name: str, **values: Any) -> str:
        """Call an endpoint; the address of its answers."""
        route = f"{self.url}/gradio_api/call/v2/{name}"
        event = httpx.post(route, json=values, timeout=60, trust_env=False)
        return f"{self.url}/gradio_api/call/{name}/{event.raise_for_status().json()['event_id']}"

    def answer(self, name: str, **values: Any) -> Any:
        """The first answer of an endpoint."""
        with httpx.stream("GET", self.ask(name, **values), timeout=60, trust_env=False) as lines:
            return next(json.loads(line[6:]) for line in lines.iter_lines() if line.startswith("data: "))[0]

    def until_step(self, number: int, **values: Any) -> None:
        """Begin a run, and wait for this step of it."""
        with httpx.stream("GET", self.ask("txt2img", **values), timeout=120, trust_env=False) as lines:
            for line in lines.iter_lines():
                if line.startswith("data: ") and json.loads(line[6:])[0]["step"] >= number:
                    return
        pytest.fail("it ended before")

    def names(self) -> set[str]:
        """The pictures that the history knows."""
        return {name for run in self.answer("history", limit=500) for name in run["names"]}


@contextmanager
def life(folder: Path) -> Generator[Life]:
    """Serve from `folder` on the small model, and kill."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.ui.served", str(folder), json.dumps({"port": port}), "0"]
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder.parent),
    }
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            until_served(server)
            yield Life(f"http://127.0.0.1:{port}", server)
        finally:
            server.send_signal(signal.SIGKILL)


def found_again(server: Life, names: set[str]) -> None:
    """At its start a server finds what the one before it left without a row."""
    deadline = time.monotonic() + 60
    while server.names() != names:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lives(tmp_path: Path, kills: int) -> None:
    """The second is killed in a long run, the others while they keep one small run after the other."""
    chance = random.Random()
    small = {"prompt": "a red circle", "width": 64, "height": 64, "previews": False}
    folder, outputs = tmp_path / "served", tmp_path / "served" / "outputs"
    folder.mkdir()
    before: dict[str, bytes] = {}
    for number in range(kills):
        with life(folder) as server:
            found_again(server, set(before))
            if number == 1:
                server.until_step(3, **{**small, "steps": 500})
            else:
                server.until_step(1, **small, steps=1)
                for seed in range(40):
                    server.ask("txt2img", **small, steps=1, batch=2, seed=seed)
                time.sleep(chance.uniform(0.2, 30 * SECONDS_A_STEP))
        now = whole(outputs)
        assert {name: now[name] for name in before} == before
        assert len(now) > len(before) or number == 1
        before = now
    with life(folder) as server:
        found_again(server, set(before))


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    lives(tmp_path, 8)
