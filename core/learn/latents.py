"""The latent space: what each channel holds of a picture, and what the VAE loses of it."""

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
    """Encode a picture, show the channels, decode it, and show where it differs. Raises UserError."""
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
        f"{found.shape[1]} numbers, {share:.0f} times fewer; what comes back has a PSNR of {quality:.1f} dB.",
        f"Channels from −{REACH:g} (teal) over 0 to {REACH:g} (amber). They hold light, colour and edges at "
        "coarse places, not objects: what is at the left of the picture is at the left of each channel.",
    ]
    first = ImageRow(
        "",
        [
            ("the picture", picture),
            ("encoded and decoded", decoded),
            (f"error, {MAGNIFIED:g} times", _grey(error * MAGNIFIED)),
            ("quick preview, linear", pipeline.preview(latents)[0].resize(picture.size)),
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
    """(H, W), from 0 to 1: how far two RGB pictures are apart at each pixel, the mean over the colours."""
    first, second = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (a, b))
    apart: Array = np.abs(first - second).mean(-1) / 255
    return apart


def colored(values: Array) -> Image.Image:
    """(h, w) as a picture: teal below 0, amber above."""
    share = (values / REACH).clip(-1, 1)[..., None]
    made = np.where(share < 0, _MIDDLE + share * (_MIDDLE - _LOW), _MIDDLE + share * (_HIGH - _MIDDLE))
    return Image.fromarray(np.round(made).astype(np.uint8))


def _grey(values: Array) -> Image.Image:
    """(H, W) from 0 to 1 as a picture."""
    return Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
