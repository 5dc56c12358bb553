"""Reads files of `torch.save`, zip archives and the older format, without running anything in them.

Zip: `NAME/data.pkl` is a pickle that names storages, and `NAME/data/KEY` are their bytes, uncompressed.
Older: four pickles (magic number, version, system, the object), the list of storage keys, then for each
storage its count of elements in eight bytes, and the elements.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

from core.weights.readers.mapped_file import ITEM_BYTES, Damaged, MappedFile, TensorEntry, check_entry
from core.weights.readers.pickle_machine import Pickled, StorageRef, TensorRef, read_pickle

MAX_PICKLE = 32 * 2**20  # a hundred times SD's
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_ZIP, _LOCAL_HEADER = b"PK\x03\x04", 30
_NESTED = 6  # depth of nested dicts that are searched for tensors


class Contents:
    """The tensors of a file by name, and the rest of its pickle."""

    def __init__(self, pickled: Pickled, storages: dict[str, tuple[int, int]], file: MappedFile) -> None:
        """storages: (first byte, bytes) by key."""
        self.pickled = pickled
        self.step = self._step()
        self.entries = {
            name: check_entry(name, _entry(file, tensor, storages))
            for name, tensor in _tensors(pickled.value).items()
        }

    def _step(self) -> int | None:
        value = self.pickled.value
        step = value.get("global_step") if isinstance(value, dict) else None
        return step if type(step) is int else None


def is_zip(file: MappedFile) -> bool:
    return file.data[:4] == _ZIP


def is_pickle(file: MappedFile) -> bool:
    return file.data[:1] == b"\x80" and file.data[1:2] in (b"\1", b"\2", b"\3", b"\4", b"\5")


def read_zip(file: MappedFile) -> Contents:
    """The contents of a zip archive. Raises Damaged."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
            _check_members(file, members)
            main = _main(members)
            if main.file_size > MAX_PICKLE:
                raise Damaged("is not a model: its pickle is larger than any training run's")
            data = archive.read(main)
    except Damaged:
        raise
    except zipfile.BadZipFile:
        raise Damaged("is cut short or damaged: its zip archive has no end") from None
    except Exception as error:  # zipfile raises whatever its parts raise
        raise Damaged(f"is damaged: its zip archive cannot be read ({type(error).__name__})") from None
    folder = main.filename.removesuffix("data.pkl")
    members_by_name = {member.filename: member for member in members}
    _check_byte_order(file, members_by_name.get(f"{folder}byteorder"))
    pickled = read_pickle(io.BytesIO(data))
    storages = {}
    for key in pickled.storages:
        member = members_by_name.get(f"{folder}data/{key}")
        if member is None:
            raise Damaged("is damaged: some of its data is missing")
        storages[key] = (_first_byte(file, member), member.file_size)
    return Contents(pickled, storages, file)


def _check_members(file: MappedFile, members: list[zipfile.ZipInfo]) -> None:
    """PyTorch never compresses members: a compressed archive is not PyTorch's, and may be a zip bomb."""
    total = sum(member.file_size for member in members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise Damaged(
            f"is a compressed archive ({file.size / 1e6:.1f} MB that would become {total / 1e6:.1f} MB), "
            "which PyTorch never writes: a zip bomb, or a model that has to be unpacked first"
        )
    if total > file.size:
        raise Damaged("is a zip bomb: its members overlap")


def _main(members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    names = {member.filename.rpartition("/")[2]: member for member in members}
    if "constants.pkl" in names:
        raise Damaged("is a TorchScript program, not a checkpoint")
    found = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise Damaged("is a zip archive without PyTorch's data.pkl: unpack it if a model is inside")
    return found[0]


def _check_byte_order(file: MappedFile, member: zipfile.ZipInfo | None) -> None:
    if member is not None:
        first = _first_byte(file, member)
        if file.data[first : first + member.file_size] != b"little":
            raise Damaged("was written on a big-endian machine, which is not supported")


def _first_byte(file: MappedFile, member: zipfile.ZipInfo) -> int:
    """The offset of a member's bytes: after its local header, whose name and extra field vary in length."""
    at = member.header_offset
    header = file.data[at : at + _LOCAL_HEADER]
    if len(header) < _LOCAL_HEADER or header[:4] != _ZIP:
        raise Damaged("is damaged: its zip archive has wrong offsets")
    name, extra = struct.unpack("<HH", header[26:30])
    first: int = at + _LOCAL_HEADER + name + extra
    if first + member.file_size > file.size:
        raise Damaged("is cut short or damaged: its data extends beyond its end")
    return first


def read_legacy(file: MappedFile) -> Contents:
    """The contents of a file from PyTorch before 1.6. Raises Damaged."""
    source = _ArchiveReader(file)
    if read_pickle(source).value != _MAGIC:
        return _bare_pickle(file)
    system = [read_pickle(source).value for _ in range(2)]
    if system[0] != _VERSION or not isinstance(system[1], dict) or system[1].get("little_endian") is not True:
        raise Damaged("is a PyTorch file of an unsupported kind")
    pickled = read_pickle(source)
    keys = read_pickle(source).value
    if pickled.refused:  # reported before any error in its data
        return Contents(Pickled(globals=pickled.globals), {}, file)
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise Damaged("is damaged: its list of storages is invalid")
    return Contents(pickled, _laid_out(file, source.tell(), keys, pickled.storages), file)


def _bare_pickle(file: MappedFile) -> Contents:
    """A pickle that PyTorch has not written: its unsafe names are kept for the message."""
    pickled = read_pickle(_ArchiveReader(file))
    if pickled.refused:
        return Contents(Pickled(globals=pickled.globals), {}, file)
    raise Damaged("is a Python pickle, but not a checkpoint")


def _laid_out(
    file: MappedFile, at: int, keys: list[str], known: dict[str, StorageRef]
) -> dict[str, tuple[int, int]]:
    storages = {}
    for key in keys:
        storage = known.get(key)
        if storage is None or file.size - at < 8:
            raise Damaged("is cut short or damaged: some of its data is missing")
        count = int.from_bytes(file.data[at : at + 8], "little")
        size = count * ITEM_BYTES[storage.dtype]
        if count != storage.count or size > file.size - at - 8:
            raise Damaged("is cut short or damaged: some of its data is missing")
        storages[key] = (at + 8, size)
        at += 8 + size
    return storages


class _ArchiveReader:
    """Reads a mapped file from its start, up to the maximum length of a pickle."""

    def __init__(self, file: MappedFile) -> None:
        self._file, self._at = file, 0

    def tell(self) -> int:
        return self._at

    def read(self, count: int, /) -> bytes:
        if count < 0 or self._at + count > MAX_PICKLE:
            raise Damaged("is not a model: its pickle is larger than any training run's")
        data = self._file.data[self._at : self._at + count]
        self._at += len(data)
        return data

    def readline(self) -> bytes:
        end = self._file.data.find(b"\n", self._at, self._at + 4096)
        return self.read((end + 1 if end >= 0 else min(self._file.size, self._at + 4096)) - self._at)


def _tensors(value: Any) -> dict[str, TensorRef]:
    """Every tensor in a pickle's nested dicts, by dotted name; those of `state_dict` without its prefix."""
    if isinstance(value, TensorRef):
        return {"": value}
    if not isinstance(value, dict):
        return {}
    inner = value.get("state_dict")
    found: dict[str, TensorRef] = {}
    seen: set[int] = set()
    waiting = [("", inner if isinstance(inner, dict) else value, 0)]
    while waiting:
        prefix, table, depth = waiting.pop()
        if id(table) in seen or depth > _NESTED:
            continue
        seen.add(id(table))
        for key, item in table.items():
            if isinstance(item, TensorRef):
                found[prefix + key] = item
            elif isinstance(item, dict):
                waiting.append((f"{prefix}{key}.", item, depth + 1))
    return found


def _entry(file: MappedFile, tensor: TensorRef, storages: dict[str, tuple[int, int]]) -> TensorEntry:
    """The tensor in the file. Raises Damaged when it extends beyond its storage."""
    storage = storages.get(tensor.storage.key)
    if storage is None:
        raise Damaged("is damaged: some of its data is missing")
    first, size = storage
    start = first + tensor.offset * ITEM_BYTES[tensor.dtype]
    strides = None if _follows(tensor) else tensor.strides
    entry = TensorEntry(file, start, tensor.dtype, tensor.shape, strides)
    if entry.count and start + entry.extent > first + size:
        raise Damaged("is damaged: its tensors extend beyond their storages")
    return entry


def _follows(tensor: TensorRef) -> bool:
    """Whether the tensor is contiguous. The stride of an axis of length 1 does not matter."""
    expected = 1
    for n, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True
