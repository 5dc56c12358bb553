"""Stable Diffusion 1.5 in its full size with random weights: what large files are tried and measured with.

    python -m tools.full_size FOLDER [safetensors] [ckpt] [folder]

writes `FOLDER/sd15.safetensors`, `FOLDER/sd15.ckpt` and the diffusers folder `FOLDER/sd15`, about 2.1 GB each
in float16, and a small tokenizer beside them. No more than one tensor is held in memory; the .ckpt is written
from the mapped .safetensors.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from core.files import write_stream
from core.models.config import ModelConfig
from core.scenes.vocabulary import save_tokenizer
from core.training.model_export import model_index, part_configs
from core.weights.convert import Written, convert, safetensors_blocks
from core.weights.parts import expected_shapes
from core.weights.readers.checkpoint import open_checkpoint
from tests.checkpoints import tokenizer, write_ckpt

FORMS = ("safetensors", "ckpt", "folder")
PARTS = ("text_encoder/model", "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model")
WEIGHTS = 1_066_235_307  # of the UNet 859,520,964, the VAE 83,653,863, the text encoder 123,060,480


def write_full_size(home: Path, forms: Iterable[str] = FORMS, seed: int = 0) -> dict[str, Path]:
    """Write the forms that are asked for, and give their paths."""
    home.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer(), home / "tokenizer")
    folder = _folder(home / "sd15", seed)
    single = home / "sd15.safetensors"
    convert(folder, single)
    paths = {"folder": folder, "safetensors": single}
    if "ckpt" in forms:
        entries = open_checkpoint(single).entries
        tensors = {name: entry.tensor() for name, entry in entries.items()}
        paths["ckpt"] = write_ckpt(home / "sd15.ckpt", tensors)
    return {form: path for form, path in paths.items() if form in forms}


def _folder(folder: Path, seed: int) -> Path:
    config = ModelConfig()
    generator = torch.Generator().manual_seed(seed)
    for part, shapes in zip(PARTS, expected_shapes(config), strict=True):
        path = folder / f"{part}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_stream(path, safetensors_blocks(_drawn(shapes, generator)))
    for name, values in part_configs(config.text, config.vae, config.unet, 64).items():
        (folder / name / "config.json").write_text(json.dumps(values))
    (folder / "model_index.json").write_text(json.dumps(model_index()))
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(dataclasses.asdict(config.noise)))
    save_tokenizer(tokenizer(), folder / "tokenizer")
    return folder


def _drawn(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Written]:
    return {
        name: Written("float16", shape, (partial(_draw, name, shape, generator),))
        for name, shape in shapes.items()
    }


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normals that keep a signal's size through the layer; norms and biases as they start out."""
    if len(shape) == 1:
        return torch.full(shape, float("norm" in name and name.endswith("weight")), dtype=torch.float16)
    spread = 0.02 if "embedding.weight" in name else prod(shape[1:]) ** -0.5
    return torch.empty(shape).normal_(std=spread, generator=generator).half()


if __name__ == "__main__":
    made = write_full_size(Path(sys.argv[1]), sys.argv[2:] or FORMS)
    print(*made.values(), sep="\n")
