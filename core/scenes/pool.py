"""Images drawn once and kept in one file, so that training reads instead of drawing.

Image `i` of a pool is a pure function of (seed, split, i): nothing but the pixels has to be stored.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.scenes.captions import EXAMPLES, caption, words
from core.scenes.drawing import draw
from core.scenes.scene import Spec, Split, sample


@dataclass(frozen=True)
class Pool:
    """`count` images of `size` x `size` from one seed and one split."""

    seed: int
    split: Split
    count: int
    size: int = 128

    def rng(self, index: int, purpose: str) -> random.Random:
        """A separate generator for each image and purpose."""
        return random.Random(f"{self.seed}/{self.split}/{index}/{purpose}")

    @property
    def name(self) -> str:
        """The split, used in file names."""
        return self.split

    def caption(self, index: int, purpose: str) -> str:
        """One of the captions of image `index`, the same for the same purpose."""
        return caption(self.spec(index), self.rng(index, purpose))

    def examples(self) -> tuple[str, ...]:
        """Prompts that make attractive images."""
        return EXAMPLES

    def words(self) -> frozenset[str]:
        """Every word that a caption can have."""
        return words()

    def spec(self, index: int) -> Spec:
        """What image `index` shows."""
        return sample(self.rng(index, "spec"), self.split)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Image `index`, (size, size, 3)."""
        return np.asarray(draw(self.spec(index), self.rng(index, "draw"), self.size))

    def pictures(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Images one after the other, each (size, size, 3), drawn by all cores."""
        context = multiprocessing.get_context("spawn")  # forking a process that runs threads may lock it
        with context.Pool(os.cpu_count(), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
            yield from workers.imap(self.picture, indices, chunksize=64)

    def on_disk(self, folder: Path, advance: Callable[[int], object]) -> NDArray[np.uint8]:
        """All images, (count, size, size, 3), mapped from a file in `folder`; drawn first if missing.

        `advance` is called for each drawn image.
        """
        path = folder / f"pictures-{self.split}-{self.seed}-{self.count}x{self.size}.npy"
        shape = (self.count, self.size, self.size, 3)
        if not path.exists():
            unfinished = path.with_suffix(".part")
            array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
            for index, picture in enumerate(self.pictures(range(self.count))):
                array[index] = picture
                advance(1)
            array.flush()
            unfinished.rename(path)
        stored: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return stored


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes -> (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
