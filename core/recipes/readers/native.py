"""Our own recipes, read back exactly, and other JSON that LatentCanvas writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.recipes.opened_recipe import OpenedRecipe, ReportLine, written
from core.recipes.recipe import Recipe
from core.recipes.report_builder import ReportBuilder
from core.request.request import Request
from core.request.settings import Settings

if TYPE_CHECKING:
    from core.sampling.registry import Registry


def is_ours(data: Mapping[str, Any]) -> bool:
    """Whether JSON is a recipe, a request, or what `generate --json` prints."""
    if "settings" in data or isinstance(data.get("request"), Mapping):
        return True
    return (
        "prompt" in data
        and bool(data.keys() & {"cfg_scale", "sampler", "schedule", "options"})
        and _fits(data)
    )


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """The recipe in our own JSON. Raises UserError for a damaged one, or one of a newer format."""
    if "settings" in data:
        return read_recipe(Recipe.from_dict(data), registry)
    plain = data["request"] if isinstance(data.get("request"), Mapping) else data
    request = Request.from_mapping(plain)
    report = ReportBuilder(registry)
    report.lines = _settings(request, registry)
    if isinstance(model := data.get("model"), Mapping):
        report.model("model", model.get("name"))
        report.hash("model sha256", model.get("sha256"))
    return replace(report.found("latentcanvas"), request=request)


def read_recipe(recipe: Recipe, registry: Registry) -> OpenedRecipe:
    """The request of a recipe: its settings, exactly."""
    model, plugin, schedule = recipe.model, recipe.plugin, recipe.schedule_plugin
    lines = _settings(recipe.settings, registry)
    lines.append(ReportLine("model", model.name, "kept", "the model it was made with"))
    lines.append(ReportLine("model sha256", model.sha256, "kept", "identifies the model"))
    if model.vae_sha256:
        lines.append(
            ReportLine("vae sha256", model.vae_sha256, "ignored", "load the model with this VAE (--vae)")
        )
    if model.ema:
        lines.append(ReportLine("ema", "true", "ignored", "load the model's averaged weights (--ema)"))
    for name, where in (("sampler from", plugin), ("schedule from", schedule)):
        lines.append(
            ReportLine(name, f"{where.name} {where.version}".strip(), "ignored", "the installed one is used")
        )
    versions = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    for name, value in (("device", recipe.device), ("dtype", recipe.dtype), ("versions", versions)):
        lines.append(
            ReportLine(
                name,
                written(value),
                "ignored",
                "only needed for identical bits; the model runs as it was loaded",
            )
        )
    return OpenedRecipe(
        source="latentcanvas",
        request=Request.from_settings(recipe.settings),
        model=model.name,
        model_hash=model.sha256,
        report=tuple(lines),
        recipe=recipe,
    )


def _settings(settings: Settings | Request, registry: Registry) -> list[ReportLine]:
    """A report line for each setting; all are kept, also what has to be installed or given first."""
    notes = {"image_sha256": "give this init image", "mask_sha256": "give this mask"}
    for name, known in (("sampler", registry.samplers), ("schedule", registry.schedules)):
        if getattr(settings, name) not in (None, *known):
            notes[name] = f"no {name} of this name is registered: install its plugin"
    said = {name: value for name, value in settings.to_dict().items() if value is not None}
    return [ReportLine(name, written(value), "kept", notes.get(name, "")) for name, value in said.items()]


def _fits(data: Mapping[str, Any]) -> bool:
    try:
        Request.from_mapping(data)
    except (UserError, TypeError):
        return False
    return True
