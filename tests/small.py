"""A text-to-image model with random weights, small enough to run in milliseconds, as a folder on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from core.models.clip import CLIPTextEncoder
from core.models.config import NoiseConfig, TextConfig, UNetConfig, VAEConfig
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.prompts.tokenizer import Tokenizer
from core.request.model_defaults import Defaults
from core.scenes.vocabulary import learn_vocabulary
from core.training import model_export
from core.training.model_export import save_model
from core.training.stages.autoencoder import VAELoss
from core.training.stages.diffusion import DiffusionLoss
from core.training.training_loop import LoopSettings
from core.training.training_recipe import (
    PictureSettings,
    TrainingRecipe,
    TrainingSettings,
    VocabularySettings,
)

SENTENCES = ("a red circle on a blue background", "a large green star", "a house on a hill at night")


def recipe() -> TrainingRecipe:
    """A recipe whose stages take a few steps each."""
    loop = LoopSettings(steps=4, batch=4, learning_rate=1e-3, warmup=2, save_every=2, measure_every=4)
    return TrainingRecipe(
        name="small",
        seed=3,
        pictures=PictureSettings(size=64, vae=8, unet=16),
        vocabulary=VocabularySettings(size=600, captions=50, length=48),
        text=TextConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=48,
        ),
        vae=VAEConfig(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4
        ),
        unet=UNetConfig(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        noise=NoiseConfig(),
        train=TrainingSettings(
            text=loop, vae=loop, unet=loop, vae_loss=VAELoss(crop=32), unet_loss=DiffusionLoss()
        ),
        defaults=Defaults(sampler="ddim", schedule="leading", steps=5, cfg_scale=3.0, width=64, height=64),
    )


def write_model(folder: Path, seed: int = 0, *, inpainting: bool = False, width: int = 8) -> Path:
    """Write the model, random weights from `seed`, and give its folder.

    inpainting: one whose UNet also reads a mask and the latents of a masked picture. width: the UNet's
    channels; of 128 its weights take 30 MB.
    """
    made = recipe()
    unet = replace(made.unet, in_channels=9 if inpainting else 4, block_out_channels=(width, 2 * width))
    vocab, merges = learn_vocabulary(SENTENCES * 3, 600)
    size = len(vocab)
    torch.manual_seed(seed)
    text = replace(made.text, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)
    tokenizer = Tokenizer(vocab, merges, made.vocabulary.length, None)
    with mock.patch.object(model_export, "PREVIEW_PICTURES", 8):  # for 128 it takes three times as long
        return save_model(folder, made, tokenizer, CLIPTextEncoder(text), AutoencoderKL(made.vae), UNet(unet))
