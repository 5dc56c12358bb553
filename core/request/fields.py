"""The fields that a request shares with the settings it resolves to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.checks import OptionValue

NO_OUTPAINT = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class RequestFields:
    """`Request` documents the fields. A recipe without a field that has a default here used the default."""

    clip_skip: int = 1
    sigmas: Sequence[float] | None = None
    cfg_rescale: float = 0.0
    cfg_from: float = 0.0
    cfg_to: float = 1.0
    feature_reuse: int = 1
    token_merging: float = 0.0
    strength: float | None = None
    resize: str | None = None
    outpaint: Sequence[int] = NO_OUTPAINT
    mask_blur: int | None = None
    masked_content: str | None = None
    only_masked: int | None = None
    keep_unmasked: bool = False
    invert_mask: bool = False
    image_sha256: str | None = None
    mask_sha256: str | None = None
    stop_after: int | None = None
    branch: Any = None  # a Branch, which contains settings: core/request/settings.py
    prompt: str
    negative: str
    sampler: str | None
    schedule: str | None
    steps: int | None
    cfg_scale: float | None
    width: int | None
    height: int | None
    batch: int
    seed: int | None
    options: Mapping[str, OptionValue] = field(hash=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON, without those at the defaults above, as in old recipes."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said = {
            name: value for name, value in values.items() if name not in OPTIONAL or value != OPTIONAL[name]
        }
        lists = {name: list(value) for name, value in said.items() if isinstance(value, tuple)}
        branch = {} if self.branch is None else {"branch": self.branch.to_dict()}
        return {**said, **lists, **branch, "options": dict(self.options)}


# The defaults that a request and its settings share, by name; most runs do not change them.
OPTIONAL: Mapping[str, Any] = {
    f.name: f.default for f in dataclasses.fields(RequestFields) if f.default is not dataclasses.MISSING
}
