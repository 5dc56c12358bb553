"""The numbers that make one architecture SD 1.5, SD 2.x or the embedded model.

Each dataclass reads the keys that diffusers and transformers write in a model folder's `config.json`, so a
folder of this project is a folder of theirs, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from core.errors import UserError

PredictionType = Literal["epsilon", "v_prediction", "sample"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """CLIP's text tower (Radford et al. 2021, arXiv:2103.00020). The defaults are ViT-L/14's, as in SD
    1.5.
    """

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 49406
    eos_token_id: int = 49407


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """AutoencoderKL of latent diffusion (Rombach et al. 2022, arXiv:2112.10752). The defaults are SD
    1.5's.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    @property
    def reduction(self) -> int:
        """Picture pixels along one side of a latent cell: each level but the last halves the side."""
        return 1 << (len(self.block_out_channels) - 1)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The denoising UNet with cross-attention (arXiv:2112.10752). The defaults are SD 1.5's.

    `attention_head_dim` keeps the name that the files use for it, but it is the *number* of heads: one for
    all levels (SD 1.x) or one a level (SD 2.x).
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of attention heads at each level."""
        if isinstance(self.attention_head_dim, tuple):
            return self.attention_head_dim
        return (self.attention_head_dim,) * len(self.block_out_channels)

    @property
    def attends(self) -> tuple[bool, ...]:
        """Which levels have transformer blocks, from the finest to the coarsest."""
        return tuple(kind.startswith("CrossAttn") for kind in self.down_block_types)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """What the network was trained to undo: `scheduler_config.json`."""

    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_train_timesteps: int = 1000
    prediction_type: PredictionType = "epsilon"
    steps_offset: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All parts of one text-to-image model."""

    text: TextConfig = field(default_factory=TextConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)


def from_json(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build one of the dataclasses above from a `config.json`; keys that it does not use are left alone.

    A file describes more than this architecture needs (names of classes, training details), so unknown keys
    are no error here, but a value of the wrong shape is: the sentence names the key and `where` it was
    read.
    """
    chosen: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in values:
            continue
        value = values[item.name]
        value = tuple(value) if isinstance(value, list) else value
        default = getattr(kind, item.name)
        number = isinstance(default, (int, float)) and isinstance(value, (int, float, tuple))
        if not number and type(value) is not type(default):
            raise UserError(f"{where}: {item.name} is {value!r}, which this architecture cannot use.")
        chosen[item.name] = value
    return kind(**chosen)
