"""What a training recipe (TOML, or the JSON in a run's folder) says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import UserError
from core.models.config import (
    CoderConfig,
    ModelConfig,
    NoiseConfig,
    PixelsConfig,
    PointsConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from core.request.model_defaults import Defaults
from core.toml_records import build, override, read_json, read_toml
from core.training.stages.autoencoder import VAELoss
from core.training.stages.diffusion import DiffusionLoss
from core.training.training_loop import LoopSettings
from core.weights.layouts.model_folder import side_rule

# What a model without words has for a text encoder: next to nothing, and only ever the empty prompt to read.
WORDLESS = TextConfig(
    hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=8
)
_COSINE = "squaredcos_cap_v2"


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How many pictures are used: by the VAE, and for the UNet's latents; `size` is their side in pixels."""

    size: int = 128
    vae: int = 0
    unet: int


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is learned from. `path`: the folder of mnist, cifar10 and folder; `density`: of points."""

    kind: Literal["scenes", "storybook", "shapes", "digits", "points", "mnist", "cifar10", "folder"] = (
        "scenes"
    )
    path: str = ""
    density: Literal["moons", "spiral", "grid", "letters"] = "moons"


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """What the UNet works on: a VAE's latents, the pictures' own pixels (in 1 or 3 channels, `patch` pixels a
    side at a time), or points. deviation: what the latents of a VAE are scaled to.
    """

    kind: Literal["vae", "pixels", "points"] = "vae"
    channels: int = 3
    patch: int = 1
    deviation: float = 1.0


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """size: the most tokens; captions: how many are read to find them; length: tokens a chunk, two of them
    marks.
    """

    size: int = 514
    captions: int = 0
    length: int = 8


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How each part is trained; a part that is not there needs none."""

    unet: LoopSettings
    text: LoopSettings | None = None
    vae: LoopSettings | None = None
    vae_loss: VAELoss = field(default_factory=VAELoss)
    unet_loss: DiffusionLoss = field(default_factory=DiffusionLoss)


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """A model from nothing. `seed` decides everything that is drawn at random.

    words: how the text encoder learns. "read": by itself before the others, from what the scenes' captions
    mean; "joint": together with the UNet; "none": the model knows no words, and is asked for nothing.
    weights: how the finished model is stored: "float16", or "float8" for a UNet of half that size.
    """

    name: str
    seed: int
    words: Literal["read", "joint", "none"] = "read"
    weights: Literal["float16", "float8"] = "float16"
    data: DataSettings = field(default_factory=DataSettings)
    pictures: PictureSettings
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    text: TextConfig = WORDLESS
    latents: LatentSettings = field(default_factory=LatentSettings)
    vae: VAEConfig = field(default_factory=VAEConfig)
    unet: UNetConfig
    noise: NoiseConfig
    train: TrainingSettings
    defaults: Defaults

    @property
    def coder(self) -> CoderConfig:
        """The VAE, or what stands in its place."""
        if self.latents.kind == "pixels":
            patch = self.latents.patch
            return PixelsConfig(latent_channels=self.latents.channels * patch**2, patch=patch)
        return PointsConfig() if self.latents.kind == "points" else self.vae

    def __post_init__(self) -> None:
        """Raises UserError for a recipe that would fail later, or train something else than it says."""
        ModelConfig(text=self.text, vae=self.coder, unet=self.unet, noise=self.noise)
        self.noise.schedule()
        rules = self._rules_of_data() | self._rules_of_words()
        if self.latents.kind == "vae":
            rules |= self._rules_of_vae()
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UserError(f"{broken[0]}.")

    def _rules_of_data(self) -> dict[str, bool]:
        size, kind = self.pictures.size, self.data.kind
        cell = max(8, self.coder.reduction) if self.latents.kind != "pixels" else self.latents.patch
        return {
            f"pictures need a size that is a multiple of {cell}": size > 0 and size % cell == 0,
            "pictures.unet must be at least 1": self.pictures.unet >= 1,
            "the storybook needs a pictures.size of 256": kind != "storybook" or size == 256,
            'the storybook needs a VAE with vae_loss.encoder = "principal"': kind != "storybook"
            or (self.latents.kind == "vae" and self.train.vae_loss.encoder == "principal"),
            "the storybook needs a vae_loss.averaged of 0, 1 or 2": kind != "storybook"
            or self.train.vae_loss.averaged in (0, 1, 2),
            'data.kind "points" and latents.kind "points" belong together': (kind == "points")
            == (self.latents.kind == "points"),
            f"data.kind {kind} needs data.path, the folder with its files": bool(self.data.path)
            or kind not in ("mnist", "cifar10", "folder"),
        }

    def _rules_of_words(self) -> dict[str, bool]:
        words = self.vocabulary
        return {
            'words = "read" needs data.kind "scenes" and [train.text]': self.words != "read"
            or (self.data.kind == "scenes" and self.train.text is not None),
            "vocabulary.size must be at least 514, the bytes and the marks": words.size >= 514,
            "vocabulary.length must be the text's max_position_embeddings": words.length
            == self.text.max_position_embeddings,
        }

    def _rules_of_vae(self) -> dict[str, bool]:
        crop, size = self.train.vae_loss.crop, self.pictures.size
        cell = max(8, self.vae.reduction)
        return {
            f"vae_loss.crop must be a multiple of {cell}, at most the size": 0 < crop <= size
            and crop % cell == 0,
            "vae_loss.averaged must be fewer than the VAE's downsampling levels": (
                self.train.vae_loss.averaged < max(1, len(self.vae.block_out_channels) - 1)
            ),
            "latents.deviation must be above 0": self.latents.deviation > 0,
            "a VAE needs pictures.vae and [train.vae]": self.pictures.vae >= 1 and self.train.vae is not None,
        }


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe in a TOML or .json file, with "key.key=value" changes. Raises UserError, which names an
    unknown key's nearest.
    """
    values = read_json(path) if path.suffix == ".json" else read_toml(path)
    override(values, overrides)
    _shorten(values)
    return build(TrainingRecipe, values, path.name)


def _shorten(values: dict[str, Any]) -> None:
    """What a recipe need not say: "cosine" for the name in files, the size rule of pixels and points."""
    tables = [values.get(name) for name in ("noise", "latents", "defaults")]
    noise, latents, defaults = (table if isinstance(table, dict) else {} for table in tables)
    if noise.get("beta_schedule") == "cosine":
        noise["beta_schedule"] = _COSINE
    if latents.get("kind") in ("pixels", "points"):
        pixels, patch = latents["kind"] == "pixels", latents.get("patch", 1)
        multiple, smallest = side_rule(PixelsConfig(patch=patch) if pixels else PointsConfig())
        defaults.setdefault("multiple", multiple)
        defaults.setdefault("smallest", smallest)
