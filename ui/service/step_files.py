"""Files of a run's steps: one step as a PNG with metadata, all steps as a GIF or a contact sheet."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.recipes.infotext import infotext
from core.recipes.png import PARAMETERS_CHUNK, RECIPE_CHUNK
from core.recipes.recipe import Recipe

if TYPE_CHECKING:
    from core.inference.trajectory import Trajectory

STEP_CHUNK = "latentcanvas_step"
VIEW_WORDS = {
    "clean": "clean estimate",
    "noisy": "noisy state",
    "noise": "predicted noise",
    "conditional": "conditional estimate",
    "unconditional": "unconditional estimate",
    "difference": "conditional minus unconditional estimate",
}


def step_png(picture: Image.Image, steps: Trajectory, k: int, view: str, image: int, source: str) -> bytes:
    """One decoded step as a PNG file whose metadata names the step, the view and the run.

    The clean estimate of a run without an init image is also the result of a recipe, that of the run stopped
    at this step, and carries it: running it gives this image up to the rounding of the saved estimates. Other
    views describe themselves in chunks that no program reads as a recipe.
    """
    recipe = replace(steps.recipe, settings=steps.settings.for_image(image))
    what = f"Step {k} of {steps.total}, {VIEW_WORDS[view]}, of {source}"
    about = {"step": k, "total": steps.total, "view": view, "of": source, "recipe": recipe.to_dict()}
    chunks = _description_chunk(what)
    chunks.add_text(STEP_CHUNK, _json(about))
    if view == "clean" and recipe.settings.image_sha256 is None:
        own = recipe if k == len(steps.steps) else _stopped(recipe, k)
        chunks.add_text(PARAMETERS_CHUNK, infotext(own))
        chunks.add_text(RECIPE_CHUNK, _json(own.to_dict()))
    return _png(picture, chunks)


def gif(steps: Trajectory, view: str, image: int, final: bytes) -> bytes:
    """The steps in a view as a GIF; the clean estimates end with the finished image, `final`, a PNG."""
    from core.inference.animation import animation

    if view != "clean":
        return animation(steps, view=view, image=image)
    with Image.open(io.BytesIO(final)) as picture:
        return animation(steps, view=view, image=image, final=picture)


def sheet(steps: Trajectory, view: str, image: int, source: str) -> bytes:
    """The steps in a view on a contact sheet, a PNG with a description."""
    from core.inference.animation import contact_sheet

    what = f"The {len(steps.steps)} steps of {source}, {VIEW_WORDS[view]}"
    return _png(contact_sheet(steps, view=view, image=image), _description_chunk(what))


def _stopped(recipe: Recipe, k: int) -> Recipe:
    """The recipe of the run stopped after step `k`; for the first steps of a branch, of its parent."""
    settings = recipe.settings
    while settings.branch is not None and k <= settings.branch.step:
        settings = settings.branch.settings
    return replace(recipe, settings=replace(settings, stop_after=k))


def _description_chunk(what: str) -> PngInfo:
    chunks = PngInfo()
    chunks.add_text("Description", what)
    return chunks


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _png(picture: Image.Image, chunks: PngInfo) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()
