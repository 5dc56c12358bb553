"""Describes a checkpoint or a model folder without loading or running anything in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.weights.layouts.canonical import canonical
from core.weights.layouts.compvis import CLIP, EMA, OPEN_CLIP, UNET, VAE
from core.weights.layouts.prediction import read_prediction
from core.weights.layouts.recognise import recognise
from core.weights.layouts.single import read_single
from core.weights.model_files import open_model
from core.weights.parts import check_part, expected_shapes
from core.weights.readers.checkpoint import Checkpoint, look, refusal
from core.weights.readers.mapped_file import TensorEntry

_PARTS = {
    UNET: "unet",
    VAE: "vae",
    EMA: "ema",
    **dict.fromkeys((CLIP, OPEN_CLIP, "conditioner."), "text_encoder"),
}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `models inspect` prints. `loads`: whether `Pipeline.load` can load it; `verdict`: why (not).

    parameters: by part ("unet", "vae", "text_encoder", "ema", "other"). globals: what its pickle
    names; refused: those that weights never need. ignored: counts of tensors that are not loaded, by reason.
    """

    path: str
    format: str
    architecture: str
    base: str | None = None
    prediction: str | None = None
    dtypes: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    ema: bool = False
    globals: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    loads: bool = False
    verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)


def inspect(path: Path) -> Inspection:
    """Inspect a file or a folder. Raises UserError where it does not exist or is not a checkpoint."""
    if path.is_dir():
        return _folder(path)
    stored = look(path)
    checkpoint = canonical(stored)
    kind = recognise(checkpoint)
    found: dict[str, Any] = {
        "path": str(path),
        "format": checkpoint.format,
        "dtypes": _dtypes(stored.entries.values()),
        "parameters": _parameters(stored),
        "ema": any(name.startswith(EMA) for name in checkpoint.entries),
        "globals": checkpoint.globals,
        "refused": checkpoint.refused,
    }
    if checkpoint.refused:
        return Inspection(**found, architecture="unknown", verdict=refusal(checkpoint))
    if kind.problem is not None:
        return Inspection(**found, architecture=kind.architecture, verdict=f"{path} {kind.problem}.")
    prediction, why = read_prediction(checkpoint, kind)
    found |= {"architecture": kind.architecture, "base": kind.base, "prediction": f"{prediction} ({why})"}
    try:
        model = read_single(checkpoint)
        for part, shapes in zip(
            (model.text, model.vae, model.unet), expected_shapes(model.config), strict=True
        ):
            check_part(shapes, part)
    except UserError as error:
        return Inspection(**found, verdict=str(error))
    ignored = dict(Counter(model.ignored.values()))
    return Inspection(
        **found, ignored=ignored, loads=True, verdict=f"{path} is {kind.words}: it can be loaded."
    )


def _folder(path: Path) -> Inspection:
    model = open_model(path)
    config = model.config
    parts = {"text_encoder": model.text, "vae": model.vae, "unet": model.unet}
    for part, shapes in zip(parts.values(), expected_shapes(config), strict=True):
        check_part(shapes, part)
    base = "SD2" if config.text.hidden_act == "gelu" else "SD1"
    architecture = "inpainting" if config.inpaints else base
    entries = {name: [source.entry for source in part.sources.values()] for name, part in parts.items()}
    return Inspection(
        path=str(path),
        format="diffusers folder",
        architecture=architecture,
        base=base,
        prediction=f"{config.noise.prediction_type} (from its scheduler_config.json)",
        dtypes=_dtypes(entry for several in entries.values() for entry in several),
        parameters={name: sum(entry.count for entry in several) for name, several in entries.items()},
        loads=True,
        verdict=f"{path} is a model folder of Stable Diffusion's architecture: it can be loaded.",
    )


def _dtypes(entries: Iterable[TensorEntry]) -> dict[str, int]:
    """The number of values of each dtype."""
    counted: Counter[str] = Counter()
    for entry in entries:
        counted[entry.dtype] += entry.count
    return dict(counted.most_common())


def _parameters(checkpoint: Checkpoint) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for name, entry in checkpoint.entries.items():
        part = next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), "other")
        counted[part] += entry.count
    return dict(counted)
