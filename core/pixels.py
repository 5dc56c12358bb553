"""Between tensors and pictures."""

from __future__ import annotations

from PIL import Image
from torch import Tensor


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [-1, 1], clamped, to PIL images of 8 bits a channel."""
    levels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(level.permute(1, 2, 0).cpu().numpy()) for level in levels]
