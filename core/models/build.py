"""Which classes the parts of a model are: what its configuration says."""

from __future__ import annotations

from core.models.config import CoderConfig, PixelsConfig, PointsConfig
from core.models.pixel_space import Pixels
from core.models.point_model import Points, PointwiseUNet
from core.models.unet import UNet
from core.models.vae import AutoencoderKL

# Whatever turns pictures into latents and back: `config`, `encode` and `decode`.
Coder = AutoencoderKL | Pixels | Points


def make_coder(config: CoderConfig) -> Coder:
    """The VAE, or what stands in its place."""
    if isinstance(config, PixelsConfig):
        return Pixels(config)
    return Points(config) if isinstance(config, PointsConfig) else AutoencoderKL(config)


def unet_class(config: CoderConfig) -> type[UNet]:
    """The UNet, which for points sees each of them alone; its weights have the same names."""
    return PointwiseUNet if isinstance(config, PointsConfig) else UNet
