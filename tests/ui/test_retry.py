"""Rows that could not be written get into the history once the cause is gone, as they would have been."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from core.errors import UserError
from core.history import History, database
from core.request.request import Request
from tests.ui.fakes import FakePipeline, loaded
from ui.service import retry
from ui.service.job_queue import Job, Jobs
from ui.service.retry import Later
from ui.service.run_store import RunStore

ANN, BOB = "ann's token", "bob's token"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.02)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def locked(folder: Path, *, whole: bool) -> Generator[None]:
    """Another program holds the history, for writing alone or for reading too."""
    with closing(sqlite3.connect(folder / "history.sqlite", isolation_level=None)) as connection:
        if whole:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        if whole:
            connection.execute("DELETE FROM pictures")
        yield


def made(jobs: Jobs, seed: int, **fields: object) -> Job:
    request = Request(prompt="a red circle", steps=3, width=64, height=64, seed=seed)
    job = jobs.submit_run(ANN, request, **fields)  # pyrefly: ignore[bad-argument-type]
    assert job.ended.wait(PATIENCE)
    return job


@pytest.mark.parametrize("whole", [False, True], ids=["for writing", "for reading too"])
def test_a_run_of_a_locked_history_is_kept_later_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    runs = RunStore(tmp_path, see_all=lambda: False)
    jobs = Jobs(loaded(FakePipeline()), runs)
    parent = made(jobs, 1)
    assert parent.run_id is not None
    with locked(tmp_path, whole=whole):
        job = made(jobs, 2, parent=None if whole else (parent.run_id, 1))
        assert job.trouble.startswith("the image is saved, but not in the history yet: ")
        assert "is locked by another program" in job.trouble
        assert job.run_id is not None
        with monkeypatch.context() as patched:  # nobody waits for the lock
            for name in ("get", "tree", "covers"):
                patched.delattr(History, name)
            kept = runs.open(ANN, job.run_id)
            assert runs.family(ANN, job.run_id) == [kept.row]
            assert runs.covers(ANN, [job.run_id])[job.run_id].startswith(b"\xff\xd8")
        assert kept.saved
        with pytest.raises(UserError):
            runs.open(BOB, job.run_id)
    until(lambda: runs.history.count() == 2)
    assert runs.history.get(job.run_id, ANN) == kept.row
    until(lambda: len(runs.family(ANN, parent.run_id or "")) == (1 if whole else 2))
    assert runs.open(ANN, job.run_id).row == kept.row


def test_the_next_good_run_brings_the_earlier_one_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 1e6)
    runs = RunStore(tmp_path)
    jobs = Jobs(loaded(FakePipeline()), runs)
    made(jobs, 1)
    with locked(tmp_path, whole=False):
        assert made(jobs, 2).trouble
        time.sleep(0.2)  # the first attempt is over
    assert made(jobs, 3).trouble == ""
    until(lambda: runs.history.count() == 3)


def test_a_picture_that_is_gone_by_then_gets_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.5)
    runs = RunStore(tmp_path)
    jobs = Jobs(loaded(FakePipeline()), runs)
    made(jobs, 1)
    with locked(tmp_path, whole=False):
        job = made(jobs, 2)
        runs.open(ANN, job.run_id).paths[0].unlink()
        time.sleep(0.3)  # until the try that began before has failed
    time.sleep(1)  # the try after that too
    assert runs.history.count() == 1


def test_pictures_without_a_row_are_found_when_a_lock_at_the_start_is_gone(tmp_path: Path) -> None:
    FakePipeline().generate(Request(steps=3, width=64, height=64)).save(tmp_path)
    database.Database(tmp_path / "history.sqlite").create()
    runs = RunStore(tmp_path)
    with locked(tmp_path, whole=True):
        runs.start()
        time.sleep(0.3)
    until(lambda: runs.history.count() == 1)


def test_later_goes_on_after_what_can_never_be_done() -> None:
    work, done, tries = Later("test"), threading.Event(), []

    def broken() -> None:
        raise RuntimeError("out of luck")

    def fickle() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise UserError("not yet")

    for one in (broken, fickle, done.set):
        work.do(one)
    assert done.wait(PATIENCE)
    assert len(tries) == 3
    until(lambda: "test" not in {thread.name for thread in threading.enumerate()})
    done.clear()
    work.do(done.set)  # a new thread
    assert done.wait(PATIENCE)
