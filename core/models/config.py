"""The configurations that make one architecture SD 1.5, SD 2.x, `tiny` or a model of pixels or points.

Each dataclass reads the keys that diffusers and transformers write in a model folder's `config.json`, so
model folders work in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core.errors import UserError
from core.sampling.schedule import BetaSchedule, NoiseSchedule

if TYPE_CHECKING:
    from core.sampling.denoiser import Prediction

PredictionType = Literal["epsilon", "v_prediction", "sample"]
_PREDICTIONS: dict[PredictionType, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
DownKind = Literal["CrossAttnDownBlock2D", "DownBlock2D"]
UpKind = Literal["CrossAttnUpBlock2D", "UpBlock2D"]
MidKind = Literal["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"]


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
        """Image pixels along one side of a latent cell: each level but the last halves the side."""
        return 1 << (len(self.block_out_channels) - 1)


@dataclass(frozen=True, kw_only=True)
class PixelsConfig:
    """No VAE: the latents are the images' pixels, in grey (1 channel per pixel) or colour (3).

    patch: a latent cell is patch x patch pixels, stacked in its channels. This is lossless, and the network
    works on a smaller map with more channels (Hoogeboom et al. 2023, arXiv:2301.11093).
    """

    latent_channels: int = 1
    patch: int = 1

    @property
    def colors(self) -> int:
        """Channels of one pixel, 1 or 3."""
        return 1 if self.latent_channels == self.patch**2 else 3

    @property
    def reduction(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.patch

    @property
    def scaling_factor(self) -> float:
        """Pixels are not scaled; they are in [-1, 1]."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """No VAE: the latents are points in the plane."""

    latent_channels: int = 2

    @property
    def reduction(self) -> int:
        """Pixels per side for one point: 1024 points are drawn on 256x256."""
        return 8

    @property
    def scaling_factor(self) -> float:
        """Points are not scaled; they are about 1 from the middle."""
        return 1.0


CoderConfig = VAEConfig | PixelsConfig | PointsConfig


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The denoising UNet with cross-attention (arXiv:2112.10752). The defaults are SD 1.5's.

    `attention_head_dim` is named as in the files, but it is the *number* of heads: one for all levels (SD
    1.x) or one per level (SD 2.x).

    addition_embed_type: "text" if the prompt embeddings, pooled by attention with this many heads, are added
    to the time embedding (Saharia et al. 2022, arXiv:2205.11487, section 2.2; DeepFloyd IF).
    time_cond_proj_dim: of the embedding of the guidance scale, if the network was distilled to guide itself
    (Luo et al. 2023, arXiv:2310.04378, section 4.2).
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[DownKind, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[UpKind, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    mid_block_type: MidKind = "UNetMidBlock2DCrossAttn"
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    addition_embed_type: Literal["text"] | None = None
    time_cond_proj_dim: int | None = None
    addition_embed_type_num_heads: int = 64

    @property
    def guides_itself(self) -> bool:
        """Whether the network reads the guidance scale, and has no unconditional half (LCM)."""
        return self.time_cond_proj_dim is not None

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
    """The noise that the network was trained with: `scheduler_config.json`."""

    beta_schedule: BetaSchedule = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_train_timesteps: int = 1000
    prediction_type: PredictionType = "epsilon"
    steps_offset: int = 1
    rescale_betas_zero_snr: bool = False

    @property
    def prediction(self) -> Prediction:
        """The prediction type by the denoiser's name."""
        return _PREDICTIONS[self.prediction_type]

    def schedule(self) -> NoiseSchedule:
        """The table of noise levels. Raises UserError for invalid betas, and for zero-terminal SNR with a
        network that predicts the noise: at pure noise that says nothing about the image.
        """
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise UserError(
                "rescale_betas_zero_snr cannot work with prediction_type epsilon: use v_prediction or sample."
            )
        try:
            return NoiseSchedule.from_betas(
                self.beta_schedule,
                self.beta_start,
                self.beta_end,
                self.num_train_timesteps,
                self.steps_offset,
                self.rescale_betas_zero_snr,
            )
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(f"this model's noise schedule is invalid: {error}.") from None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All parts of one text-to-image model."""

    text: TextConfig = field(default_factory=TextConfig)
    vae: CoderConfig = field(default_factory=VAEConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)

    @property
    def inpaints(self) -> bool:
        """Whether the UNet also reads a mask and the masked image's latents, as SD's inpainting ones do."""
        return self.unet.in_channels == 2 * self.vae.latent_channels + 1

    def __post_init__(self) -> None:
        """Raises UserError unless each part is valid and the parts fit each other."""
        text, vae, unet = self.text, self.vae, self.unet
        levels = len(unet.block_out_channels)
        mirrored = tuple(kind.replace("Up", "Down") for kind in reversed(unet.up_block_types))
        rules = {
            "the text encoder's heads must divide its width": text.hidden_size % text.num_attention_heads
            == 0,
            "the text encoder's length must be above 2": text.max_position_embeddings > 2,
            "the VAE must downsample images by 32, 16, 8, 4, 2 or 1": vae.reduction in (1, 2, 4, 8, 16, 32),
            "the VAE's groups must divide its widths": not isinstance(vae, VAEConfig)
            or _divides(vae.norm_num_groups, vae.block_out_channels),
            "pixels have 1 channel or 3": not isinstance(vae, PixelsConfig)
            or vae.latent_channels == vae.colors * vae.patch**2,
            "points have 2 channels": not isinstance(vae, PointsConfig) or vae.latent_channels == 2,
            "the VAE's scaling factor must be above 0": vae.scaling_factor > 0,
            "the UNet needs a block type for each level, the same down and up": mirrored
            == unet.down_block_types
            and levels == len(mirrored) == len(unet.heads),
            "the UNet's groups must divide its widths": _divides(
                unet.norm_num_groups, unet.block_out_channels
            ),
            "the UNet's heads must divide its widths": all(
                width % heads == 0 for width, heads in zip(unet.block_out_channels, unet.heads, strict=False)
            ),
            "the heads of the UNet's text pooling must divide the text encoder's width": (
                unet.addition_embed_type is None or text.hidden_size % unet.addition_embed_type_num_heads == 0
            ),
            "the UNet's cross-attention must have the text encoder's width": unet.cross_attention_dim
            == text.hidden_size,
            "the UNet must predict the VAE's latents": unet.out_channels == vae.latent_channels,
            "the UNet must read latents, alone or with a mask and a masked image's": unet.in_channels
            == vae.latent_channels
            or self.inpaints,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UserError(f"this model's configuration is invalid: {broken[0]}.")


def _divides(groups: int, widths: tuple[int, ...]) -> bool:
    return groups > 0 and all(width > 0 and width % groups == 0 for width in widths)
