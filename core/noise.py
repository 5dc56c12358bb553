"""Seeded noise, made for each image by itself, on the CPU, whatever the device and the batch size."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter

import torch
from torch import Tensor


def start_noise(seed: int, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Noise (count, C, h, w) to start `count` pictures from: image i is what `seed + i` gives alone.

    `shape` is (C, h, w) of one latent. The values are those that diffusers draws for one picture with a CPU
    generator, so that pictures can be compared.
    """
    return torch.cat([_normal(seed + i, shape) for i in range(count)])


class SeededNoise:
    """The `noise(sigma, target)` that samplers draw from: unit variance, a fresh draw each call.

    A draw is a pure function of (seed of the image, sigma, number of the draw at that sigma). So a picture
    depends neither on the batch it is in, nor on the device, nor on where a resumed run starts. One object
    serves one run.
    """

    def __init__(
        self, seed: int, count: int, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.seed, self.count, self.shape, self.device = seed, count, shape, device
        self.draws: Counter[bytes] = Counter()

    def __call__(self, sigma: float, target: float) -> Tensor:
        """(count, C, h, w) float32 on the device. `target` is for sources that are paths; ignored here."""
        level = struct.pack("<f", sigma)  # single precision, as a noise level may have been kept in a file
        number = self.draws[level]
        self.draws[level] += 1
        seeds = [_mixed(self.seed + i, level, number) for i in range(self.count)]
        return torch.cat([_normal(seed, self.shape) for seed in seeds]).to(self.device)


def _normal(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """(1, C, h, w)"""
    return torch.randn((1, *shape), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)


def _mixed(seed: int, level: bytes, number: int) -> int:
    """A seed for one draw. A hash, because seeds that differ by one must not share draws.

    torch's CPU generator keeps 32 bits of it, as of every seed.
    """
    data = struct.pack("<qq", seed, number) + level
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
