"""The storybook as data: endless images, each a pure function of (seed, split, index)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.models.vae import AutoencoderKL
from core.scenes.backdrops import PLACES
from core.scenes.nouns import FOLDER
from core.scenes.painter import Painter
from core.scenes.scene import SHAPE_KINDS, Split
from core.scenes.storybook_captions import EXAMPLES, WHERE, caption, named
from core.scenes.storybook_scene import CELLS, Item, StorybookSpec, kinds, sample
from core.toml_records import read_toml
from core.training.stages.principal import block_map

SIZE = 256
CAPTIONS_READ = 20_000  # to find every word that captions have


@cache
def painter(cell: int) -> Painter:
    """One painter per size, which keeps its rasterised sprites."""
    return Painter(cell)


@dataclass(frozen=True)
class Storybook:
    """`count` images from one seed and one split."""

    seed: int
    split: Split
    count: int

    @property
    def name(self) -> str:
        """For files: its split."""
        return self.split

    @property
    def size(self) -> int:
        """The side of an image."""
        return SIZE

    def rng(self, index: int, purpose: str) -> random.Random:
        """A separate generator for each image and purpose."""
        return random.Random(f"{self.seed}/{self.split}/{index}/{purpose}")

    def spec(self, index: int) -> StorybookSpec:
        """What image `index` shows."""
        return sample(self.rng(index, "spec"), self.split)

    def caption(self, index: int, purpose: str) -> str:
        """One of the captions of image `index`, the same for the same purpose."""
        return caption(self.spec(index), self.rng(index, purpose))

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Image `index`, (256, 256, 3)."""
        return painter(SIZE // CELLS).image(self.spec(index))

    def pictures(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Images one after the other, each (size, size, 3)."""
        return map(self.picture, indices)

    def examples(self) -> tuple[str, ...]:
        """Prompts that make attractive images."""
        return EXAMPLES

    def words(self) -> frozenset[str]:
        """Every word that a caption can have."""
        images = Storybook(0, "seen", CAPTIONS_READ)
        texts = (images.caption(i, "words") for i in range(images.count))
        return frozenset(word.strip(",") for text in texts for word in text.split())

    def subjects(self) -> dict[str, NDArray[np.uint8]]:
        """Phrases for prompts, one for each thing, shape and place; a small image (size, size, 3) of each."""
        specs = {named(kind): StorybookSpec("white", items=(Item(kind, None, CELLS),)) for kind in kinds()}
        specs |= {
            named(f"red {kind}"): StorybookSpec("white", items=(Item(kind, "red", CELLS),))
            for kind in SHAPE_KINDS
        }
        specs |= {WHERE[name][0]: StorybookSpec(name, place.hours[0]) for name, place in PLACES.items()}
        drawing = Painter(SIZE // CELLS // 2)
        small = (Image.fromarray(drawing.image(spec)).reduce(2) for spec in specs.values())
        return dict(zip(specs, map(np.asarray, small), strict=True))

    def nearest(self) -> dict[str, tuple[str, ...]]:
        """The known words nearest in meaning to words that no caption has."""
        offered = read_toml(FOLDER / "related.toml")
        return {word: tuple(known.split(", ")) for known, words in offered.items() for word in words.split()}


class DrawnPictures:
    """The images of a storybook, drawn when indexed, in place of an array of stored ones."""

    def __init__(self, images: Storybook) -> None:
        self.images = images
        self.shape = (images.count, SIZE, SIZE, 3)

    def __len__(self) -> int:
        return self.images.count

    def __getitem__(self, wanted: Any) -> NDArray[np.uint8]:
        """Of a slice: (N, 256, 256, 3). Of an index, a slice of rows and one of columns: that part of one."""
        if isinstance(wanted, slice):
            return np.stack([self.images.picture(i) for i in range(self.images.count)[wanted]])
        index, rows, columns = wanted
        part: NDArray[np.uint8] = self.images.picture(int(index))[rows, columns]
        return part


class DrawnLatents:
    """The latents of a storybook, drawn when indexed, in place of an array of stored ones.

    The encoder must be principal, with `averaged` halvings that take a mean: then images are drawn at that
    size, and the encoder is one product.
    """

    @torch.no_grad()
    def __init__(self, images: Storybook, vae: AutoencoderKL, averaged: int) -> None:
        self.images, self.painter = images, painter((SIZE >> averaged) // CELLS)
        self.block = vae.config.reduction >> averaged
        weights, offset = block_map(vae, averaged)
        self._map = weights.cpu().numpy() * 2  # of pixels between 0 and 1
        self._offset = (offset - weights.sum(0)).cpu().numpy()
        side = SIZE // vae.config.reduction
        self.shape = (images.count, len(self._offset), side, side)

    def __len__(self) -> int:
        return self.images.count

    def __getitem__(self, wanted: Any) -> NDArray[np.float32]:
        """Of a slice, or an array of indices: (N, C, h, w)."""
        indices = range(self.images.count)[wanted] if isinstance(wanted, slice) else wanted
        block, (_, channels, side, _) = self.block, self.shape
        drawn = np.empty((len(indices), side, side, 3, block, block), np.float32)
        for place, index in enumerate(indices):
            image = self.painter.paint(self.images.spec(int(index)))
            drawn[place] = image.reshape(side, block, side, block, 3).transpose(0, 2, 4, 1, 3)
        found: NDArray[np.float32] = drawn.reshape(-1, 3 * block * block) @ self._map + self._offset
        latents = found.reshape(len(indices), side, side, channels).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(latents)
