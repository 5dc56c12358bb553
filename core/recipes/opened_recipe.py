"""The recipe found in an image or text, and what became of each of its keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from core.request.fields import NO_OUTPAINT

if TYPE_CHECKING:
    from core.recipes.recipe import Recipe
    from core.request.request import Request

Program = Literal["latentcanvas", "a1111", "comfyui", "invokeai", "fooocus", "text"]
Fate = Literal["kept", "mapped", "ignored"]
PROGRAMS: dict[Program, str] = {
    "latentcanvas": "LatentCanvas",
    "a1111": "A1111's text",
    "comfyui": "ComfyUI",
    "invokeai": "InvokeAI",
    "fooocus": "Fooocus",
    "text": "plain text",
}
MAX_SHOWN = 20_000
_OF_MASKS = ("mask_blur", "masked_content", "only_masked", "mask_sha256")


@dataclass(frozen=True)
class ReportLine:
    """One key of the source. `to`: what it was mapped to. `note`: why it was mapped or ignored."""

    key: str
    value: str
    fate: Fate
    note: str = ""
    to: str = ""

    def to_dict(self) -> dict[str, str]:
        """The fields by name, ready for JSON."""
        return {"key": self.key, "value": self.value, "fate": self.fate, "to": self.to, "note": self.note}


@dataclass(frozen=True, kw_only=True)
class OpenedRecipe:
    """A request, where it comes from, the model it was made with, and the report of every key.

    `model_hash` is the SHA-256 of the model's weights or its first digits; `recipe` the exact one, for our
    own images. Fields that the source does not give are unset in the request.
    """

    source: Program
    request: Request
    model: str | None
    report: tuple[ReportLine, ...]
    model_hash: str | None = None
    recipe: Recipe | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be given with the request: nothing, an init image, or an init image and a mask."""
        asked = self.request
        if asked.strength is None and asked.image_sha256 is None and asked.outpaint == NO_OUTPAINT:
            return ()
        masked = any(getattr(asked, name) is not None for name in _OF_MASKS) and not any(asked.outpaint)
        return ("picture", "mask") if masked or asked.mask_sha256 is not None else ("picture",)

    def to_dict(self, installed: Callable[[str | None], str | None]) -> dict[str, Any]:
        """Ready for JSON. installed: finds the local name of a model by its name (core/weights/find.py)."""
        here = installed(self.model)
        return {
            "source": self.source,
            "request": self.request.to_dict(),
            "model": {"name": self.model, "hash": self.model_hash, "here": here},
            "needs": list(self.needs),
            "report": [line.to_dict() for line in self.report],
        }


def written(value: object) -> str:
    """A value of the source for the report: text as it is, others as JSON, cut at MAX_SHOWN."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):  # not JSON, or an endless integer
            return "(cannot be shown)"
    # Halves of surrogate pairs, which JSON can hold, cannot be printed.
    value = value.encode("utf-8", "replace").decode("utf-8")
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
