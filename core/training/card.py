"""The model card and the recipe that are saved in the model's folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from core.training.training_recipe import TrainingRecipe

RECIPE, CARD = "recipe.toml", "README.md"


def recipe_toml(recipe: TrainingRecipe) -> str:
    """The recipe with all its values, as TOML that `train` reads."""
    return "\n".join(_tables(dataclasses.asdict(recipe), ())) + "\n"


def card(recipe: TrainingRecipe) -> str:
    """The model card as Markdown: what the model is, how it was trained and how to use it."""
    defaults, knows = recipe.defaults, recipe.words != "none"
    words = (
        "It makes images of what a prompt says." if knows else "It takes no prompts: leave the prompt empty."
    )
    lines = [
        f"# {recipe.name}",
        f"{words} Trained from scratch with LatentCanvas on `{recipe.data.kind}`, "
        f"{recipe.train.unet.steps} steps of {recipe.train.unet.batch} examples; "
        f"it predicts `{recipe.noise.prediction_type}` and works on {_LATENTS[recipe.latents.kind]}.",
        f"It is best at {defaults.width}x{defaults.height} with {defaults.sampler}, {defaults.schedule}, "
        f"{defaults.steps} steps and cfg scale {defaults.cfg_scale:g}.",
        f"This recipe, also in `{RECIPE}`, trains it again:",
        f"```toml\n{recipe_toml(recipe)}```",
    ]
    return "\n\n".join(lines) + "\n"


_LATENTS = {"vae": "a VAE's latents", "pixels": "pixels", "points": "points in the plane"}


def _tables(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """The plain values of a table, then its sub-tables; None is left out."""
    plain = {key: value for key, value in values.items() if value is not None and not isinstance(value, dict)}
    lines = [f"{key} = {_written(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, dict):
            inner = (*path, key)
            lines += ["", f"[{'.'.join(inner)}]", *_tables(value, inner)]
    return lines


def _written(value: Any) -> str:
    """Numbers, booleans, strings and lists of them are the same in TOML as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
