"""The latent space: what each channel holds of an image, and what the VAE loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.figures.contact_sheet import ImageRow
from core.learn.recorder import Watch, decibels, fitted
from core.learn.result import ViewResult

if TYPE_CHECKING:
    from core.inference.pipeline import Pipeline

Array = NDArray[np.float64]
REACH, MAGNIFIED = 3.0, 4.0
_LOW, _MIDDLE, _HIGH = (
    np.array(color, dtype=np.float64) for color in ((13, 148, 136), (245, 245, 244), (217, 119, 6))
)


def latent_space(pipeline: Pipeline, image: Image.Image, *, watch: Watch | None = None) -> ViewResult:
    """Encode an image, show the channels, decode it, and show where it differs. Raises UserError."""
    from core.images.tensors import from_image

    watch = watch or Watch()
    watch.expect(2)
    picture = fitted(image, pipeline)
    latents = pipeline.encode(from_image(picture))  # (1, C, h, w)
    watch.step()
    decoded = pipeline.decode(latents)[0]
    watch.step()
    found: Array = latents[0].double().cpu().numpy()
    error = difference(picture, decoded)
    quality = decibels(picture, decoded)
    share = picture.width * picture.height * 3 / found.size
    words = [
        f"{picture.width}×{picture.height} pixels become {found.shape[0]} channels of {found.shape[2]}×"
        f"{found.shape[1]} numbers, {share:.0f} times fewer; the decoded image has {quality:.1f} dB PSNR.",
        f"Values from −{REACH:g} (teal) over 0 to {REACH:g} (amber). Channels hold brightness, colour and "
        "edges on a coarse grid, not objects: the left of each channel is the left of the image.",
    ]
    first = ImageRow(
        "",
        [
            ("the image", picture),
            ("encoded and decoded", decoded),
            (f"error, {MAGNIFIED:g}×", _grey(error * MAGNIFIED)),
            ("fast linear preview", pipeline.preview(latents)[0].resize(picture.size)),
        ],
        4,
    )
    size = (max(found.shape[2] * 8, 96), max(found.shape[1] * 8, 96))
    maps = [
        (
            f"{i + 1}: {one.mean():+.2f} ± {one.std():.2f}",
            colored(one).resize(size, Image.Resampling.NEAREST),
        )
        for i, one in enumerate(found)
    ]
    numbers = {
        "shape": list(found.shape),
        "times_fewer": share,
        "psnr": quality,
        "error": {"mean": float(error.mean()), "largest": float(error.max())},
        "channels": [{"mean": float(one.mean()), "spread": float(one.std())} for one in found],
    }
    return ViewResult(words, numbers, [first, ImageRow("channels", maps, min(max(len(maps), 4), 6))])


def difference(a: Image.Image, b: Image.Image) -> Array:
    """(H, W) in [0, 1]: absolute difference of two RGB images at each pixel, averaged over the colours."""
    first, second = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (a, b))
    apart: Array = np.abs(first - second).mean(-1) / 255
    return apart


def colored(values: Array) -> Image.Image:
    """Values (h, w) as an image: teal below 0, amber above."""
    share = (values / REACH).clip(-1, 1)[..., None]
    made = np.where(share < 0, _MIDDLE + share * (_MIDDLE - _LOW), _MIDDLE + share * (_HIGH - _MIDDLE))
    return Image.fromarray(np.round(made).astype(np.uint8))


def _grey(values: Array) -> Image.Image:
    """Values (H, W) in [0, 1] as an image."""
    return Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
