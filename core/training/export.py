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
from core.models.config import TextConfig, UNetConfig, VAEConfig
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
    cells = recipe.pictures.size // vae.config.reduction
    for name, values in part_configs(text.config, vae.config, unet.config, cells).items():
        _json(folder / name / "config.json", values)
    noise = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
    _json(folder / "scheduler" / "scheduler_config.json", noise | dataclasses.asdict(recipe.noise))
    _json(folder / "model_index.json", model_index())
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


def part_configs(text: TextConfig, vae: VAEConfig, unet: UNetConfig, cells: int) -> dict[str, dict[str, Any]]:
    """What the `config.json` of each part says, by its folder. `cells` is the side of a usual latent."""
    levels = len(vae.block_out_channels)
    return {
        "text_encoder": {"model_type": "clip_text_model", **dataclasses.asdict(text)},
        "vae": {
            "_class_name": "AutoencoderKL",
            **dataclasses.asdict(vae),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": cells,
            **dataclasses.asdict(unet),
        },
    }


def model_index() -> dict[str, Any]:
    """What diffusers finds the parts by: the classes that it has for them."""
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
