"""Images in memory, each with the captions that fit it: the form of every data set but scenes and points."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NO_WORDS = ("",)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Images (N, size, size, 3) or in grey (N, size, size), and the captions of each.

    captions: the choices, by label; labels: which of them each image has, (N,). name: for files.
    """

    name: str
    seed: int
    stored: NDArray[np.uint8]
    labels: NDArray[np.int64]
    captions: Sequence[Sequence[str]]

    @property
    def count(self) -> int:
        return len(self.stored)

    @property
    def size(self) -> int:
        """The side of an image in pixels."""
        return int(self.stored.shape[1])

    def caption(self, index: int, purpose: str) -> str:
        """One of the captions of image `index`, the same for the same purpose."""
        rng = random.Random(f"{self.seed}/{self.name}/{index}/{purpose}")
        return rng.choice(self.captions[int(self.labels[index])])

    def pictures(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Images one after the other, (size, size, 3)."""
        for index in indices:
            picture = self.stored[index]
            yield picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)

    def examples(self) -> tuple[str, ...]:
        """Up to ten captions to try, of different labels."""
        names = [choices[0] for choices in self.captions if choices[0]]
        step = max(len(names) // 10, 1)
        return tuple(names[::step][:10])

    def words(self) -> frozenset[str]:
        """Every word of the captions, in lower case."""
        return frozenset(
            word for choices in self.captions for text in choices for word in text.lower().split()
        )


def digit_captions() -> list[tuple[str, ...]]:
    """Captions for the ten digits."""
    return [(str(i), name, _one(name), f"the digit {i}") for i, name in enumerate(DIGITS)]


def name_captions(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Captions for named classes: "cat", "a cat"."""
    return [(name, _one(name)) for name in names]


def _one(name: str) -> str:
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"
