"""Points of a density in the plane, each a cloud of one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.training.densities import DENSITIES


@dataclass(frozen=True)
class PointSet:
    """`count` points of a density, fresh for each seed."""

    name: str
    seed: int
    count: int
    density: str

    def caption(self, index: int, purpose: str) -> str:
        """The density's name."""
        return self.density

    def latents(self) -> NDArray[np.float32]:
        """Each point as a cloud of one point, (count, 2, 1, 1)."""
        points = DENSITIES[self.density](np.random.default_rng(self.seed), self.count)
        return points.astype(np.float32)[:, :, None, None]

    def examples(self) -> tuple[str, ...]:
        return (self.density,)

    def words(self) -> frozenset[str]:
        return frozenset((self.density,))
