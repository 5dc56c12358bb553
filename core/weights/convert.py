"""Writes safetensors: a checkpoint of another format under its own names, or a model folder as a single file.

Tensors go from the mapped file to the disk one by one, so that no model is ever held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.errors import UserError
from core.files import write_stream
from core.models.config import ModelConfig, VAEConfig
from core.weights.layouts import compvis
from core.weights.layouts.compvis import CLIP, OPEN_CLIP, UNET, VAE
from core.weights.model_files import open_model
from core.weights.parts import Part, check_part, expected_shapes
from core.weights.readers.checkpoint import open_checkpoint
from core.weights.readers.mapped_file import ITEM_BYTES, TensorEntry
from core.weights.readers.safetensors_file import NAMES

_BLOCK = 16 * 2**20
Pieces = tuple[Callable[[], Tensor], ...]


@dataclass(frozen=True)
class Written:
    """A tensor to be written: its pieces, concatenated along the first axis."""

    dtype: str
    shape: tuple[int, ...]
    pieces: Pieces
    release: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        count = ITEM_BYTES[self.dtype]
        for side in self.shape:
            count *= side
        return count


def convert(source: Path, target: Path) -> int:
    """Write the weights in `source`, a file or a model folder, to the safetensors file `target`.

    A file keeps all its names and values, averaged (EMA) copies too; it may also be a LoRA, a VAE or an
    embedding. A folder becomes a single file under CompVis' names. Returns the bytes written. Raises
    UserError, and then `target` is unchanged.
    """
    if target.suffix != ".safetensors":
        raise UserError(
            f"{target}: only safetensors can be written; choose a name that ends in .safetensors."
        )
    if target.exists() and source.exists() and target.resolve() == source.resolve():
        raise UserError(f"{target} is the file to be converted: choose another name.")
    tensors = _folder(source) if source.is_dir() else _file(source)
    return write_stream(target, safetensors_blocks(tensors))


def _file(path: Path) -> dict[str, Written]:
    entries = open_checkpoint(path).entries
    if not entries:
        raise UserError(f"{path} holds no tensors: there is nothing to convert.")
    for name, entry in entries.items():
        if entry.dtype not in NAMES:
            raise UserError(f"{path}: {name} is of dtype {entry.dtype}, which safetensors cannot hold.")
    return {name: _whole(entry) for name, entry in entries.items()}


def _whole(entry: TensorEntry) -> Written:
    return Written(entry.dtype, entry.shape, (entry.tensor,), entry.release)


def _folder(path: Path) -> dict[str, Written]:
    """A folder's three parts under CompVis' names."""
    model = open_model(path)
    config = model.config
    if not isinstance(config.vae, VAEConfig):
        raise UserError(f"{path} has no VAE: a single file needs all three parts of Stable Diffusion.")
    for part, shapes in zip((model.text, model.vae, model.unet), expected_shapes(config), strict=True):
        check_part(shapes, part)
    tensors = _renamed(model.unet, UNET, compvis.unet_names(config.unet))
    tensors |= _renamed(model.vae, VAE, compvis.vae_names(config.vae))
    for name in [name for name in tensors if ".mid.attn_1." in name and name.endswith("weight")]:
        if ".norm." not in name:  # CompVis has 1x1 convolutions there
            tensors[name] = _reshaped(tensors[name], (*tensors[name].shape[:2], 1, 1))
    if config.text.hidden_act == "gelu":
        return tensors | _open_clip(model.text, config)
    return tensors | {CLIP + key: _of(model.text, (key,)) for key in model.text.sources}


def _renamed(part: Part, prefix: str, names: Mapping[str, str]) -> dict[str, Written]:
    theirs = {key: compvis.translated(key, names) for key in part.sources}
    return {f"{prefix}{name}": _of(part, (key,)) for key, name in theirs.items()}


def _open_clip(part: Part, config: ModelConfig) -> dict[str, Written]:
    """OpenCLIP's tower: q, k and v in one tensor, and a last layer of zeros, which other programs expect."""
    text = config.text
    layers, names = text.num_hidden_layers, compvis.open_clip_names(text)
    merged: dict[str, Written] = {}
    for i in range(layers):
        for kind in ("weight", "bias"):
            keys = tuple(f"text_model.encoder.layers.{i}.self_attn.{q}.{kind}" for q in compvis.QKV)
            merged[f"{OPEN_CLIP}transformer.resblocks.{i}.attn.in_proj_{kind}"] = _of(part, keys)
    for key in part.sources:
        if not any(f".self_attn.{q}." in key for q in compvis.QKV):
            merged[f"{OPEN_CLIP}{compvis.translated(key, names)}"] = _of(part, (key,))
    last = f"{OPEN_CLIP}transformer.resblocks.{layers - 1}."
    for name in [name for name in merged if name.startswith(last)]:
        merged[name.replace(last, f"{OPEN_CLIP}transformer.resblocks.{layers}.")] = _zeros(merged[name])
    return merged


def _of(part: Part, keys: tuple[str, ...]) -> Written:
    sources = [part.sources[key] for key in keys]

    def release() -> None:
        for source in sources:
            source.entry.release()

    shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
    return Written(sources[0].entry.dtype, shape, tuple(source.tensor for source in sources), release)


def _reshaped(tensor: Written, shape: tuple[int, ...]) -> Written:
    return Written(tensor.dtype, shape, tensor.pieces, tensor.release)


def _zeros(like: Written) -> Written:
    def zeros() -> Tensor:
        return torch.zeros(like.shape, dtype=getattr(torch, like.dtype))

    return Written(like.dtype, like.shape, (zeros,))


def safetensors_blocks(tensors: Mapping[str, Written]) -> Iterator[bytes | memoryview]:
    """The file in blocks: the header's length, the header, and the tensors, the widest dtype first."""
    order = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name].dtype], name))
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.nbytes
        table[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little") + header
    for name in order:
        for piece in tensors[name].pieces:
            yield from _blocks(piece())
        tensors[name].release()


def _blocks(tensor: Tensor) -> Iterator[bytes | memoryview]:
    if tensor.numel():
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, flat.numel(), _BLOCK):
            yield flat[start : start + _BLOCK].numpy().data
