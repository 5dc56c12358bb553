"""Brings other forms of a model file to CompVis' names and plain weights.

Stability's generative-models (sgm) names the text encoder differently, some files hold only the averaged
(EMA) copy of the UNet, and ComfyUI stores float8 weights with a scale for each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from core.weights.layouts.compvis import UNET, averaged
from core.weights.readers.checkpoint import Checkpoint
from core.weights.readers.mapped_file import TensorEntry

if TYPE_CHECKING:
    from torch import Tensor

_SGM = "conditioner.embedders.0."  # the only text encoder of SD 2.x in sgm's names; SDXL has two
_SCALES = (".scale_weight", ".weight_scale")  # older and newer names
# Tensors next to float8 weights: a marker, the scale of a layer's input, a description of the format.
_SCALE_NOTES = re.compile(r"(.*\.)?scaled_fp8|.*\.(scale_input|input_scale|comfy_quant)")
# The words of an averaged weight's name, which has lost its dots. A block's number has one or two digits, and
# another digit follows.
_WORDS = re.compile(
    r"input_blocks|output_blocks|middle_block|transformer_blocks|time_embed|cond_proj|in_layers|out_layers|"
    r"emb_layers|skip_connection|proj_in|proj_out|to_[qkv]|to_out|attn[12]|norm[123]|norm|proj|ff|net|op|conv|out|"
    r"weight|bias|(?<=put_blocks)[0-9]{1,2}(?=[0-9])|[0-9]"
)


@dataclass(frozen=True, kw_only=True)
class ScaledEntry(TensorEntry):
    """Float8 weights times their scale: one number, or one for each row."""

    stored: TensorEntry
    scale: TensorEntry

    @property
    def stored_dtype(self) -> str:
        return f"scaled {self.stored.dtype}"

    @property
    def extent(self) -> int:
        return self.stored.extent

    def tensor(self) -> Tensor:
        """The weights in float32, of the shape that the file states."""
        scale = self.scale.tensor().float().reshape(-1, *[1] * (len(self.shape) - 1))
        return self.stored.tensor().float() * scale


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with CompVis' names and plain weights, if it is of one of these forms."""
    entries = scaled(checkpoint.entries)
    if not any(name.startswith((f"{UNET}label_emb.", "conditioner.embedders.1.")) for name in entries):
        entries = {_renamed(name): entry for name, entry in entries.items()}
    if not any(name.startswith(UNET) for name in entries):
        entries |= {dotted: entry for name, entry in entries.items() if (dotted := _dotted(name)) is not None}
    return replace(checkpoint, entries=entries)


def scaled(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The entries with each scale applied to its weights, and without the scales."""
    found = {name: entry for name, entry in entries.items() if not _SCALE_NOTES.fullmatch(name)}
    for name in list(found):
        stem = next((name.removesuffix(end) for end in _SCALES if name.endswith(end)), None)
        stored = found.get(f"{stem}.weight")
        if stored is None or not stored.dtype.startswith("float8"):
            continue
        if prod(found[name].shape) in (1, *stored.shape[:1]):
            scale = found.pop(name)
            found[f"{stem}.weight"] = ScaledEntry(
                stored.file, stored.start, "float32", stored.shape, stored=stored, scale=scale
            )
    return found


def _renamed(name: str) -> str:
    return f"cond_stage_model.{name.removeprefix(_SGM)}" if name.startswith(_SGM) else name


def _dotted(name: str) -> str | None:
    """The UNet's name of an averaged weight; None for other names."""
    start = averaged("")
    if not name.startswith(start):
        return None
    rest = name.removeprefix(start)
    words = _WORDS.findall(rest)
    return UNET + ".".join(words) if "".join(words) == rest else None
