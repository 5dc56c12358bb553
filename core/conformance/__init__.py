"""`latentcanvas.testing`, for plugin authors' tests: exact denoisers, noise, and `check_sampler`.

    from latentcanvas.testing import check_sampler
    print(check_sampler(heun, order=2, evals=2))

No network: for a simple distribution of clean latents the optimal denoiser is a formula, and so is
the distribution of a correct sampler's results. torch is only imported when needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.conformance.check import check_sampler
from core.conformance.report import Finding, Report
from core.sampling.exact import Exact, consistency, gaussian, mixture, points

if TYPE_CHECKING:
    from core.sampling.contract import Noise

__all__ = [
    "Exact",
    "Finding",
    "Report",
    "check_sampler",
    "consistency",
    "gaussian",
    "mixture",
    "points",
    "seeded_noise",
]


def seeded_noise(seed: int, count: int, shape: tuple[int, int, int]) -> Noise:
    """The noise source of a run with this seed, for `count` latents of `shape` (C, h, w)."""
    from core.sampling.noise import SeededNoise

    return SeededNoise(seed, count, shape)
