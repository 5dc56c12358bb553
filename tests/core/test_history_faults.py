"""What may happen to a history: kills, damage, locks, full and read-only disks, and many writers."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from core.errors import UserError
from core.history import History, database
from tests.core.histories import asked, execute, keep, save
from tests.core.recipes import RECIPE

CHECKOUT = Path(__file__).resolve().parents[2]
# Keeps runs without end, or so many, and says the id of each once it is kept.
WRITER = """
import sys
from pathlib import Path
from core.history import History
from tests.core.histories import keep
history = History(Path(sys.argv[1]))
print("open", flush=True)
for i in range(int(sys.argv[2])):
    print(keep(history, prompt=f"run {i} of {sys.argv[3]}", seed=i, batch=2).id, flush=True)
"""
# Becomes someone whom permissions bind (they do not bind root), once all is imported.
BOUND = """
import os, sys
from pathlib import Path
from PIL import Image
from core.errors import UserError
from core.history import History
from tests.core.histories import asked
from tests.core.recipes import RECIPE
Image.init()
if os.geteuid() == 0:
    os.setuid(65534)
history = History(Path(sys.argv[1]))
first = history.search()[0].id
print(history.count(), len(history.search("house")), history.covers([first])[first] > b"")
for change in (
    lambda: history.add(names=["000001.png"], settings=asked(), model=RECIPE.model),
    lambda: history.star(first),
    lambda: history.delete([first]),
    lambda: History(Path(sys.argv[1]) / "none" / "here").star("x"),
):
    try:
        change()
        print("changed")
    except UserError as error:
        print(error)
print(history.trouble)
"""


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole(history: History) -> None:
    """The file is sound, and so is every run in it."""
    database.Database(history.folder / "history.sqlite").check()
    for row in history.search(limit=10_000):
        assert all(history.path(name).is_file() for name in row.names)
        assert all(history.thumbnails(row.id))
        assert row in history.search(f'"{row.settings.prompt}"', limit=10_000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.1)


@contextmanager
def connected(history: History, *statements: str) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(history.folder / "history.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


def test_several_processes_and_threads_add_at_once(tmp_path: Path) -> None:
    writers = [python(WRITER, tmp_path, 12, f"process {i}") for i in range(2)]
    history = History(tmp_path)
    said: list[str] = []
    threads = [
        threading.Thread(
            target=lambda i=i: said.extend(
                keep(history, prompt=f"run {n} of thread {i}").id for n in range(6)
            )
        )
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err
        said += out.split()[1:]
    assert len(said) == len(set(said)) == 36
    assert {row.id for row in history.search(limit=100)} == set(said)
    assert history.sync() == 0
    whole(history)


def test_a_kill_in_the_middle_leaves_earlier_runs_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    kept: set[str] = set()
    for life in range(4):
        writer = python(WRITER, tmp_path, 10**6, f"life {life}")
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(chance.uniform(0.2, 0.6))
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate(timeout=60)
        lines = out.splitlines(keepends=True)
        said = {line.strip() for line in lines if line.endswith("\n")}
        assert said, "it was killed before the first run: give it more time"
        kept |= said
        history = History(tmp_path)
        assert kept <= {row.id for row in history.search(limit=10_000)}
        history.sync()
        pictures = {path.name for path in tmp_path.glob("*.png")}
        assert {name for row in history.search(limit=10_000) for name in row.names} == pictures
        whole(history)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)


def replace_header(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


@pytest.mark.parametrize("damage", [cut, scribble, replace_header])
@pytest.mark.parametrize("opened", [True, False], ids=["in mid-work", "when opened"])
def test_a_damaged_database_is_set_aside_and_made_anew(tmp_path: Path, damage: object, opened: bool) -> None:
    history = History(tmp_path)
    rows = [keep(history, prompt=f"house {i}", batch=1 + i % 2) for i in range(6)]
    damage(tmp_path / "history.sqlite")  # pyrefly: ignore[not-callable]
    history = history if opened else History(tmp_path)
    found = history.search("house", limit=100)
    assert {name for row in found for name in row.names} == {name for row in rows for name in row.names}
    assert len(list(tmp_path.glob("history.damaged-*.sqlite"))) == 1
    new = keep(history, prompt="after")
    assert history.get(new.id) == new
    whole(history)


def test_what_can_be_read_of_a_damaged_database_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history, batch=2, row={"owner": "me", "evals": 20})
    history.star(row.id)
    starred = history.get(row.id)
    with connected(history, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'words'"):
        pass
    with connected(history, "PRAGMA wal_checkpoint(TRUNCATE)"):
        pass
    assert history.search("house") == [starred]


@pytest.mark.parametrize(("first", "aside"), [(11, 0), (0, 1)], ids=["its pages", "its root too"])
def test_a_damaged_index_of_words_is_made_anew(tmp_path: Path, first: int, aside: int) -> None:
    history = History(tmp_path)
    row = keep(history)
    history.star(row.id)
    with connected(history, f"UPDATE words_data SET block = x'ffffffffffffffffff' WHERE id >= {first}"):
        pass
    assert history.search("house") == [history.get(row.id)]
    assert history.get(row.id).starred
    assert len(list(tmp_path.glob("*damaged*.sqlite"))) == aside


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    row = keep(History(tmp_path))
    for path in tmp_path.glob("history.sqlite*"):
        path.unlink()
    (tmp_path / "history.sqlite").touch()
    assert [found.id for found in History(tmp_path).search()] == [row.id]


def test_a_database_that_vanishes_is_made_anew(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history)
    for path in tmp_path.glob("history.sqlite*"):
        path.unlink()
    assert history.count() == 0
    keep(history, prompt="new")
    assert history.sync() == 1
    assert history.get(row.id).settings == row.settings


@pytest.mark.usefixtures("impatient")
def test_a_writer_elsewhere_holds_up_writing_alone(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history)
    names = save(tmp_path, asked())
    with connected(history, "BEGIN IMMEDIATE"):
        assert history.search("house") == [row]
        for change in (
            lambda: history.add(names=names, settings=asked(), model=RECIPE.model),
            lambda: history.star(row.id),
            lambda: History(tmp_path).star(row.id),
        ):
            with pytest.raises(
                UserError, match=r"^[^\n]*history\.sqlite: is locked by another program; [^\n]*$"
            ):
                change()
    history.star(row.id)
    assert history.sync() == 1


@pytest.mark.usefixtures("impatient")
def test_an_exclusive_lock_is_one_sentence(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history)
    with connected(
        history, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM pictures"
    ) as other:
        for work in (
            lambda: history.search("house"),
            history.count,
            lambda: history.star(row.id),
            history.sync,
        ):
            with pytest.raises(UserError, match="is locked by another program"):
                work()
        assert History(tmp_path).trouble == ""
        other.execute("ROLLBACK")
    assert history.search("house") == [row]


def test_a_short_lock_is_waited_for(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history)
    held = threading.Event()

    def hold() -> None:
        with connected(history, "BEGIN IMMEDIATE"):
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    history.star(row.id)
    thread.join()
    assert history.get(row.id).starred


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path)
    row = keep(history)
    with connected(history) as connection:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, f"max_page_count = {pages}"))
    much = [(i, f"{i} {'word ' * 500}") for i in range(100)]
    with pytest.raises(UserError, match=r"^[^\n]*: there is no space left on the disk; free some[^\n]*$"):
        [keep(history, seed=i, prompt=prompt) for i, prompt in much]
    assert history.get(row.id) == row
    fresh = History(tmp_path / "other")
    assert fresh.search() == []
    monkeypatch.undo()
    history.sync()
    whole(history)
    assert keep(fresh) in fresh.search()


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions are other things here")
@pytest.mark.parametrize("database", ["there", "lost", "damaged"])
def test_a_folder_that_may_not_be_written_is_read(tmp_path: Path, database: str) -> None:
    folder = tmp_path / "outputs"
    history = History(folder)
    keep(history), keep(history, prompt="a house")
    if database == "lost":
        for path in folder.glob("history.sqlite*"):
            path.unlink()
    if database == "damaged":
        replace_header(folder / "history.sqlite")
    closed = {path: path.stat().st_mode for path in tmp_path.parents if path.stat().st_mode & 0o005 != 0o005}
    modes = {folder: 0o755, tmp_path: 0o700, **closed}
    try:
        for path, mode in modes.items():
            path.chmod(0o555 if path == folder else mode | 0o055)
        out, err = python(BOUND, folder).communicate(timeout=60)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    first, *refusals, trouble = out.splitlines()
    assert first == "2 2 True", err
    assert len(refusals) == 4
    for refusal in refusals:
        assert "history.sqlite: " in refusal
    assert "is not writable" in trouble or "cannot be renamed" in trouble or database == "there"
    assert len(list(folder.glob("*.png"))) == 2


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    history = History(tmp_path / "outputs")
    assert (history.search("x"), history.count(), history.models(), history.sync()) == ([], 0, [], 0)
    with pytest.raises(UserError, match="is not writable"):
        history.star("x")
    assert "is not writable" in history.trouble


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    history = History(tmp_path)
    row = keep(history)
    with connected(history, "PRAGMA user_version = 99"):
        pass
    again = History(tmp_path)
    for work in (again.search, lambda: again.star(row.id), again.sync):
        with pytest.raises(UserError, match="made by a newer LatentCanvas"):
            work()
    with connected(history, "PRAGMA user_version = 1"):
        pass
    assert history.search() == [row]


def test_a_row_of_a_newer_program_does_not_hide_the_others(tmp_path: Path) -> None:
    history = History(tmp_path)
    row, newer = keep(history), keep(history)
    execute(history, "UPDATE runs SET settings = '{}' WHERE id = ?", newer.id)
    assert history.search() == [row]
    with pytest.raises(UserError, match="cannot be read"):
        history.get(newer.id)


@pytest.mark.skipif(sys.platform == "win32", reason="every file system of Windows has locks")
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite then locks by a folder; also for a file made where there were locks, and several writers."""
    assert database.can_lock(tmp_path) is True
    assert database.can_lock(tmp_path / "none") is None
    keep(History(tmp_path), prompt="before")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(database, "lock", refuse)
    assert database.can_lock(tmp_path) is False
    history = History(tmp_path)
    prompts = [f"run {i}" for i in range(4)]
    writers = [threading.Thread(target=keep, args=[History(tmp_path)], kwargs={"prompt": p}) for p in prompts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {row.settings.prompt for row in history.search()} == {"before", *prompts}
    assert not (tmp_path / "history.sqlite.lock").exists()

    monkeypatch.setattr(database, "WAIT_SECONDS", 0.05)
    (tmp_path / "history.sqlite.lock").mkdir()  # left by a process that was killed
    with pytest.raises(UserError, match=r"or delete .*history\.sqlite\.lock if there is none"):
        history.star(history.search()[0].id)
