"""Fooocus' JSON, from an image or its log.

Its models are SDXL, which is not supported: only prompts and numbers are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.prompts.grammars import read_comfyui
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.report_builder import ReportBuilder

if TYPE_CHECKING:
    from core.sampling.registry import Registry

_REASONS = {
    "styles": "styles are not supported: write them into the prompt",
    "performance": "set by the number of steps here",
    "lora": "LoRAs are not supported",
    "sharpness": "sharpness is not supported",
    "adm": "only SDXL has it",
    "refiner": "refiner models are not supported",
    "adaptive": "adaptive guidance is not supported",
    "freeu": "FreeU is not supported",
    "vae": "load the model with this VAE (--vae) to use it",
    "version": "says which program wrote it",
    "metadata": "says which format it is written in",
    "created": "says who made it",
    "full": "the plain prompt is used",
}


def is_fooocus(data: Mapping[str, Any]) -> bool:
    """Whether JSON looks like Fooocus'."""
    keys = {_plain(key) for key in data}
    return {"prompt", "guidance_scale"} <= keys and bool(keys & {"base_model", "performance", "resolution"})


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """The recipe in Fooocus' JSON."""
    report = ReportBuilder(registry)
    keys = {_plain(key): (str(key), value) for key, value in data.items()}
    for name, field in (("prompt", "prompt"), ("negative_prompt", "negative")):
        if name in keys:
            note = "brackets, weights and BREAK are written as they count there"
            report.translated_prompt(*keys[name], field, read_comfyui, note)
    if "sampler" in keys or "scheduler" in keys:
        report.method(keys.get("sampler"), keys.get("scheduler"))
    for name, (key, value) in keys.items():
        _key(report, name, key, value)
    return report.found("fooocus")


def _key(report: ReportBuilder, name: str, key: str, value: Any) -> None:
    match name:
        case "prompt" | "negative_prompt" | "sampler" | "scheduler":
            return
        case "steps":
            report.steps(key, value)
        case "guidance_scale":
            report.cfg_scale(key, value)
        case "seed":
            report.seed(key, value)
        case "resolution":
            sides = re.findall("[0-9]{1,9}", value[:60]) if isinstance(value, str) else []
            report.size(key, value, *(sides if len(sides) == 2 else (None, None)))
        case "base_model":
            report.model(key, value)
        case "base_model_hash":
            report.hash(key, value)
        case "clip_skip":
            report.whole(key, value, "clip_skip", 1, 100)
        case _:
            why = (why for start, why in _REASONS.items() if name.startswith(start))
            report.ignore(key, value, next(why, "is not a known key"))


def _plain(key: object) -> str:
    """The log writes "Guidance Scale" for guidance_scale."""
    return str(key).lower().replace(" ", "_")
