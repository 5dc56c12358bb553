"""Atomic file writes, and numbered names that never collide between processes.

Data goes to a temporary dot-file in the target's own folder, is flushed to the disk, and is then renamed in
one atomic step. A killed process leaves a dot-file at worst; `check_writable` removes those after a day, when
none of them can still be in use. Every OSError becomes a `UserError`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import platformdirs

from core.errors import UserError

_PREFIX, _SUFFIX = ".latentcanvas-", ".tmp"
_STALE_SECONDS = 24 * 3600.0
_PROBE_BYTES = 4096
# Six digits, seven after a million images; a longer run of digits is a date or someone else's number.
_NUMBERED = re.compile(r"([0-9]{6,7})\.")
# Errors of file systems without hard links: FAT, exFAT, some network and FUSE mounts.
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}


def cache_folder() -> Path:
    """The user's cache folder of this program."""
    return platformdirs.user_cache_path("latentcanvas", appauthor=False, opinion=False)


def check_writable(folder: Path) -> None:
    """Create the folder if needed and check that a file can be written there; call it before a long run.

    Also removes temporary files that killed processes left there over a day ago. Raises UserError.
    """
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with _temporary(folder, bytes(_PROBE_BYTES)):
            pass


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace the file atomically: readers see the old content or the new.

    The folder must exist. Raises UserError; the file is then unchanged.
    """
    with plain_errors(path), _temporary(path.parent, data) as temporary:
        os.replace(temporary, path)
        _sync_folder(path.parent)


def write_stream(path: Path, blocks: Iterable[bytes | memoryview]) -> int:
    """`write_whole` for data too large for memory: block after block. Returns the bytes written.

    Errors that `blocks` raises pass through; the file is then unchanged.
    """
    with plain_errors(path), _temporary(path.parent, blocks) as temporary:
        size = temporary.stat().st_size
        os.replace(temporary, path)
        _sync_folder(path.parent)
        return size


def write_numbered(folder: Path, data: bytes, suffix: str = ".png") -> Path:
    """Write a new file under the next free number (000001.png, 000002.png, ...) and return its path.

    Any number of processes and threads may do this in one folder at once: each file gets its own name, and no
    existing file is overwritten. Numbers continue from the highest in the folder, whatever the suffix. The
    folder is created if needed. Raises UserError; there is then no new file.
    """
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, data) as temporary:
            for number in count(highest_number(folder) + 1):
                path = folder / f"{number:06d}{suffix}"
                if _publish(temporary, path):
                    _sync_folder(folder)
                    return path
    raise AssertionError("there is always a next number")


@contextmanager
def _temporary(folder: Path, data: bytes | Iterable[bytes | memoryview]) -> Generator[Path]:
    """A dot-file in `folder` with `data` (or blocks of it), flushed to disk; removed on exit unless it was
    renamed.
    """
    path = folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}{_SUFFIX}"
    try:
        with open(path, "xb") as file:
            for block in (data,) if isinstance(data, bytes) else data:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> bool:
    """Name the finished file in one step; False if the name is taken. A rename would overwrite."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _publish_without_links(temporary, path)
    return True


def _publish_without_links(temporary: Path, path: Path) -> bool:
    """`_publish` without hard links: only the process that created the name's claim file may use the name.

    If a killed process left its claim, others skip that number until the claim is removed.
    """
    claim = path.with_name(f"{_PREFIX}{path.name}{_SUFFIX}")
    try:
        open(claim, "xb").close()
    except FileExistsError:
        return False
    try:
        if os.path.lexists(path):
            return False
        os.replace(temporary, path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def highest_number(folder: Path) -> int:
    matches = (_NUMBERED.match(name) for name in os.listdir(folder))
    return max((int(match[1]) for match in matches if match), default=0)


def _remove_stale(folder: Path) -> None:
    oldest = time.time() - _STALE_SECONDS
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # another process may be removing the same file
            if path.stat().st_mtime < oldest:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system supports it (Windows cannot open a folder)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def plain_errors(path: Path) -> Generator[None]:
    """Turn file errors under `path` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}") from error
    except ValueError as error:  # a NUL or a stray surrogate in the name
        raise UserError(f"{str(path)!r}: is not a possible file name; choose another") from error


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "there is no space left on the disk; free some or choose another folder"
        case errno.EACCES | errno.EPERM:
            return "you may not write there; change its permissions or choose another folder"
        case errno.EROFS:
            return "the disk is read-only; choose another folder"
        case errno.ENOTDIR | errno.EEXIST:
            return "a file is in the way where a folder should be; choose another folder"
        case errno.EISDIR:
            return "a folder has that name already; choose another name"
        case errno.ENOENT:
            return "the folder does not exist; make it first or choose another"
        case errno.ENAMETOOLONG:
            return "the name is too long; choose a shorter one"
    return f"writing failed ({error.strerror or error}); try again or choose another folder"
