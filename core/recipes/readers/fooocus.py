"""Fooocus' JSON, in a picture or out of its log.

Its models are SDXL, which is not run here: words and numbers stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.report_builder import ReportBuilder

if TYPE_CHECKING:
    from core.sampling.registry import Registry

_REASONS = {
    "styles": "styles are not here: write them into the prompt",
    "performance": "is a number of steps here",
    "lora": "LoRAs are not applied here",
    "sharpness": "sharpness is not here",
    "adm": "is of SDXL alone",
    "refiner": "one model makes the whole picture here",
    "adaptive": "guidance has one strength here",
    "freeu": "FreeU is not here",
    "vae": "load the model with that VAE (--vae) to have it",
    "version": "says which program wrote it",
    "metadata": "says how it is written",
    "created": "says who made it",
    "full": "the plain prompt is taken",
}


def is_fooocus(data: Mapping[str, Any]) -> bool:
    """Whether JSON looks like Fooocus'."""
    keys = {_plain(key) for key in data}
    return {"prompt", "guidance_scale"} <= keys and bool(keys & {"base_model", "performance", "resolution"})


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """What it says."""
    sheet = ReportBuilder(registry)
    keys = {_plain(key): (str(key), value) for key, value in data.items()}
    for name, field in (("prompt", "prompt"), ("negative_prompt", "negative")):
        if name in keys:
            sheet.prompt(*keys[name], field)
    if "sampler" in keys or "scheduler" in keys:
        sheet.method(keys.get("sampler"), keys.get("scheduler"))
    for name, (key, value) in keys.items():
        _key(sheet, name, key, value)
    return sheet.found("fooocus")


def _key(sheet: ReportBuilder, name: str, key: str, value: Any) -> None:
    match name:
        case "prompt" | "negative_prompt" | "sampler" | "scheduler":
            return
        case "steps":
            sheet.steps(key, value)
        case "guidance_scale":
            sheet.cfg_scale(key, value)
        case "seed":
            sheet.seed(key, value)
        case "resolution":
            sides = re.findall("[0-9]{1,9}", value[:60]) if isinstance(value, str) else []
            sheet.size(key, value, *(sides if len(sides) == 2 else (None, None)))
        case "base_model":
            sheet.model(key, value)
        case "base_model_hash":
            sheet.hash(key, value)
        case "clip_skip":
            sheet.whole(key, value, "clip_skip", 1, 100)
        case _:
            why = (why for start, why in _REASONS.items() if name.startswith(start))
            sheet.ignore(key, value, next(why, "is nothing that is known here"))


def _plain(key: object) -> str:
    """The log writes "Guidance Scale" for guidance_scale."""
    return str(key).lower().replace(" ", "_")
