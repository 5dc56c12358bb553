"""Whole files and numbered names: with many writers at once, with crashes, and on a disk that refuses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import files
from core.errors import UserError
from core.files import check_writable, write_numbered, write_whole

POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX systems")
CHECKOUT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def raises_os_error(code: int) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.bin"]


@POSIX_ONLY
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    assert write_numbered(tmp_path, b"x").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    monkeypatch.setattr(os, call, raises_os_error(code))
    with pytest.raises(UserError):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_numbers_go_on_from_the_highest(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "outputs"
    assert [write_numbered(folder, b"x").name for _ in range(2)] == ["000001.png", "000002.png"]
    (folder / "000007.safetensors").touch()
    for passed_over in ("20240131.jpg", "notes.txt", ".000900.png", "00042.png"):
        (folder / passed_over).touch()
    assert write_numbered(folder, b"x").name == "000008.png"
    assert write_numbered(folder, b"x", ".gif").name == "000009.gif"


def test_numbers_go_on_beyond_six_digits(tmp_path: Path) -> None:
    (tmp_path / "999999.png").touch()
    assert [write_numbered(tmp_path, b"x").name for _ in range(2)] == ["1000000.png", "1000001.png"]


def no_hard_links(*args: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


WRITER = """
import os, pathlib, sys
from core.files import write_numbered

folder, writer, links = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if links == "no links":
    def refuse(*args):
        raise OSError(1, "Operation not permitted")
    os.link = refuse
for i in range(50):
    print(write_numbered(folder, f"{writer} {i} ".encode() * 5000).name)
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_names_never_collide_between_processes(tmp_path: Path, links: str) -> None:
    """Four processes write fifty files each: all names differ, every file is whole and the writer's own."""
    commands = [[sys.executable, "-c", WRITER, str(tmp_path), str(writer), links] for writer in range(4)]
    runs = [
        subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    written = [run.communicate()[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert len({name for taken in written for name in taken}) == 200
    assert names(tmp_path) == sorted(name for taken in written for name in taken)
    for writer, taken in enumerate(written):
        for i, name in enumerate(taken):
            assert (tmp_path / name).read_bytes() == f"{writer} {i} ".encode() * 5000


def test_names_never_collide_between_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda i: write_numbered(tmp_path, b"%d" % i).name, range(80)))
    assert len(set(taken)) == 80
    assert [(tmp_path / name).read_bytes() for name in taken] == [b"%d" % i for i in range(80)]


def test_a_file_that_turns_up_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone else's file takes the number after we looked; with hard links and without."""
    monkeypatch.setattr(files, "highest_number", lambda folder: 0)
    (tmp_path / "000001.png").write_bytes(b"theirs")
    assert write_numbered(tmp_path, b"ours").name == "000002.png"
    monkeypatch.setattr(os, "link", no_hard_links)
    assert write_numbered(tmp_path, b"ours").name == "000003.png"
    assert (tmp_path / "000001.png").read_bytes() == b"theirs"
    assert names(tmp_path) == ["000001.png", "000002.png", "000003.png"]


KILLED_BEFORE = """
import os, pathlib, signal, sys
from core.files import write_numbered, write_whole

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

folder, call, write = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if sys.argv[4] == "no links":
    def refuse(*args):
        raise OSError(1, "Operation not permitted")
    os.link = refuse
setattr(os, call, die)
write_numbered(folder, b"new" * 99) if write == "numbered" else write_whole(folder / "a.png", b"new" * 99)
"""


@POSIX_ONLY
@pytest.mark.parametrize(
    ("call", "write", "links"),
    [
        ("fsync", "numbered", "links"),
        ("link", "numbered", "links"),
        ("replace", "numbered", "no links"),
        ("fsync", "whole", "links"),
        ("replace", "whole", "links"),
    ],
)
def test_a_killed_process_leaves_nothing_half_written(
    tmp_path: Path, call: str, write: str, links: str
) -> None:
    """Killed at each stage: the old file is whole, no new one is visible, and the next write works."""
    (tmp_path / "a.png").write_bytes(b"old")
    command = [sys.executable, "-c", KILLED_BEFORE, str(tmp_path), call, write, links]
    assert subprocess.run(command, cwd=CHECKOUT, check=False).returncode == -signal.SIGKILL
    left = [name for name in names(tmp_path) if name != "a.png"]
    assert left
    assert all(name.startswith(".latentcanvas-") for name in left)
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert write_numbered(tmp_path, b"next").read_bytes() == b"next"


def test_left_over_temporaries_go_after_a_day(tmp_path: Path) -> None:
    stale, fresh = tmp_path / ".latentcanvas-1-aa.tmp", tmp_path / ".latentcanvas-2-bb.tmp"
    other = tmp_path / ".other.tmp"
    for path in (stale, fresh, other):
        path.touch()
    for path in (stale, other):
        os.utime(path, (time.time() - 90_000,) * 2)
    check_writable(tmp_path)
    assert names(tmp_path) == [fresh.name, other.name]


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("use", [check_writable, lambda folder: write_numbered(folder, b"x")])
@pytest.mark.parametrize("below", ["", "outputs", "outputs/deep"])
def test_a_file_in_the_way_is_said(tmp_path: Path, use: Callable[[Path], None], below: str) -> None:
    (tmp_path / "file").write_bytes(b"theirs")
    folder = tmp_path / "file" / below
    with pytest.raises(UserError) as refusal:
        use(folder)
    reason = "a file is in the way where a folder should be; choose another folder"
    assert str(refusal.value) == f"{folder}: {reason}"
    assert (tmp_path / "file").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EACCES, "you may not write there"),
        (errno.EPERM, "you may not write there"),
        (errno.EROFS, "the disk is read-only"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.EIO, "writing failed (Input/output error)"),
    ],
)
@pytest.mark.parametrize("use", [check_writable, lambda folder: write_numbered(folder, b"x")])
def test_a_disk_that_refuses_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(os, "fsync", raises_os_error(code))
    with pytest.raises(UserError) as refusal:
        use(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path}: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert names(tmp_path) == []


TOO_LARGE = """
import pathlib, resource, sys
from core.errors import UserError
from core.files import write_numbered

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_numbered(pathlib.Path(sys.argv[1]), bytes(100_000))
except UserError as error:
    print(error)
"""


@POSIX_ONLY
def test_a_write_that_stops_halfway_leaves_nothing(tmp_path: Path) -> None:
    """A real short write: the system takes 10,000 bytes of 100,000."""
    command = [sys.executable, "-c", TOO_LARGE, str(tmp_path)]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"{tmp_path}: writing failed (File too large)")
    assert names(tmp_path) == []


@POSIX_ONLY
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="you may not write there; change its permissions"):
        check_writable(tmp_path)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder does not exist"):
        write_whole(tmp_path / "no" / "a.bin", b"x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="a folder has that name already"):
        write_whole(tmp_path / "taken", b"x")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_an_impossible_name_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not a possible file name"):
        check_writable(tmp_path / name)


def test_an_unsupported_folder_flush_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", raises_os_error(errno.EACCES))  # what Windows answers for a folder
    assert write_numbered(tmp_path, b"x").read_bytes() == b"x"
