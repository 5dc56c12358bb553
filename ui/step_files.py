"""Files of a run's steps: one step as a PNG that says what it is, all steps as a GIF or on a sheet."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL.PngImagePlugin import PngInfo

from core.images import PARAMETERS_CHUNK, RECIPE_CHUNK, Recipe
from core.infotext import infotext

if TYPE_CHECKING:
    from PIL.Image import Image

    from core.trajectory import Trajectory

STEP_CHUNK = "latentcanvas_step"
VIEW_WORDS = {
    "clean": "clean estimate",
    "noisy": "noisy state",
    "noise": "predicted noise",
    "conditional": "conditional estimate",
    "unconditional": "unconditional estimate",
    "difference": "conditional less unconditional estimate",
}


def step_png(picture: Image, steps: Trajectory, k: int, view: str, image: int, source: str) -> bytes:
    """One decoded step as a PNG file that says which step and view of which run it is.

    The clean estimate of a run from words alone is also the picture of a recipe, that of the run stopped
    there, and then carries it. The rest say what they are in chunks that no program takes for a recipe.
    """
    recipe = replace(steps.recipe, settings=steps.settings.for_image(image))
    chunks = PngInfo()
    what = f"Step {k} of {steps.total}, {VIEW_WORDS[view]}, of {source}"
    chunks.add_text("Description", what)
    about = {"step": k, "total": steps.total, "view": view, "of": source, "recipe": recipe.to_dict()}
    chunks.add_text(STEP_CHUNK, json.dumps(about, separators=(",", ":")))
    if view == "clean" and recipe.settings.image_sha256 is None:
        _add_recipe(chunks, _stopped(recipe, k, len(steps.steps)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def _stopped(recipe: Recipe, k: int, made: int) -> Recipe:
    if k == made:
        return recipe
    return replace(recipe, settings=replace(recipe.settings, stop_after=k))


def _add_recipe(chunks: PngInfo, recipe: Recipe) -> None:
    chunks.add_text(PARAMETERS_CHUNK, infotext(recipe))
    chunks.add_text(RECIPE_CHUNK, json.dumps(recipe.to_dict(), separators=(",", ":")))
