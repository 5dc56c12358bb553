"""Opens any checkpoint: safetensors, PyTorch's formats, and sharded sets of either.

The format is found from the content, not the name. Nothing in a file is ever run, and tensors are read only
when needed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from core.errors import UserError
from core.weights.readers.mapped_file import Damaged, MappedFile, TensorEntry
from core.weights.readers.safetensors_file import looks_like, read_safetensors
from core.weights.readers.torch_file import Contents, is_pickle, is_zip, read_legacy, read_zip

INDEX = ".index.json"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# Files that are often saved in place of a model, by their first bytes.
_OTHERS = {
    b"version https://git-lfs": "is a git-lfs pointer, not the model itself: run `git lfs pull` there",
    b"GGUF": "is a GGUF file, which is not supported",
    b"\x89PNG": "is an image, not a model",
    b"\xff\xd8\xff": "is an image, not a model",
    b"\x1f\x8b": "is compressed with gzip: unpack it first",
    b"Rar!": "is a RAR archive: unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
}


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint. `entries` are its tensors by name.

    globals: every name in its pickle; refused: those that weights never need. A checkpoint with refused names
    has no tensors and is only for inspection (`look`).
    """

    path: Path
    format: str
    entries: dict[str, TensorEntry]
    metadata: dict[str, str] = field(default_factory=dict)
    step: int | None = None
    globals: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file, or the index of a sharded set. Raises UserError, which says what the file is."""
    checkpoint = look(path)
    if checkpoint.refused:
        raise UserError(refusal(checkpoint))
    return checkpoint


def look(path: Path) -> Checkpoint:
    """The same, but a file with an unsafe pickle is described instead of refused."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a checkpoint.")
    if path.name.endswith(INDEX):
        return _sharded(path)
    try:
        return _open(MappedFile(path))
    except Damaged as error:
        raise UserError(f"{path} {error}.") from None


def refusal(checkpoint: Checkpoint) -> str:
    """The message about an unsafe pickle."""
    names = ", ".join(map(_spoken, checkpoint.refused[:3]))
    more = len(checkpoint.refused) - 3
    return (
        f"{checkpoint.path} asks Python for {names}{f' and {more} more' if more > 0 else ''} when it is "
        "loaded, which weights never need. Nothing was run: use a .safetensors file of the model instead."
    )


def _spoken(name: str) -> str:
    """A global's usual name: os.system is pickled under the name of its platform module."""
    module, _, rest = name.partition(".")
    return f"os.{rest} ({name})" if module in ("posix", "nt") else name


def _open(file: MappedFile) -> Checkpoint:
    if not file.size:
        raise Damaged("is empty: download or copy it again")
    if looks_like(file):
        entries, metadata = read_safetensors(file)
        return Checkpoint(file.path, "safetensors", entries, metadata)
    if is_zip(file):
        return _pickled(file, "PyTorch zip", read_zip(file))
    if is_pickle(file):
        return _pickled(file, "PyTorch before 1.6", read_legacy(file))
    return _pickled_as_text(file)


def _pickled_as_text(file: MappedFile) -> Checkpoint:
    """The oldest pickles have no magic number: read the file as one if its content allows it."""
    with suppress(Damaged):
        contents = read_legacy(file)
        if contents.pickled.refused or contents.entries:
            return _pickled(file, "PyTorch before 1.6", contents)
    raise Damaged(_what_it_is(file))


def _pickled(file: MappedFile, name: str, contents: Contents) -> Checkpoint:
    pickled = contents.pickled
    refused = tuple(pickled.refused)
    return Checkpoint(
        file.path,
        name,
        {} if refused else contents.entries,
        step=contents.step,
        globals=tuple(pickled.globals),
        refused=refused,
    )


def _what_it_is(file: MappedFile) -> str:
    start = file.data[:512]
    for magic, words in _OTHERS.items():
        if start.startswith(magic):
            return words
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")):
        return "is a web page, not a model: download the model again with its direct link"
    if text.startswith((b"{", b"[")):
        return "is a JSON file, not a model"
    if file.path.suffix == ".safetensors":
        return "is damaged or not a safetensors file: download or copy it again"
    return "is not a checkpoint: neither safetensors nor a PyTorch file"


def _sharded(path: Path) -> Checkpoint:
    """All tensors of a sharded checkpoint, by its index."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(listed.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): copy the model again.") from None
    for name in names:
        if (
            not isinstance(name, str)
            or not name
            or {PurePosixPath(name).name, PureWindowsPath(name).name} != {name}
        ):
            raise UserError(f"{path} names a file outside its folder: do not use this model.")
    shards = {name: open_checkpoint(path.parent / name) for name in names}
    entries = {}
    for key, name in listed.items():
        if key not in shards[name].entries:
            raise UserError(f"{path} lists {key!r} in {name}, but it is not there: copy the model again.")
        entries[key] = shards[name].entries[key]
    formats = sorted({shard.format for shard in shards.values()})
    found = tuple(dict.fromkeys(name for shard in shards.values() for name in shard.globals))
    words = f"{' and '.join(formats)} in {len(shards)} files"
    return Checkpoint(path, words, entries, globals=found)
