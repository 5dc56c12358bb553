"""What stands in the VAE's place where there is nothing to compress: the pictures' own pixels.

A pixel model is a latent diffusion model whose latents are its pictures (reduction 1), so that every sampler,
preview and setting is the same for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.config import PixelsConfig

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colours to grey


class Pixels(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] as they are, or in grey (B, 1, H, W). It has no weights."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W). `noise` is not used: there is nothing to draw."""
        if self.config.latent_channels == 3:
            return pictures
        luma = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device).view(1, 3, 1, 1)
        return (pictures * luma).sum(dim=1, keepdim=True)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W), not clamped."""
        return latents if self.config.latent_channels == 3 else latents.expand(-1, 3, -1, -1)

    def preview(self) -> list[list[float]]:
        """The preview map, which is exact here: (C + 1) rows of red, green and blue."""
        if self.config.latent_channels == 1:
            return [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
        return [*torch.eye(3).tolist(), [0.0, 0.0, 0.0]]
