"""The classes of a model's parts, by its configuration."""

from __future__ import annotations

from core.models.config import CoderConfig, PixelsConfig, PointsConfig
from core.models.pixel_space import Pixels
from core.models.point_model import Points, PointwiseUNet
from core.models.unet import UNet
from core.models.vae import AutoencoderKL

# Images to latents and back: each has `config`, `encode` and `decode`.
Coder = AutoencoderKL | Pixels | Points


def make_coder(config: CoderConfig) -> Coder:
    """The VAE, or what replaces it in a model of pixels or points."""
    if isinstance(config, PixelsConfig):
        return Pixels(config)
    return Points(config) if isinstance(config, PointsConfig) else AutoencoderKL(config)


def unet_class(config: CoderConfig) -> type[UNet]:
    """The class of the UNet; that for points treats each point alone, with the same weight names."""
    return PointwiseUNet if isinstance(config, PointsConfig) else UNet
