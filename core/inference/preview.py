"""Quick previews of latents: each pixel, or square of pixels, is a linear map of one latent cell.

The map is fitted once per VAE by least squares, so a preview costs a small matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from core.images.tensors import to_images
from core.models.point_model import draw_points


def fit(latents: Tensor, pictures: Tensor, side: int = 1) -> Tensor:
    """The (C + 1, 3 * side * side) map from latents (B, C, h, w) to images (B, 3, h * f, w * f).

    It is the best by least squares; its last row is the constant. Images are averaged first, so that a latent
    cell is `side` x `side` pixels.
    """
    cell = pictures.shape[-1] // latents.shape[-1]
    small = torch.nn.functional.avg_pool2d(pictures, cell // side)
    squares = torch.nn.functional.pixel_unshuffle(small, side)
    wanted = squares.permute(0, 2, 3, 1).reshape(-1, squares.shape[1])
    known = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
    solution: Tensor = torch.linalg.lstsq(known.double(), wanted.double()).solution
    return solution.float()


class Previewer:
    """Scaled latents (B, C, h, w) to one small image each, where a cell becomes `cell` pixels a side.

    A row of the map has 3 numbers, or 3 for each pixel of a square in the order (color, row, column). A map
    of zeros is that of points in the plane, which are drawn.
    """

    def __init__(self, rows: Sequence[Sequence[float]], cell: int) -> None:
        self.map, self.cell = torch.tensor(rows, dtype=torch.float32), cell

    def __call__(self, latents: Tensor, *, constant: bool = True) -> list[Image.Image]:
        """Preview images. Use `constant=False` for a difference of latents: grey where it is 0."""
        x = latents.detach().float().cpu()
        if not self.map.any():
            return to_images(draw_points(x, self.cell))
        rgb = torch.einsum("bchw,cd->bdhw", x, self.map[:-1])
        if constant:
            rgb += self.map[-1][:, None, None]
        rgb = torch.nn.functional.pixel_shuffle(rgb, math.isqrt(rgb.shape[1] // 3))
        size = (x.shape[3] * self.cell, x.shape[2] * self.cell)
        return [image.resize(size, Image.Resampling.BICUBIC) for image in to_images(rgb)]
