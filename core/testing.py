"""What plugin authors test with, as `latentcanvas.testing`: denoisers that are known exactly, and noise.

No network: for a simple distribution of clean latents the best denoiser is a formula, and so is the
distribution that a right sampler must end in. torch is not imported before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from core.sampling import Denoise, Noise


def gaussian(mean: float | Tensor = 0.0, std: float = 1.0) -> Denoise:
    """The exact denoiser for clean latents that are N(mean, std^2), every number by itself.

    `mean` is a number or a tensor that broadcasts to (B, C, h, w). Along the probability-flow ODE
    (x - mean) / sqrt(std^2 + sigma^2) stays what it was, which gives any deterministic sampler's exact
    result.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        share = std**2 / (std**2 + sigma**2)
        return share * x + (1 - share) * mean

    return denoise


def points(clean: Tensor) -> Denoise:
    """The exact denoiser for latents that are one of `clean` (K, C, h, w), each as likely as the others.

    It is their mean, weighted by how well each explains x: Karras et al. 2022, arXiv:2206.00364, eq. 57.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        known = clean.to(x)
        gaps = x.flatten(1)[:, None] - known.flatten(1)[None]  # (B, K, C h w)
        weights = (-gaps.square().sum(-1) / (2 * sigma**2)).softmax(-1)  # (B, K)
        return (weights @ known.flatten(1)).reshape(x.shape)

    return denoise


def seeded_noise(seed: int, count: int, shape: tuple[int, int, int]) -> Noise:
    """The noise source that a run with this seed has, for `count` latents of `shape` (C, h, w)."""
    from core.noise import SeededNoise

    return SeededNoise(seed, count, shape)
