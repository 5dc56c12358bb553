"""One coloured shape in the middle of a plain background, named by colour and kind."""

from __future__ import annotations

import random

import numpy as np

from core.scenes.drawing import draw
from core.scenes.scene import COLORS, SHAPE_KINDS, Shapes, Thing
from core.training.sets.labelled import PictureSet

# Colours of shapes and backgrounds that can be told apart in a small image.
INKS = ("red", "yellow", "green", "blue", "purple", "white")
PAPERS = ("black", "gray", "brown")


def shape_set(name: str, seed: int, count: int, size: int) -> PictureSet:
    """`count` images; the label is colour and kind."""
    names = [(ink, kind) for ink in INKS for kind in SHAPE_KINDS]
    labels = np.random.default_rng(seed).integers(len(names), size=count)
    assert all(color in COLORS for color in (*INKS, *PAPERS))
    pictures = []
    for i, label in enumerate(labels):
        rng = random.Random(f"{seed}/{name}/{i}")
        ink, kind = names[int(label)]
        spec = Shapes(rng.choice(PAPERS), "plain", None, (Thing(kind, ink, "large"),))
        pictures.append(np.asarray(draw(spec, rng, size)))
    captions = [(f"a {ink} {kind}", f"{ink} {kind}", kind) for ink, kind in names]
    return PictureSet(name, seed, np.stack(pictures), labels.astype(np.int64), captions)
