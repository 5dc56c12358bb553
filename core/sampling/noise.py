"""Seeded noise, drawn per image on the CPU, whatever the device and the batch size.

`SeededNoise` is a fresh draw each time, `BrownianNoise` the increments of a path.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from functools import lru_cache

import torch
from torch import Tensor

from core.sampling.contract import Noise, NoiseKind


def start_noise(seed: int, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Start noise (count, C, h, w) of `count` images: image i is what `seed + i` gives alone.

    `shape` is (C, h, w) of one latent. The values are those that diffusers draws for one image with a CPU
    generator, so images can be compared.
    """
    return torch.cat([_normal(seed + i, shape) for i in range(count)])


class SeededNoise:
    """The `noise(sigma, target)` that samplers draw from: unit variance, a fresh draw each call.

    A draw is a pure function of (seed of the image, sigma, number of the draw at that sigma). So an image
    depends neither on the batch it is in, nor on the device, nor on where a resumed run starts. One object
    serves one run.
    """

    def __init__(
        self, seed: int, count: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.seed, self.count, self.shape, self.device = seed, count, shape, device
        self.draws: Counter[bytes] = Counter()

    def __call__(self, sigma: float, target: float) -> Tensor:
        """(count, C, h, w) float32 on the device. `target` is ignored here; Brownian paths use it."""
        level = struct.pack("<f", sigma)  # single precision, as a noise level may come from a file
        number = self.draws[level]
        self.draws[level] += 1
        seeds = [_mixed(self.seed + i, level, number) for i in range(self.count)]
        return torch.cat([_normal(seed, self.shape) for seed in seeds]).to(self.device)


def _normal(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """(1, C, h, w)"""
    return torch.randn((1, *shape), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)


def _mixed(seed: int, level: bytes, number: int) -> int:
    """A seed for one draw. A hash, because seeds that differ by one must not share draws.

    torch's CPU generator uses 32 bits of any seed.
    """
    data = struct.pack("<qq", seed, number) + level
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class BrownianNoise:
    """The `noise(sigma, target)` of one Brownian path per seed, for samplers of a diffusion SDE.

    The path's time is log sigma. A draw is its increment over the step, scaled to unit variance, and so a
    pure function of (seed of the image, sigma, target): many small steps add up to the noise of a large one,
    and the image converges as the number of steps grows. Levels are rounded to 6 parts in a million, which
    changes no distribution: adjacent steps stay adjacent, and disjoint ones independent.

    The path is a tree of Brownian bridges over all possible noise levels (6e-6 to 1.6e5), with its own draw
    for each midpoint: Li et al. 2020, arXiv:2001.01328, section 4.
    """

    DEPTH = 22
    REACH = 12.0  # log sigma is between -REACH and REACH

    def __init__(
        self, seed: int, count: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.seed, self.count, self.shape, self.device = seed, count, shape, device
        # The midpoints of the last few levels: successive steps share most of them.
        self._middle = lru_cache(maxsize=4 * self.DEPTH)(self._bridge)

    def __call__(self, sigma: float, target: float) -> Tensor:
        """(count, C, h, w) float32 on the device, of unit variance; the same for the same interval."""
        start, end = self._place(sigma), self._place(target)
        if start == end:  # below the grid's resolution: use its shortest interval here
            start, end = max(start, 1), max(start, 1) - 1
        increment = self._path(start) - self._path(end)
        return increment.div_(math.sqrt(abs(start - end) * self._cell)).to(self.device)

    @property
    def _cell(self) -> float:
        return 2 * self.REACH / (1 << self.DEPTH)

    def _place(self, sigma: float) -> int:
        """The level's index in the finest grid, from 0."""
        share = (math.log(sigma) + self.REACH) / (2 * self.REACH) if sigma > 0 else 0.0
        return round(min(max(share, 0.0), 1.0) * (1 << self.DEPTH))

    def _path(self, place: int) -> Tensor:
        """The path (count, C, h, w) at a place; 0 at place 0."""
        return torch.zeros(self.count, *self.shape) if place == 0 else self._middle(place)

    def _bridge(self, place: int) -> Tensor:
        """The last place is drawn given the first, any other given its two neighbours one level up."""
        drawn = self._draw(place)
        if place == 1 << self.DEPTH:
            return drawn.mul_(math.sqrt(2 * self.REACH))
        half = place & -place
        drawn.mul_(math.sqrt(half * self._cell / 2))
        return drawn.add_(self._path(place - half), alpha=0.5).add_(self._path(place + half), alpha=0.5)

    def _draw(self, place: int) -> Tensor:
        """A new standard normal tensor (count, C, h, w), which the caller may change in place."""
        key = b"path" + struct.pack("<i", place)
        drawn, generator = torch.empty(self.count, *self.shape), torch.Generator("cpu")
        for i, one in enumerate(drawn):
            one.normal_(generator=generator.manual_seed(_mixed(self.seed + i, key, 0)))
        return drawn


def noise_source(
    kind: NoiseKind, seed: int, count: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Noise:
    """The noise source of a run, of the kind that its sampler was registered with."""
    return (BrownianNoise if kind == "brownian" else SeededNoise)(seed, count, shape, device)
