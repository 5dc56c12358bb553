"""Approximations of a network that save time: features of an earlier evaluation, and merged tokens.

Deep features change little from one noise level to the next, so they are taken from an earlier evaluation
(DeepCache, Ma et al. 2023, arXiv:2312.00858); what merging tokens is, core/models/fast/token_merging.py says.
Both give another picture than the exact network: docs/benchmarks.md has by how much.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class DeepNetwork(Protocol):
    def evaluate(
        self, x: Tensor, timesteps: Tensor, context: Tensor, *, deep: Tensor | None, merging: float
    ) -> tuple[Tensor, Tensor]:
        """A prediction, and the deep features behind it; with `deep` these take the deeper levels' place."""
        ...


class Savings:
    """A network for one run of a sampler, whose features it keeps: each run has its own.

    every: one of so many evaluations runs the whole network, and those after it take its deep features.
    Whole are also the first evaluation, one at a higher noise level than the latest whole one (samplers that
    go back up, or try a step again), and one with guidance after a whole one without it. So what an
    evaluation does depends on the noise levels alone, never on the pictures: those of a batch are what they
    are alone.
    merging: see `UNet.evaluate`.
    """

    def __init__(self, network: DeepNetwork, every: int = 1, merging: float = 0.0) -> None:
        self.network, self.every, self.merging = network, every, merging
        self.whole = True  # whether the latest evaluation was, or is
        self._age = 0  # evaluations since the latest whole one
        self._sigma, self._halves = 0.0, 0  # of the latest whole one
        self._kept: dict[int, Tensor] = {}  # deep features by the number of the first image

    @classmethod
    def of(cls, network: DeepNetwork, every: int, merging: float) -> Savings | None:
        """The savings that are asked for; None where there are none."""
        return None if every == 1 and merging == 0 else cls(network, every, merging)

    def begin(self, sigma: float, halves: int) -> None:
        """An evaluation begins at this noise level: of 1 half, the conditional one, or of 2."""
        self._age += 1
        self.whole = self._age >= self.every or sigma > self._sigma or halves > self._halves
        if self.whole:
            self._age, self._sigma, self._halves = 0, sigma, halves
            self._kept.clear()
        elif halves < self._halves:  # the unconditional features are of no more use: they would grow old
            self._kept = {first: deep.chunk(self._halves)[0] for first, deep in self._kept.items()}
            self._halves = halves

    def __call__(self, first: int, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """What the network predicts for the images from number `first` on: (B, C, h, w)."""
        deep = None if self.whole else self._kept[first]
        output, deep = self.network.evaluate(x, timesteps, context, deep=deep, merging=self.merging)
        if self.whole and self.every > 1:
            self._kept[first] = deep
        return output
