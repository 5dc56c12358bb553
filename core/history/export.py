"""Runs of the history as a zip file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import UserError
from core.files import plain_errors, write_stream
from core.history.rows import RunRow

LIST = "runs.json"
_BLOCK = 2**20


def write_zip(folder: Path, rows: Sequence[RunRow], path: Path) -> int:
    """Write the runs' images byte for byte, and `runs.json`, which describes each; returns the file's size.

    Missing images are left out. Raises UserError: there is none, or the file cannot be written.
    """
    there = [(row, [name for name in row.names if (folder / name).is_file()]) for row in rows]
    if not any(names for _, names in there):
        raise UserError("there is no image to export; choose a run whose image still exists")
    return write_stream(path, zip_blocks(folder, there))


def zip_blocks(folder: Path, runs: Sequence[tuple[RunRow, Sequence[str]]]) -> Iterator[bytes]:
    """The zip file of each run's named images, block by block, never whole in memory."""
    sink = _Sink()
    listed = [{**row.to_dict(), "names": list(names), "owner": "", "steps": None} for row, names in runs]
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in dict.fromkeys(name for _, names in runs for name in names):
            with plain_errors(folder / name):
                source = open(folder / name, "rb")  # noqa: SIM115  # closed below; only opening it is explained
            with source, archive.open(name, "w", force_zip64=True) as entry:
                while block := source.read(_BLOCK):
                    entry.write(block)
                    yield sink.take()
        archive.writestr(LIST, json.dumps(listed, indent=1), zipfile.ZIP_DEFLATED)
    yield sink.take()


class _Sink(io.RawIOBase):
    """A buffer to write to and take from. It is not seekable, so zipfile writes in one pass."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # a buffer  # pyrefly: ignore[bad-argument-type]
        self._data += block
        return len(block)

    def take(self) -> bytes:
        """The bytes written since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data
