"""Clouds of points in the plane, their exact denoiser, and the distance between two clouds.

As in a model of points, a cloud of h * w points is one "latent" (2, h, w): channel 0 is x, channel 1 is y.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.checks import hint
from core.errors import UserError
from core.sampling.exact import Exact
from core.training.densities import DENSITIES

if TYPE_CHECKING:
    from torch import Tensor

Points = NDArray[np.float64]  # (N, 2)
SPREAD = 0.05  # standard deviation of the Gaussian around each data point, which makes the points a density


def cloud(name: str, count: int, seed: int = 0) -> Points:
    """`count` points (N, 2) of one of the clouds that models of points train on. Raises UserError."""
    if name not in DENSITIES:
        raise UserError(f"There is no cloud {name!r}{hint(name, DENSITIES)}")
    if not 1 <= count <= 20_000:
        raise UserError(f"points {count}: must be between 1 and 20000")
    return DENSITIES[name](np.random.default_rng(seed), count)


def exact_denoiser(known: Points, spread: float = SPREAD) -> Exact:
    """The optimal denoiser for an equal mixture of the Gaussians N(k, spread^2), k in `known` (K, 2).

    The score is (denoised - x) / sigma^2. With spread 0 this is what a network of unlimited size would learn
    from these points: it leads back to exactly them (Karras et al. 2022, arXiv:2206.00364, eq. 57).
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
    """The sliced Wasserstein-2 distance between two clouds (N, 2) and (M, 2): 0 for equal clouds.

    Root mean square, over directions, of how far points must move along each: Bonneel et al. 2015, Sliced and
    Radon Wasserstein Barycenters of Measures.
    """
    angles = (np.arange(directions) + 0.5) * math.pi / directions
    onto = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (D, 2)
    gaps = quantiles(onto @ a.T) - quantiles(onto @ b.T)
    return float(np.sqrt(np.square(gaps).mean()))


def quantiles(values: Points, count: int = 512) -> Points:
    """(D, N) to (D, count) evenly spaced, interpolated quantiles: as `np.quantile`, in 1% of the time."""
    ordered = np.sort(values, axis=1)
    at = (np.arange(count) + 0.5) / count * (values.shape[1] - 1)
    below = at.astype(int)
    above = np.minimum(below + 1, values.shape[1] - 1)
    found: Points = ordered[:, below] + (at - below) * (ordered[:, above] - ordered[:, below])
    return found
