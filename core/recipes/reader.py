"""`read_any` finds out which program wrote a recipe, and calls the reader for that program."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.plugins.current import registry as registered
from core.recipes.opened_recipe import OpenedRecipe, ReportLine, written
from core.recipes.png import PARAMETERS_CHUNK, RECIPE_CHUNK
from core.recipes.readers import a1111, comfyui, fooocus, invokeai, native
from core.recipes.sources import MAX_TEXT_BYTES, PASTED, texts_of

if TYPE_CHECKING:
    from core.sampling.registry import Registry

_NOTHING = "has no recipe of LatentCanvas, A1111, ComfyUI, InvokeAI or Fooocus; choose another file"
# The names of texts in a file, in the order in which they are tried. A1111's comes before ComfyUI's: in a
# file with both, it is what a person exported on purpose.
_ORDER = (
    *(RECIPE_CHUNK, "invokeai_metadata", "sd-metadata", PARAMETERS_CHUNK, PASTED, "UserComment", "comment"),
    *("Comment", "prompt", "workflow", "Model", "Make", "ImageDescription", "Dream"),
)
# Under these names a text without parameters is a comment, not a prompt.
_PERHAPS = {
    "UserComment",
    "comment",
    "Comment",
    "prompt",
    "workflow",
    "Model",
    "Make",
    "ImageDescription",
    "Dream",
}


def read_any(source: Path | str, registry: Registry | None = None) -> OpenedRecipe:
    """The recipe in a file (a Path) or in pasted text (a str).

    `registry` holds the samplers and schedules to match; all registered ones if left out. Raises UserError:
    no such file, damaged, no recipe in it, or an unusable one.
    """
    if registry is None:
        registry = registered()
    if isinstance(source, Path):
        return _of_file(source, registry)
    if len(source) > MAX_TEXT_BYTES:
        raise UserError("the text is longer than any recipe; paste a shorter one")
    if not source.strip():
        raise UserError("there is no text; paste a recipe, or choose an image")
    found = _read(source, registry, plain=True)
    assert found is not None
    return found


def _of_file(path: Path, registry: Registry) -> OpenedRecipe:
    texts = texts_of(path)
    damaged: list[ReportLine] = []
    failed: UserError | None = None
    for name in (name for name in _ORDER if texts.get(name, "").strip()):
        try:
            found = _read(texts[name], registry, plain=name not in _PERHAPS)
        except UserError as error:
            failed = failed or error
            damaged.append(
                ReportLine(name, written(texts[name][:200]), "ignored", f"cannot be used: {error}")
            )
            continue
        if found is not None:
            used = {name, "workflow" if name == "prompt" else name}
            others = [
                ReportLine(other, written(text[:200]), "ignored", f"the recipe in {name} is taken")
                for other, text in texts.items()
                if other not in used and other not in {line.key for line in damaged}
            ]
            return replace(found, report=(*found.report, *damaged, *others))
    if failed is not None:
        raise UserError(f"{path}: {failed}") from failed
    raise UserError(f"{path}: {_NOTHING}")


def _read(text: str, registry: Registry, *, plain: bool) -> OpenedRecipe | None:
    """The recipe in a text. `plain`: any other text is a prompt; without `plain` it gives None.

    Raises UserError.
    """
    try:
        stripped = text.strip()
        for prefix in ("prompt:", "workflow:"):  # ComfyUI's, in the EXIF of WebP files
            if stripped[: len(prefix) + 1].lower() == prefix + "{":
                stripped = stripped[len(prefix) :]
        if stripped.startswith("{"):
            data = _json(stripped)
            if isinstance(data, Mapping):
                return _of_json(data, registry)
        dream = invokeai.read_dream(text, registry)
        found = dream or a1111.read(text, registry)
    except RecursionError:
        raise UserError("its recipe is nested too deep; choose another") from None
    return found if plain or found.source != "text" else None


def _json(text: str) -> object:
    """The parsed JSON; None for a text that merely starts with a brace."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _of_json(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    nested = data.get("prompt")
    if comfyui.is_prompt(nested) or comfyui.is_workflow(
        data.get("workflow")
    ):  # both in one, as some save them
        inside: Any = nested if comfyui.is_prompt(nested) else data["workflow"]
        data = inside
    readers: tuple[tuple[bool, Callable[[Mapping[str, Any], Registry], OpenedRecipe]], ...] = (
        (comfyui.is_workflow(data) or comfyui.is_prompt(data), comfyui.read),
        ("positive_prompt" in data, invokeai.read),
        (isinstance(data.get("image"), Mapping), invokeai.read_old),
        (fooocus.is_fooocus(data), fooocus.read),
        (native.is_ours(data), native.read),
    )
    for fits, read in readers:
        if fits:
            return read(data, registry)
    raise UserError(
        "this JSON is of no known program; choose a file that LatentCanvas, ComfyUI or InvokeAI wrote"
    )
