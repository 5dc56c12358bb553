"""Models of pixels and of points with random weights, as folders on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from core.models.build import make_coder, unet_class
from core.models.clip import CLIPTextEncoder
from core.models.config import UNetConfig
from core.prompts.tokenizer import Tokenizer
from core.request.model_defaults import Defaults
from core.scenes.vocabulary import learn_vocabulary
from core.training.model_export import save_model
from core.training.training_recipe import (
    WORDLESS,
    DataSettings,
    LatentSettings,
    PictureSettings,
    TrainingRecipe,
    VocabularySettings,
)
from tests.small import recipe

PIXELS = LatentSettings(kind="pixels", channels=1)
COLOURS = LatentSettings(kind="pixels", channels=3)
POINTS = LatentSettings(kind="points")


def wordless(latents: LatentSettings) -> TrainingRecipe:
    """A recipe of a model without words, of 12x12 pixels or 8x8 points."""
    channels = 2 if latents.kind == "points" else latents.channels
    side, cell = (64, 8) if latents.kind == "points" else (12, 1)
    return replace(
        recipe(),
        name=latents.kind,
        words="none",
        data=DataSettings(kind="points" if latents.kind == "points" else "digits"),
        latents=latents,
        pictures=PictureSettings(size=side, unet=20),
        vocabulary=VocabularySettings(),
        text=WORDLESS,
        unet=UNetConfig(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            mid_block_type="UNetMidBlock2D",
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=1,
            norm_num_groups=4,
        ),
        defaults=Defaults(
            sampler="ddim", schedule="trailing", steps=4, cfg_scale=1.0,
            width=side, height=side, multiple=cell, smallest=8,
        ),
    )  # fmt: skip


def write_wordless(folder: Path, latents: LatentSettings, seed: int = 0) -> Path:
    """Write the model, random weights from `seed`, and give its folder."""
    made = wordless(latents)
    vocab, merges = learn_vocabulary([], 514)
    torch.manual_seed(seed)
    size = len(vocab)
    text = CLIPTextEncoder(replace(made.text, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1))
    unet = unet_class(made.coder)(made.unet)
    nn.init.normal_(unet.conv_out.weight, std=0.05)
    tokenizer = Tokenizer(vocab, merges, made.vocabulary.length, frozenset())
    return save_model(folder, made, tokenizer, text, make_coder(made.coder), unet)
