"""What was found in a picture or text, and what became of each of its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from core.picture_settings import NO_OUTPAINT

if TYPE_CHECKING:
    from core.images import Recipe
    from core.request import Request

Source = Literal["latentcanvas", "a1111", "comfyui", "invokeai", "fooocus", "text"]
Fate = Literal["kept", "mapped", "ignored"]
PROGRAMS: dict[Source, str] = {
    "latentcanvas": "LatentCanvas",
    "a1111": "A1111's text",
    "comfyui": "ComfyUI",
    "invokeai": "InvokeAI",
    "fooocus": "Fooocus",
    "text": "plain text",
}
MAX_SHOWN = 20_000
_OF_MASKS = ("mask_blur", "masked_content", "only_masked", "mask_sha256")
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Line:
    """One key of theirs. `to` is what it became where it was mapped, `note` why, or why it is ignored."""

    key: str
    value: str
    fate: Fate
    note: str = ""
    to: str = ""

    def to_dict(self) -> dict[str, str]:
        """The fields by name, ready for JSON."""
        return {"key": self.key, "value": self.value, "fate": self.fate, "to": self.to, "note": self.note}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A request, where it comes from, the model it was made with, and the report of every key.

    `model_hash` is the SHA-256 of the model's weights or how it begins; `recipe` the exact one, where the
    picture is ours. What the source does not say is open in the request, as in any other.
    """

    source: Source
    request: Request
    model: str | None
    report: tuple[Line, ...]
    model_hash: str | None = None
    recipe: Recipe | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be given beside the request: nothing, a picture, or a picture and a mask."""
        asked = self.request
        if asked.strength is None and asked.image_sha256 is None and asked.outpaint == NO_OUTPAINT:
            return ()
        masked = any(getattr(asked, name) is not None for name in _OF_MASKS) and not any(asked.outpaint)
        return ("picture", "mask") if masked or asked.mask_sha256 is not None else ("picture",)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "source": self.source,
            "request": self.request.to_dict(),
            "model": {"name": self.model, "hash": self.model_hash, "here": model_here(self)},
            "needs": list(self.needs),
            "report": [line.to_dict() for line in self.report],
        }


def model_here(found: Found) -> str | None:
    """The name of an installed model that is called as the one it was made with; None when there is none."""
    from core.weights.find import installed, model_name

    wanted = None if found.model is None else bare_name(found.model).casefold()
    return next((name for name in map(model_name, installed()) if name.casefold() == wanted), None)


def bare_name(model: str) -> str:
    """A model's name without its folders and the suffix of its file."""
    name = PurePosixPath(model.replace("\\", "/")).name
    for suffix in _WEIGHTS:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def written(value: object) -> str:
    """A value of theirs as it is shown: text as it is, the rest as JSON, cut where it is endless."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):  # what JSON cannot say, or integers without end
            return "(cannot be shown)"
    # Halves of surrogate pairs, which JSON can hold, would stop whoever prints them.
    value = value.encode("utf-8", "replace").decode("utf-8")
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
