"""One request from what a recipe says and what was typed: the command line's `--from` with other options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import UserError
from core.request.request import Request
from core.request.settings import Branch, Settings


def merged_request(settings: Settings | None, typed: Mapping[str, Any]) -> Request:
    """The request that was typed, its gaps filled from a recipe's settings where there are some.

    typed: fields of `Request`, None for those left open. The recipe's sampler options hold only for its own
    sampler, and its size only for its own outpainting. `branch` is a step after which to branch from the
    recipe's run; `stop_after` 0 runs all steps. Raises UserError.
    """
    known: dict[str, Any] = settings.to_dict() if settings else {}
    given = {name: value for name, value in typed.items() if value is not None}
    if "branch" in given:
        known |= _branched(settings, given.pop("branch"))
    if given.get("stop_after") == 0:
        del given["stop_after"]
        known.pop("stop_after", None)
    if "sampler" in given and given["sampler"] != known.get("sampler"):
        known.pop("options", None)
    if "outpaint" in given and given["outpaint"] != tuple(known.get("outpaint", ())):
        known.pop("width", None)
        known.pop("height", None)
    if given.keys() & {"sigmas", "schedule", "steps"}:
        known.pop("sigmas", None)
    if "sigmas" in given:
        known.pop("steps", None)
    options = {**known.get("options", {}), **given.get("options", {})}
    return Request.from_mapping({**known, **given, "options": options})


def _branched(settings: Settings | None, step: int) -> dict[str, Any]:
    if settings is None:
        raise UserError("--branch needs a run to branch from: give its image with --from.")
    return {"branch": Branch(step, settings), "stop_after": None}
