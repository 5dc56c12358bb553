"""Replaces the VAE in models that work on pixels.

A pixel model is a latent diffusion model whose latents are its images, so every sampler, preview and setting
works the same for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from core.models.config import PixelsConfig

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colours to grey


class Pixels(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] in cells of p x p pixels: latents (B, 3 * p * p, H / p, W / p) in colour
    or (B, p * p, H / p, W / p) in grey. It has no weights.
    """

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w). `noise` is ignored: there is no posterior to draw from."""
        if self.config.colors == 1:
            luma = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device).view(1, 3, 1, 1)
            pictures = (pictures * luma).sum(dim=1, keepdim=True)
        return pixel_unshuffle(pictures, self.config.patch)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), not clamped."""
        return pixel_shuffle(latents, self.config.patch).expand(-1, 3, -1, -1)

    def preview(self) -> list[list[float]]:
        """The preview map, the mean of a cell: (C + 1) rows of red, green and blue."""
        cell = self.config.patch**2
        rows = torch.eye(3) if self.config.colors == 3 else torch.ones(1, 3)
        return [*(rows / cell).repeat_interleave(cell, dim=0).tolist(), [0.0, 0.0, 0.0]]
