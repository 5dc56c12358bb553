"""Convert between tensors and PIL images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Tensors (B, 3, H, W) in [-1, 1], clamped, to 8-bit PIL images."""
    levels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(level.permute(1, 2, 0).cpu().numpy()) for level in levels]


def from_image(image: Image.Image) -> Tensor:
    """A PIL image, RGB to (1, 3, H, W) in [-1, 1], L to (1, 1, H, W) in [0, 1]."""
    levels = torch.from_numpy(np.array(image)).float()
    if image.mode == "L":
        return levels[None, None] / 255
    return levels.permute(2, 0, 1)[None] / 127.5 - 1


def fill_in(picture: Tensor, known: Tensor) -> Tensor:
    """Fill the image (1, 3, H, W) where `known` (1, 1, H, W) is 0 with the blurred colours around it.

    A pyramid: each coarser pixel is the mean of its known pixels; unknown pixels are then interpolated from
    the next coarser level. Mid grey where nothing is known at all.
    """
    height, width = picture.shape[2:]
    if height == width == 1:
        return picture * known
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(picture * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = fill_in(mean, (weight > 0).to(picture))
    return torch.lerp(F.interpolate(coarse, (height, width), mode="bilinear"), picture, known)
