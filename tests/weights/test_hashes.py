"""The hash of a model's files, and when it is computed anew."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from core import cache_folder
from core.weights import hashes
from core.weights.hashes import hash_files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is large, and the cache a folder of its own, which is not there yet."""
    monkeypatch.setattr(hashes, "LARGE", 1)
    monkeypatch.setattr(cache_folder, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / hashes.FILE


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    return [tmp_path / "a", tmp_path / "b"]


def of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_large_file_is_read_once(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hash_files(files) == of("a" * 10 + "b" * 10)
    assert hash_files(files[:1]) == of("a" * 10)
    monkeypatch.setattr(hashes, "sha256_of", None)
    assert hash_files(files) == of("a" * 10 + "b" * 10)
    assert hash_files(files[:1]) == of("a" * 10)
    assert cache.is_file()


def test_a_changed_file_is_read_again(cache: Path, files: list[Path]) -> None:
    hash_files(files)
    files[1].write_bytes(b"c" * 10)
    os.utime(files[1], (0, 0))
    assert hash_files(files) == of("a" * 10 + "c" * 10)
    files[1].write_bytes(b"c" * 9)
    os.utime(files[1], (0, 0))
    assert hash_files(files) == of("a" * 10 + "c" * 9)
    assert hash_files(files[::-1]) == of("c" * 9 + "a" * 10)


def test_another_file_of_the_same_size_and_time_is_read(cache: Path, files: list[Path]) -> None:
    hash_files(files)
    then = files[1].stat()
    files[1].unlink()
    files[1].write_bytes(b"d" * 10)
    os.utime(files[1], ns=(then.st_atime_ns, then.st_mtime_ns))
    assert hash_files(files) == of("a" * 10 + "d" * 10)


@pytest.mark.parametrize("damage", ["[", "[]", "[" * 100_000, '{"a": 1}', '{"a": "short"}'])
def test_a_damaged_cache_serves_again(cache: Path, files: list[Path], damage: str) -> None:
    cache.parent.mkdir()
    cache.write_text(damage)
    assert hash_files(files) == of("a" * 10 + "b" * 10)
    assert of("a" * 10 + "b" * 10) in cache.read_text()


def test_without_a_cache_it_is_read_each_time(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "LARGE", 1)
    (tmp_path / "taken").write_text("no folder")
    monkeypatch.setattr(cache_folder, "cache_folder", lambda: tmp_path / "taken")
    assert hash_files(files) == of("a" * 10 + "b" * 10)


def test_small_files_are_not_kept(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "cache_folder", lambda: tmp_path / "cache")
    assert hash_files(files) == of("a" * 10 + "b" * 10)
    assert not (tmp_path / "cache").exists()


def test_no_more_are_kept_than_so_many(
    cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "MOST", 1)
    hash_files(files)
    hash_files(files[:1])
    assert of("a" * 10) in cache.read_text()
    assert of("a" * 10 + "b" * 10) not in cache.read_text()
