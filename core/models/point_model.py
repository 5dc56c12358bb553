"""Points in the plane as latents: the smallest example of diffusion.

A "latent" (2, h, w) is h * w independent points, x to the right and y upwards. Decoding draws them; there is
no encoding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.models.config import PointsConfig
from core.models.unet import UNet

EXTENT = 3.0
_INK, _PAPER = (-0.75, -0.45, 0.35), (1.0, 1.0, 1.0)  # a dark blue on white
_DOT = (0.2, 0.6, 0.2)  # a point's ink over three pixels, across and down
# A preview map of zeros: core/inference/preview.py then draws the points instead.
NO_COLOURS = [[0.0, 0.0, 0.0]] * 3


class Points(nn.Module):
    """Draws clouds (B, 2, h, w) as images (B, 3, 8h, 8w). It has no weights."""

    def __init__(self, config: PointsConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Raises UserError: an image (B, 3, H, W) cannot be encoded as points."""
        raise UserError(
            "this model makes points in the plane and cannot encode an image: leave the image out."
        )

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 2, h, w) -> (B, 3, 8h, 8w) in [-1, 1]; points beyond EXTENT are not drawn."""
        return draw_points(latents, self.config.reduction)


def draw_points(clouds: Tensor, cell: int) -> Tensor:
    """(B, 2, h, w) -> (B, 3, cell * h, cell * w): a window of EXTENT from the middle to each side."""
    b, _, h, w = clouds.shape
    height, width = cell * h, cell * w
    x, y = clouds.float().flatten(2).unbind(1)  # (B, h * w) each
    half = min(height, width) / 2
    column = (x / EXTENT * half + width / 2).floor().nan_to_num(-1.0, -1.0, -1.0)
    row = (height / 2 - y / EXTENT * half).floor().nan_to_num(-1.0, -1.0, -1.0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    places = (row * width + column).clamp(0, height * width - 1).long()
    counts = torch.zeros(b, height * width, device=clouds.device).scatter_add_(1, places, inside.float())
    dot = torch.tensor(_DOT, device=clouds.device)
    dots = torch.outer(dot, dot)[None, None] / max(_DOT) ** 2
    ink = F.conv2d(counts.view(b, 1, height, width), dots, padding=1)
    amount = 1 - torch.exp(-ink)  # overlapping points get darker, up to full ink
    colours = torch.tensor([_INK, _PAPER], device=clouds.device).view(2, 1, 3, 1, 1)
    drawn: Tensor = amount * colours[0] + (1 - amount) * colours[1]
    return drawn.to(clouds.dtype)


class PointwiseUNet(UNet):
    """The UNet on each point as its own image of one cell: (B, 2, h, w) -> (B, 2, h, w)."""

    def evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        deep: Tensor | None = None,
        merging: float = 0.0,
        guidance: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The prediction for x (B, C, h, w), and the deep features of each cell."""
        b, c, h, w = x.shape
        cells = x.permute(0, 2, 3, 1).reshape(b * h * w, c, 1, 1)
        each = [value.repeat_interleave(h * w, dim=0) for value in (timesteps, context)]
        out, deep = super().evaluate(cells, *each, deep=deep, merging=merging, guidance=guidance)
        return out.view(b, h, w, -1).permute(0, 3, 1, 2), deep
