"""The steps file of a run: written in blocks, and read as untrusted input.

It is a safetensors file: the tensors of core/inference/trajectory.py, the image around a mask as the bytes
of a PNG, and everything else as JSON in its metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.checks import check_flag, check_number, check_text, check_whole
from core.errors import UserError
from core.images.paste import Paste
from core.recipes.recipe import Recipe
from core.request.settings import Settings
from core.weights.readers.mapped_file import Damaged, MappedFile
from core.weights.readers.safetensors_file import NAMES, looks_like, read_safetensors

FORMAT = 1
KEY = "latentcanvas"  # of the JSON among the file's metadata
SUFFIX = ".steps.safetensors"
MOST_STEPS = 20_000
_HIGHEST = 1e9
_STEPS = {"state": "float32", "conditional": "float16", "unconditional": "float16", "clean": "float16"}
_KNOWN = ("known", "mask", "extra")
_PASTE = "paste"
_KINDS = _STEPS | dict.fromkeys(_KNOWN, "float32") | {_PASTE: "uint8"}
_FIELDS = (
    *("format", "recipe", "settings", "total", "stopped", "words", "seconds", "steps", "sigma_start"),
    *("preview_map", "cell", "paste"),
)


@dataclass(frozen=True)
class StepNote:
    """One step in numbers.

    index: from 0. sigma: the level after it. evals, passes: so far, as in `RunStep`. scale: of the guidance;
    None for a step without an unconditional estimate. own: whether its clean estimate is stored.
    """

    index: int
    sigma: float
    evals: int
    passes: int
    scale: float | None
    own: bool


def steps_path(picture: Path) -> Path:
    """The path of an image's steps file, next to the image."""
    return picture.with_suffix(SUFFIX)


def blocks(fields: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    """The file of a Trajectory's fields: the header's length, the header, and the tensors, the widest dtype
    first.
    """
    tensors: dict[str, Tensor] = {**fields["tensors"], **fields["known"]}
    if fields["paste"] is not None:
        tensors[_PASTE] = torch.frombuffer(bytearray(fields["paste"].to_png()), dtype=torch.uint8)
    tensors = {name: tensors[name] for name in _KINDS if name in tensors}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    table: dict[str, Any] = {"__metadata__": {KEY: _notes(fields)}}
    at = 0
    for name, tensor in ordered:
        offsets = [at, at := at + tensor.nbytes]
        table[name] = {"dtype": NAMES[_KINDS[name]], "shape": list(tensor.shape), "data_offsets": offsets}
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little") + header
    for _, tensor in ordered:
        yield np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def _notes(fields: Mapping[str, Any]) -> str:
    """Everything but the tensors, as JSON."""
    values = {
        "format": FORMAT,
        "recipe": fields["recipe"].to_dict(),
        "settings": fields["settings"].to_dict(),
        "total": fields["total"],
        "stopped": fields["stopped"],
        "words": fields["words"],
        "seconds": dict(fields["seconds"]),
        "steps": [dataclasses.astuple(step) for step in fields["steps"]],
        "sigma_start": fields["sigma_start"],
        "preview_map": [list(row) for row in fields["preview_map"]],
        "cell": fields["cell"],
        "paste": None if fields["paste"] is None else fields["paste"].to_dict(),
    }
    return json.dumps(values, separators=(",", ":"))


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of the Trajectory in a file; tensors are read on demand. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such steps file; choose another")
    try:
        return _read(MappedFile(path))
    except Damaged as error:
        raise UserError(f"{path} {error}; choose another file, or run the recipe again") from None


def _read(file: MappedFile) -> dict[str, Any]:
    if not looks_like(file):
        raise Damaged("is damaged or not a steps file")
    entries, metadata = read_safetensors(file)
    if KEY not in metadata or "state" not in entries:
        raise Damaged("is not a steps file: LatentCanvas did not write it")
    for name, entry in entries.items():
        if _KINDS.get(name) != entry.dtype:
            raise Damaged(f"is damaged: it has an unexpected tensor {name!r} in {entry.dtype}")
    tensors = {name: entry.tensor() for name, entry in entries.items()}
    fields = _fields(metadata[KEY], tensors.pop(_PASTE, None))
    fields["known"] = {name: tensors.pop(name) for name in _KNOWN if name in tensors}
    _check_shapes(tensors, fields)
    return fields | {"tensors": tensors}


def _fields(text: str, paste: Tensor | None) -> dict[str, Any]:
    """The fields in the metadata, checked."""
    try:
        values = json.loads(text)
        check_whole("format", values.get("format"), 1, 2**31)
        if values["format"] > FORMAT:
            raise Damaged("has a newer format than this version reads: update LatentCanvas")
        if set(values) != set(_FIELDS) or (paste is None) != (values["paste"] is None):
            raise Damaged("is damaged: its metadata is incomplete")
        fields = _checked(values)
        fields["paste"] = None if paste is None else Paste.read(values["paste"], paste.numpy().tobytes())
        return fields
    except UserError as error:
        raise Damaged(f"is damaged ({error})") from None
    except Damaged:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged("is damaged: its metadata cannot be read") from None


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    recipe, settings = Recipe.from_dict(values["recipe"]), Settings.from_dict(values["settings"])
    if settings.for_image(0) != recipe.settings:
        raise Damaged("is damaged: recipe and settings differ")
    check_whole("total", values["total"], 1, MOST_STEPS)
    check_flag("stopped", values["stopped"])
    check_whole("cell", values["cell"], 1, 64)
    return {
        "recipe": recipe,
        "settings": settings,
        "total": values["total"],
        "stopped": values["stopped"],
        "words": check_text("words", values["words"]),
        "seconds": {str(k): check_number("seconds", v, 0, _HIGHEST) for k, v in values["seconds"].items()},
        "steps": _steps(values["steps"]),
        "sigma_start": check_number("sigma", values["sigma_start"], 1e-9, _HIGHEST),
        "preview_map": _map(values["preview_map"]),
        "cell": values["cell"],
    }


def _steps(rows: Sequence[Sequence[Any]]) -> tuple[StepNote, ...]:
    """At least one step; all levels but the last are above 0, because views divide by them."""
    check_whole("number of steps", len(rows), 1, MOST_STEPS)
    steps = []
    for i, (index, sigma, evals, passes, scale, own) in enumerate(rows):
        check_whole("step", index, i, i)
        level = check_number("sigma", sigma, 0 if i + 1 == len(rows) else 1e-9, _HIGHEST)
        check_whole("evals", evals, 0, 2**40)
        check_whole("passes", passes, 0, 2**40)
        strength = None if scale is None else check_number("scale", scale, 0, _HIGHEST)
        check_flag("own", own)
        steps.append(StepNote(index, level, evals, passes, strength, own))
    return tuple(steps)


def _map(rows: Sequence[Sequence[Any]]) -> tuple[tuple[float, ...], ...]:
    found = tuple(tuple(check_number("preview map", v, -1e6, 1e6) for v in row) for row in rows)
    sizes = {len(row) for row in found}
    squares = {3 * side * side for side in range(1, 33)}
    if not 2 <= len(found) <= 65 or len(sizes) != 1 or not sizes <= squares:
        raise Damaged("is damaged: its preview map is invalid")
    return found


def _check_shapes(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Refuse tensors that do not match the metadata."""
    steps: Sequence[StepNote] = fields["steps"]
    settings, cell, channels = fields["settings"], fields["cell"], len(fields["preview_map"]) - 1
    place = (settings.height // cell, settings.width // cell)
    counts = {
        "state": len(steps) + 1,
        "conditional": len(steps),
        "unconditional": sum(step.scale is not None for step in steps),
        "clean": sum(step.own for step in steps),
    }
    due = {name: (count, settings.batch, channels, *place) for name, count in counts.items() if count}
    if set(tensors) != set(due):
        raise Damaged("is damaged: its tensors do not match its metadata")
    depths = {"known": channels, "mask": 1, "extra": 1 + channels}
    due |= {name: (1, depths[name], *place) for name in fields["known"]}
    for name, tensor in {**tensors, **fields["known"]}.items():
        if tuple(tensor.shape) != due[name]:
            raise Damaged(f"is damaged: the shape of {name} does not match its metadata")
