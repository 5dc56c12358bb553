"""Clouds of points in the plane, the denoiser that is exact for them, and how far two clouds are apart.

As for a model of points, a cloud of h * w points is one "latent" (2, h, w): x to the right, then y up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core.errors import UserError
from core.options import hint
from core.testing.exact import Exact

if TYPE_CHECKING:
    from torch import Tensor

Points = NDArray[np.float64]  # (N, 2)
SPREAD = 0.05  # of the Gaussian around each known point, for a density in place of single points


def cloud(name: str, count: int, seed: int = 0) -> Points:
    """`count` points (N, 2) of a cloud with mean about 0 and a spread of about 1. Raises UserError."""
    if name not in CLOUDS:
        raise UserError(f"There is no cloud {name!r}{hint(name, CLOUDS)}")
    if not 1 <= count <= 20_000:
        raise UserError(f"points {count}: must be between 1 and 20000")
    return CLOUDS[name](np.random.default_rng(seed), count)


def _moons(random: Generator, count: int) -> Points:
    angle, lower = random.uniform(0, math.pi, count), random.integers(0, 2, count) == 1
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle)) - 0.5
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle)) - 0.25
    return 1.4 * np.stack([x, y], 1) + random.normal(0, 0.08, (count, 2))


def _spiral(random: Generator, count: int) -> Points:
    angle = np.sqrt(random.uniform(0.02, 1, count)) * 4 * math.pi
    around = np.stack([np.cos(angle), np.sin(angle)], 1) * angle[:, None]
    return 0.16 * around + random.normal(0, 0.05, (count, 2))


def _grid(random: Generator, count: int) -> Points:
    centres = random.integers(0, 3, (count, 2)) * 1.2 - 1.2
    return centres + random.normal(0, 0.12, (count, 2))


def _letters(random: Generator, count: int, text: str = "LC") -> Points:
    canvas = Image.new("L", (160, 120))
    ImageDraw.Draw(canvas).text((80, 60), text, 255, ImageFont.load_default(96), anchor="mm")
    rows, columns = np.nonzero(np.asarray(canvas) > 127)
    chosen = random.integers(0, len(rows), count)
    places = np.stack([columns[chosen], -rows[chosen]], 1) + random.uniform(-0.5, 0.5, (count, 2))
    made: Points = (places - [np.mean(columns), -np.mean(rows)]) / 27
    return made


CLOUDS: dict[str, Callable[[Generator, int], Points]] = {
    "moons": _moons,
    "spiral": _spiral,
    "grid": _grid,
    "letters": _letters,
}


def exact_denoiser(known: Points, spread: float = SPREAD) -> Exact:
    """The best denoiser for points that are each N(k, spread^2), k one of `known` (K, 2), all as likely.

    The score is (denoised - x) / sigma^2. With spread 0 it is the one that a network of unlimited size would
    learn from these points alone: it leads back to them (Karras et al. 2022, arXiv:2206.00364, eq. 57).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        import torch

        centres = torch.from_numpy(known).to(x)
        places = x.movedim(1, -1).reshape(-1, 2)  # (B h w, 2)
        variance = spread**2 + sigma**2
        gaps = torch.cdist(places, centres, compute_mode="donot_use_mm_for_euclid_dist")
        mean = (-gaps.square() / (2 * variance)).softmax(-1) @ centres
        share = spread**2 / variance
        clean = share * places + (1 - share) * mean
        return clean.reshape(x.shape[0], *x.shape[2:], 2).movedim(-1, 1)

    return Exact(denoise)


def as_latent(points: Points) -> Tensor:
    """(N, 2) to (1, 2, 1, N) float32."""
    import torch

    return torch.from_numpy(points).float().T[None, :, None]


def as_points(latent: Tensor) -> Points:
    """(1, 2, h, w) to (h * w, 2)."""
    made: Points = latent[0].reshape(2, -1).T.double().cpu().numpy()
    return made


def distance(a: Points, b: Points, directions: int = 64) -> float:
    """The sliced Wasserstein-2 distance of two clouds (N, 2) and (M, 2): 0 for the same one.

    The mean over directions of how far the points must be carried along each: Bonneel et al. 2015, Sliced and
    Radon Wasserstein Barycenters of Measures.
    """
    angles = (np.arange(directions) + 0.5) * math.pi / directions
    onto = np.stack([np.cos(angles), np.sin(angles)])  # (2, D)
    shares = (np.arange(512) + 0.5) / 512
    gaps = np.quantile(a @ onto, shares, axis=0) - np.quantile(b @ onto, shares, axis=0)
    return float(np.sqrt(np.square(gaps).mean()))
