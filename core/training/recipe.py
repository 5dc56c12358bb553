"""What a training recipe (TOML) says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError
from core.models.config import ModelConfig, NoiseConfig, TextConfig, UNetConfig, VAEConfig
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
class TrainingRecipe:
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

    def __post_init__(self) -> None:
        """Raises UserError for a recipe that would fail later, or train something else than it says."""
        ModelConfig(text=self.text, vae=self.vae, unet=self.unet, noise=self.noise)
        self.noise.schedule()
        crop, size, words = self.train.vae_loss.crop, self.pictures.size, self.vocabulary
        rules = {
            "only epsilon and v_prediction can be trained as prediction_type": self.noise.prediction_type
            != "sample",
            "pictures need a size that is a multiple of 8": size > 0 and size % 8 == 0,
            "vae_loss.crop must be a multiple of 8, at most the size": 0 < crop <= size and crop % 8 == 0,
            "vocabulary.size must be at least 514, the bytes and the marks": words.size >= 514,
            "vocabulary.length must be the text's max_position_embeddings": words.length
            == self.text.max_position_embeddings,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UserError(f"{broken[0]}.")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe in a TOML file, with "key.key=value" changes. Raises UserError, which names an unknown
    key's nearest.
    """
    values = read_toml(path)
    override(values, overrides)
    return build(TrainingRecipe, values, path.name)
