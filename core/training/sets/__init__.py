"""What models are trained on: drawn by the project, or read from a folder that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.scenes.painter import resvg
from core.scenes.pool import Pool
from core.training.sets.cifar import cifar_set
from core.training.sets.digits import digit_set
from core.training.sets.folder import folder_set
from core.training.sets.labelled import PictureSet
from core.training.sets.mnist import mnist_set
from core.training.sets.points import PointSet
from core.training.sets.shapes import shape_set
from core.training.sets.storybook import Storybook

if TYPE_CHECKING:
    from core.training.training_recipe import TrainingRecipe

__all__ = ["Data", "PictureSet", "PointSet", "Pool", "Storybook", "open_set"]

TEST_PICTURES = 512
# Each of them has `seed`, `count` and `name`, and says what picture `index` may be called: `caption`.
Data = Pool | PictureSet | PointSet | Storybook
_DRAWN = {"digits": digit_set, "shapes": shape_set}
_READ = {"mnist": mnist_set, "cifar10": cifar_set, "folder": folder_set}


def open_set(recipe: TrainingRecipe, part: Literal["train", "test"]) -> Data:
    """What the recipe trains on, or what it never sees and is measured on. Raises UserError for files that
    are missing or damaged, and for a library that is missing.
    """
    kind, size, seed = recipe.data.kind, recipe.pictures.size, recipe.seed
    count = TEST_PICTURES
    if part == "train":
        count = max(recipe.pictures.unet, recipe.pictures.vae) if kind in _READ else recipe.pictures.unet
    elif kind not in _READ:
        seed += 1
    if kind == "scenes":
        return Pool(seed, "seen" if part == "train" else "held_out", count, size)
    if kind == "storybook":
        resvg()  # else it would be missed later, when a run has begun
        return Storybook(seed, "seen" if part == "train" else "held_out", count)
    if kind == "points":
        return PointSet(part, seed, count, recipe.data.density)
    if kind in _DRAWN:
        return _DRAWN[kind](part, seed, count, size)
    return _READ[kind](Path(recipe.data.path).expanduser(), part, seed, count, size)
