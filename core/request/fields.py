"""The fields that a request shares with the settings it resolves to, and the check of each field.

A new field is a line of `RequestFields` and, unless all values are good, a line of `CHECKS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from core.checks import (
    MAX_SIDE,
    MIN_SIDE,
    OptionValue,
    check_flag,
    check_number,
    check_one_of,
    check_options,
    check_sha256,
    check_text,
    check_whole,
    shown,
    spoken,
)
from core.errors import UserError
from core.prompts.emphasis import EMPHASES, check_prompt
from core.request.sigmas import check_sigmas

MAX_STEPS = 1000
MOST_STEPS = 10_000  # of a run, also with adaptive samplers
MAX_CFG_SCALE = 100.0
MAX_BATCH = 64
MAX_CLIP_SKIP = 100
MAX_REUSE = 20
MAX_MERGING = 0.75  # three tokens of four: core/models/fast/token_merging.py
RESIZES = ("stretch", "crop", "pad")
CONTENTS = ("original", "fill", "noise", "nothing")
SIDES = ("left", "right", "up", "down")
NO_OUTPAINT = (0, 0, 0, 0)
MAX_OUTPAINT = 1024
MAX_BLUR = 64
MAX_PADDING = 1024


@dataclass(frozen=True, kw_only=True)
class RequestFields:
    """`Request` documents the fields. A recipe without a field that has a default here used the default."""

    clip_skip: int = 1
    emphasis: str = "a1111"
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


def check_outpaint(name: str, sides: object) -> tuple[int, int, int, int]:
    """The pixels (left, right, up, down) if they leave room for an image. Raises UserError."""
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != len(SIDES):
        raise UserError(f"{name} {shown(sides)}: must be four numbers of pixels: {', '.join(SIDES)}")
    for side, pixels in zip(SIDES, sides, strict=True):
        check_whole(f"{name} {side}", pixels, 0, MAX_OUTPAINT)
    left, right, up, down = sides
    for names, pixels in (("left and right", left + right), ("up and down", up + down)):
        if pixels > MAX_SIDE - MIN_SIDE:
            raise UserError(f"{name} {names} {pixels}: must be at most {MAX_SIDE - MIN_SIDE} in total")
    return left, right, up, down


def _check_prompt(name: str, value: object) -> str:
    text = check_text(name, value)
    check_prompt(name, text)
    return text


def _check_strength(name: str, value: object) -> float:
    strength = check_number(name, value, 0.0, 1.0)
    if strength == 0:
        raise UserError(f"{name} 0: would change nothing; must be above 0 and at most 1")
    return strength


_share = partial(check_number, low=0.0, high=1.0)
# (name in messages, value other than None) -> the value to store, or UserError. Seed, size and branch depend
# on other fields: core/request/settings.py.
CHECKS: Mapping[str, Callable[[str, object], Any]] = {
    "prompt": _check_prompt,
    "negative": _check_prompt,
    "clip_skip": partial(check_whole, low=1, high=MAX_CLIP_SKIP),
    "emphasis": partial(check_one_of, choices=EMPHASES),
    "sampler": partial(check_text, empty=False),
    "schedule": partial(check_text, empty=False),
    "sigmas": lambda _, levels: check_sigmas(levels),
    "steps": partial(check_whole, low=1, high=MAX_STEPS),
    "cfg_scale": partial(check_number, low=0.0, high=MAX_CFG_SCALE),
    "cfg_rescale": _share,
    "cfg_from": _share,
    "cfg_to": _share,
    "feature_reuse": partial(check_whole, low=1, high=MAX_REUSE),
    "token_merging": partial(check_number, low=0.0, high=MAX_MERGING),
    "batch": partial(check_whole, low=1, high=MAX_BATCH),
    "options": check_options,
    "stop_after": partial(check_whole, low=1, high=MOST_STEPS),
    "strength": _check_strength,
    "resize": partial(check_one_of, choices=RESIZES),
    "outpaint": check_outpaint,
    "mask_blur": partial(check_whole, low=0, high=MAX_BLUR),
    "masked_content": partial(check_one_of, choices=CONTENTS),
    "only_masked": partial(check_whole, low=0, high=MAX_PADDING),
    "keep_unmasked": check_flag,
    "invert_mask": check_flag,
    "image_sha256": check_sha256,
    "mask_sha256": check_sha256,
}


def check_values(record: Any) -> None:
    """Check each field of a dataclass by `CHECKS`, and store what the check returns.

    None is allowed in a field whose default it is. Raises UserError.
    """
    for f in dataclasses.fields(record):
        name = "negative prompt" if f.name == "negative" else spoken(f.name)
        value = getattr(record, f.name)
        if value is None and f.default is not None:
            raise UserError(f"{name}: must be given")
        if value is not None and f.name in CHECKS:
            object.__setattr__(record, f.name, CHECKS[f.name](name, value))
