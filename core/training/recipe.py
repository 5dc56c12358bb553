"""What a training recipe (TOML) says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.models.config import NoiseConfig, TextConfig, UNetConfig, VAEConfig
from core.request import Defaults
from core.settings import build, override, read_toml
from core.training.autoencoder import VAELoss
from core.training.diffusion import DiffusionLoss
from core.training.loop import LoopSettings


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How many pictures are drawn: for the VAE, and for the UNet's latents; `size` is their side in
    pixels.
    """

    size: int = 128
    vae: int
    unet: int


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """size: the most tokens; captions: how many are read to find them; length: tokens a chunk, two of them
    marks.
    """

    size: int
    captions: int
    length: int


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How each part is trained."""

    text: LoopSettings
    vae: LoopSettings
    unet: LoopSettings
    vae_loss: VAELoss = field(default_factory=VAELoss)
    unet_loss: DiffusionLoss = field(default_factory=DiffusionLoss)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A text-to-image model from nothing. `seed` decides everything that is drawn at random."""

    name: str
    seed: int
    pictures: PictureSettings
    vocabulary: VocabularySettings
    text: TextConfig
    vae: VAEConfig
    unet: UNetConfig
    noise: NoiseConfig
    train: TrainingSettings
    defaults: Defaults


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with "key.key=value" changes. Raises UserError, which names an unknown
    key's nearest.
    """
    values = read_toml(path)
    override(values, overrides)
    return build(Recipe, values, path.name)
