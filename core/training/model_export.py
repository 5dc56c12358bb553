"""Saves a trained model as a folder that both this project and diffusers load."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from core.figures.image_bytes import png
from core.files import plain_errors, write_whole
from core.inference.preview import fit
from core.models.build import Coder
from core.models.clip import CLIPTextEncoder
from core.models.config import CoderConfig, PixelsConfig, PointsConfig, TextConfig, UNetConfig
from core.models.pixel_space import Pixels
from core.models.point_model import NO_COLOURS, Points
from core.models.unet import UNet
from core.prompts.tokenizer import Tokenizer
from core.scenes.pool import Pool, to_tensor
from core.scenes.vocabulary import save_tokenizer
from core.training.card import CARD, RECIPE, card, recipe_toml
from core.training.sets import Data, PointSet, Storybook, open_set
from core.training.training_recipe import TrainingRecipe
from core.weights.layouts.model_folder import (
    NOTES,
    PIXELS,
    POINTS,
    SUBJECTS,
    TEXT,
    UNET,
    VAE,
)

PREVIEW_PICTURES = 128
PREVIEW_PIXELS = 8  # that one pixel of a preview stands for, where cells are larger


def save_model(
    folder: Path,
    recipe: TrainingRecipe,
    tokenizer: Tokenizer,
    text: CLIPTextEncoder,
    vae: Coder,
    unet: UNet,
    data: Data | None = None,
) -> Path:
    """Write the model: weights as `recipe.weights` says, configurations, tokenizer, notes, card. Returns the
    folder.

    data: the training data; opened from the recipe if None.
    """
    data = _opened(recipe) if data is None else data
    with plain_errors(folder):
        save_tokenizer(tokenizer, folder / "tokenizer")
    for part, path in ((text, TEXT), (vae, VAE), (unet, UNET)):
        if part.state_dict():
            _weights(part, folder / path, small=part is unet and recipe.weights == "float8")
    cells = recipe.pictures.size // vae.config.reduction
    for name, values in part_configs(text.config, vae.config, unet.config, cells).items():
        _json(folder / name / "config.json", values)
    # Only the DDPM scheduler of diffusers knows sigmoid betas.
    kind = "DDPMScheduler" if recipe.noise.beta_schedule == "sigmoid" else "DDIMScheduler"
    noise = {"_class_name": kind, "clip_sample": False, "set_alpha_to_one": False}
    _json(folder / "scheduler" / "scheduler_config.json", noise | dataclasses.asdict(recipe.noise))
    _json(folder / "model_index.json", model_index())
    notes = {
        "name": recipe.name,
        "defaults": dataclasses.asdict(recipe.defaults),
        "examples": () if recipe.words == "none" else data.examples(),
        "words": [] if recipe.words == "none" else sorted(data.words()),
        "nearest": data.nearest() if isinstance(data, Storybook) else {},
        "subjects": _subjects(folder, data) if isinstance(data, Storybook) else [],
        "preview": _preview(vae, data),
    }
    _json(folder / NOTES, notes)
    write_whole(folder / RECIPE, recipe_toml(recipe).encode())
    write_whole(folder / CARD, card(recipe).encode())
    return folder


def _weights(module: nn.Module, path: Path, *, small: bool = False) -> None:
    """small: matrices and kernels in float8_e4m3fn, half the size. Norms and biases stay in float16: they are
    few, and every value of a channel hangs on one of theirs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {key: value.detach().half().contiguous() for key, value in module.state_dict().items()}
    if small:
        stored |= {key: value.to(torch.float8_e4m3fn) for key, value in stored.items() if value.ndim > 1}
    write_whole(path, save(stored, metadata={"format": "pt"}))


def part_configs(
    text: TextConfig, vae: CoderConfig, unet: UNetConfig, cells: int
) -> dict[str, dict[str, Any]]:
    """The `config.json` of each part, by its folder. `cells` is the usual latent's side."""
    return {
        "text_encoder": {"model_type": "clip_text_model", **dataclasses.asdict(text)},
        "vae": _coder_config(vae),
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": cells,
            **dataclasses.asdict(unet),
        },
    }


def _coder_config(config: CoderConfig) -> dict[str, Any]:
    if isinstance(config, PixelsConfig | PointsConfig):
        return {
            "_class_name": PIXELS if isinstance(config, PixelsConfig) else POINTS,
            **dataclasses.asdict(config),
        }
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        **dataclasses.asdict(config),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def model_index() -> dict[str, Any]:
    """The `model_index.json` for diffusers, with its classes for the parts."""
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


def _subjects(folder: Path, data: Storybook) -> list[str]:
    """Write the images of all subjects on one sheet, one below the other, and return their phrases."""
    subjects = data.subjects()
    sheet = Image.fromarray(np.concatenate(list(subjects.values())))
    write_whole(folder / SUBJECTS, png(sheet.quantize(256)))
    return list(subjects)


def _opened(recipe: TrainingRecipe) -> Data:
    """The recipe's data, only as much as previews need."""
    fewer = dataclasses.replace(recipe.pictures, unet=PREVIEW_PICTURES, vae=1)
    return open_set(dataclasses.replace(recipe, pictures=fewer), "train")


def _preview(vae: Coder, data: Data) -> list[list[float]]:
    """The linear map from latents to colours that fits this VAE's own images best."""
    if isinstance(vae, Pixels):
        return vae.preview()
    if isinstance(vae, Points) or isinstance(data, PointSet):
        return NO_COLOURS
    some = range(PREVIEW_PICTURES if isinstance(data, Pool) else min(PREVIEW_PICTURES, data.count))
    drawn = map(data.picture, some) if isinstance(data, Pool) else data.pictures(some)
    pictures = to_tensor(np.stack(list(drawn)))
    with torch.no_grad():
        latents = vae.encode(pictures)
    rows: list[list[float]] = fit(latents, pictures, _preview_side(vae.config.reduction)).tolist()
    return [[round(value, 5) for value in row] for row in rows]


def _preview_side(cell: int) -> int:
    """How many pixels a side a preview shows of a latent cell."""
    return cell // PREVIEW_PIXELS if cell > 8 else 1


def _json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
