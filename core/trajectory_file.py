"""What stands in a file of steps beside the numbers, and the checks of a file that anyone may have made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.checks import check_flag, check_number, check_text, check_whole
from core.errors import UserError
from core.images import Recipe
from core.request import Settings
from core.weights.mapped import Damaged, MappedFile
from core.weights.safetensors_file import looks_like, read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

    from core.trajectory import Trajectory

FORMAT = 1
KEY = "latentcanvas"  # of the text among the file's metadata
SUFFIX = ".steps.safetensors"
MOST_STEPS = 20_000
_HIGHEST = 1e9
_KINDS = {"state": "float32", "conditional": "float16", "unconditional": "float16", "clean": "float16"}


@dataclass(frozen=True)
class StepNote:
    """One step in numbers.

    index: from 0. sigma: the level after it. evals, passes: until then, as in `RunStep`. scale: of the
    guidance; None for a step without an unconditional estimate. own: whether the clean estimate is kept too.
    """

    index: int
    sigma: float
    evals: int
    passes: int
    scale: float | None
    own: bool


def steps_path(picture: Path) -> Path:
    """Where the steps of a picture are kept: beside it."""
    return picture.with_suffix(SUFFIX)


def packed(tensors: Mapping[str, Tensor], text: str) -> bytes:
    """The file."""
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, {KEY: text})


def notes_to_text(trajectory: Trajectory) -> str:
    """Everything but the tensors."""
    values = {
        "format": FORMAT,
        "recipe": trajectory.recipe.to_dict(),
        "settings": trajectory.settings.to_dict(),
        "total": trajectory.total,
        "stopped": trajectory.stopped,
        "words": trajectory.words,
        "seconds": dict(trajectory.seconds),
        "steps": [dataclasses.astuple(step) for step in trajectory.steps],
        "sigma_start": trajectory.sigma_start,
        "preview_map": [list(row) for row in trajectory.preview_map],
        "cell": trajectory.cell,
    }
    return json.dumps(values, separators=(",", ":"))


@contextmanager
def opened(path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The text and the tensors of a file, mapped. What is wrong with them is one sentence: UserError."""
    try:
        file = MappedFile(path)
        if not looks_like(file):
            raise Damaged("is no file of steps")
        entries, metadata = read_safetensors(file)
        if KEY not in metadata:
            raise Damaged("is no file of steps: LatentCanvas did not write it")
        for name, dtype in _KINDS.items():
            if name in entries and entries[name].dtype != dtype:
                raise Damaged(f"is damaged: {name} is not in {dtype}")
        yield metadata[KEY], {name: entry.tensor() for name, entry in entries.items() if name in _KINDS}
    except Damaged as error:
        raise UserError(f"{path} {error}; choose another file, or make the picture again") from None


def notes_from_text(text: str) -> dict[str, Any]:
    """The fields of a Trajectory but for its tensors. Raises Damaged and UserError."""
    try:
        values = json.loads(text)
        version = values.pop("format")
        check_whole("format", version, 1, 2**31)
        if version > FORMAT:
            raise Damaged(f"is of format {version}, which is newer than this program's: update LatentCanvas")
        return _checked(values)
    except UserError as error:
        raise Damaged(f"is damaged ({error})") from None
    except Damaged:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged("is damaged: its notes cannot be read") from None


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
    """At least one; the level is above 0 in all but the last one, as it is divided by."""
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
    if not 2 <= len(found) <= 65 or any(len(row) != 3 for row in found):
        raise Damaged("is damaged: its preview map is none")
    return found


def check_tensors(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Refuse tensors that do not belong to the notes. Raises Damaged."""
    steps: Sequence[StepNote] = values["steps"]
    settings: Settings = values["settings"]
    cell = values["cell"]
    shape = (
        settings.batch,
        len(values["preview_map"]) - 1,
        settings.height // cell,
        settings.width // cell,
    )
    counts = {
        "state": len(steps) + 1,
        "conditional": len(steps),
        "unconditional": sum(step.scale is not None for step in steps),
        "clean": sum(step.own for step in steps),
    }
    counts = {name: count for name, count in counts.items() if count}
    if set(tensors) != set(counts):
        raise Damaged("is damaged: it does not hold what its notes say")
    for name, count in counts.items():
        if tuple(tensors[name].shape) != (count, *shape):
            raise Damaged(f"is damaged: {name} has not the shape that its notes say")
