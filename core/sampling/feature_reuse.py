"""Approximations of a network that save time: feature reuse and token merging.

Deep features change little from one noise level to the next, so they are reused from an earlier evaluation
(DeepCache, Ma et al. 2023, arXiv:2312.00858). For token merging see core/models/fast/token_merging.py. Both
change the image; docs/benchmarks.md says by how much.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class DeepNetwork(Protocol):
    def evaluate(
        self, x: Tensor, timesteps: Tensor, context: Tensor, *, deep: Tensor | None, merging: float
    ) -> tuple[Tensor, Tensor]:
        """A prediction for x (B, C, h, w) and its deep features; `deep` are features to use instead of the
        deeper levels.
        """
        ...


class Savings:
    """A network with feature reuse and token merging for one run; each run has its own.

    every: one in N evaluations runs the whole network, and those after it reuse its deep features. The whole
    network is also run at the first evaluation, at a higher noise level than the last whole one (samplers
    that go back up, or retry a step), and with guidance after a whole one without it. So this depends only on
    the noise levels, never on the images: each image of a batch is the same as alone.
    merging: see `UNet.evaluate`.
    """

    def __init__(self, network: DeepNetwork, every: int = 1, merging: float = 0.0) -> None:
        self.network, self.every, self.merging = network, every, merging
        self.whole = True  # whether the latest evaluation runs the whole network
        self._age = 0  # evaluations since the last whole one
        self._sigma, self._halves = 0.0, 0  # of the last whole one
        self._kept: dict[int, Tensor] = {}  # deep features by the number of the first image

    @classmethod
    def of(cls, network: DeepNetwork, every: int, merging: float) -> Savings | None:
        """The savings requested; None if there are none."""
        return None if every == 1 and merging == 0 else cls(network, every, merging)

    def begin(self, sigma: float, halves: int) -> None:
        """Start an evaluation at this noise level, of 1 half (the conditional one) or 2."""
        self._age += 1
        self.whole = self._age >= self.every or sigma > self._sigma or halves > self._halves
        if self.whole:
            self._age, self._sigma, self._halves = 0, sigma, halves
            self._kept.clear()
        elif halves < self._halves:  # drop the unconditional features, which would be out of date later
            self._kept = {first: deep.chunk(self._halves)[0] for first, deep in self._kept.items()}
            self._halves = halves

    def __call__(self, first: int, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The network's prediction (B, C, h, w) for the images from number `first` on."""
        deep = None if self.whole else self._kept[first]
        output, deep = self.network.evaluate(x, timesteps, context, deep=deep, merging=self.merging)
        if self.whole and self.every > 1:
            self._kept[first] = deep
        return output
