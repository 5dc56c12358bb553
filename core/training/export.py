"""A trained model as a folder that this project and diffusers load alike."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from core.files import write_whole
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.preview import fit
from core.prompt import Tokenizer
from core.training.captions import EXAMPLES, words
from core.training.pool import Pool, to_tensor
from core.training.recipe import TrainingRecipe
from core.training.vocabulary import save_tokenizer
from core.weights.folder import NOTES, TEXT, UNET, VAE

PREVIEW_PICTURES = 128


def save_model(
    folder: Path,
    recipe: TrainingRecipe,
    tokenizer: Tokenizer,
    text: CLIPTextEncoder,
    vae: AutoencoderKL,
    unet: UNet,
) -> Path:
    """Write the model: weights in float16, configurations, tokenizer, notes. Returns the folder."""
    save_tokenizer(tokenizer, folder / "tokenizer")
    for part, path in ((text, TEXT), (vae, VAE), (unet, UNET)):
        _weights(part, folder / path)
    _json(
        folder / "text_encoder" / "config.json",
        {"model_type": "clip_text_model", **dataclasses.asdict(text.config)},
    )
    _json(folder / "vae" / "config.json", _vae_config(vae))
    _json(
        folder / "unet" / "config.json",
        {
            "_class_name": "UNet2DConditionModel",
            "sample_size": recipe.pictures.size // vae.config.reduction,
            **dataclasses.asdict(unet.config),
        },
    )
    noise = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
    _json(folder / "scheduler" / "scheduler_config.json", noise | dataclasses.asdict(recipe.noise))
    _json(folder / "model_index.json", _index())
    notes = {
        "name": recipe.name,
        "defaults": dataclasses.asdict(recipe.defaults),
        "examples": EXAMPLES,
        "words": sorted(words()),
        "preview": _preview(vae, recipe),
    }
    _json(folder / NOTES, notes)
    return folder


def _weights(module: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in module.state_dict().items()}
    write_whole(path, save(half, metadata={"format": "pt"}))


def _vae_config(vae: AutoencoderKL) -> dict[str, Any]:
    levels = len(vae.config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        **dataclasses.asdict(vae.config),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }


def _preview(vae: AutoencoderKL, recipe: TrainingRecipe) -> list[list[float]]:
    """The linear map from latents to colours that fits this VAE's own pictures best."""
    pool = Pool(recipe.seed, "seen", PREVIEW_PICTURES, recipe.pictures.size)
    pictures = to_tensor(np.stack([pool.picture(i) for i in range(pool.count)]))
    with torch.no_grad():
        latents = vae.encode(pictures)
    rows: list[list[float]] = fit(latents, pictures).tolist()
    return [[round(value, 5) for value in row] for row in rows]


def _json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
