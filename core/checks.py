"""Checks of single values, each refusal a `UserError` with the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.errors import UserError

MIN_SIDE, MAX_SIDE, SIDE_MULTIPLE = 64, 2048, 8
MAX_TEXT = 20_000
MAX_PIXELS = 64 * 1024 * 1024  # of any image that is opened

OptionValue = float | int | bool | str


def check_text(name: str, value: object, *, empty: bool = True) -> str:
    """`value` if it is valid Unicode without NUL, at most 20,000 characters. Raises UserError."""
    if not isinstance(value, str):
        raise UserError(f"{name} {shown(value)}: must be text")
    if not value and not empty:
        raise UserError(f"{name} '': must not be empty")
    if len(value) > MAX_TEXT:
        raise UserError(f"{name} of {len(value)} characters: must have at most {MAX_TEXT}")
    bad = re.search("[\0\ud800-\udfff]", value)
    if bad:
        raise UserError(f"{name}: character {bad.start() + 1} ({bad[0]!r}) is not allowed; remove it")
    return value


def check_keys(what: str, mapping: object, record: type) -> dict[str, Any]:
    """`mapping` as the fields of the dataclass `record`. UserError for a key that is unknown or missing."""
    if not isinstance(mapping, Mapping):
        raise UserError(f"{what} {shown(mapping)}: must be an object of names and values")
    fields = {f.name: f for f in dataclasses.fields(record)}
    for key in mapping:
        if key not in fields:
            raise UserError(f"{what}: {shown(key)} is not known{hint(str(key), fields)}")
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in mapping and not optional:
            raise UserError(f"{what}: {name} is missing")
    return dict(mapping)


def check_whole(name: str, value: object, low: int, high: int) -> int:
    """`value` if it is a whole number from `low` to `high`. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} {shown(value)}: must be a whole number between {low} and {high}")
    return value


def check_number(name: str, value: object, low: float, high: float) -> float:
    """`value` as a float if it is a number from `low` to `high`. Raises UserError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN is in no range
        raise UserError(f"{name} {shown(value)}: must be a number between {low:g} and {high:g}")
    return float(value)


def check_size(width: object, height: object, multiple: int = 1, smallest: int = 1) -> None:
    """Refuse sides that are not None and not a multiple of `multiple` from `smallest` to 2048.

    A request without a model is only checked for whole numbers; the model's own rule is checked later.
    """
    both = width is not None and height is not None
    what = "a whole number" if multiple == 1 else f"a multiple of {multiple}"
    for name, side in (("width", width), ("height", height)):
        if side is None or _is_side(side, multiple, smallest):
            continue
        rule = f"must be {what} between {smallest} and {MAX_SIDE}"
        if both:
            raise UserError(f"size {shown(width)}x{shown(height)}: {name} {rule}")
        raise UserError(f"{name} {shown(side)}: {rule}")


def _is_side(side: object, multiple: int, smallest: int) -> bool:
    whole = isinstance(side, int) and not isinstance(side, bool)
    return whole and smallest <= side <= MAX_SIDE and side % multiple == 0


def check_one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`. Raises UserError."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{name} {shown(value)}: must be {', '.join(choices[:-1])} or {choices[-1]}")
    return value


def check_flag(name: str, value: object) -> bool:
    """`value` if it is True or False. Raises UserError."""
    if not isinstance(value, bool):
        raise UserError(f"{name} {shown(value)}: must be true or false")
    return value


def check_sha256(name: str, value: object) -> str:
    """`value` if it is a SHA-256 as 64 lower-case hexadecimal digits. Raises UserError."""
    text = check_text(name, value)
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UserError(f"{name} {shown(value)}: must be 64 hexadecimal digits")
    return text


def check_options(name: str, options: object) -> dict[str, OptionValue]:
    """A copy of a sampler's options if a recipe can store them. Raises UserError."""
    if not isinstance(options, Mapping):
        raise UserError(f"{name} {shown(options)}: must be names and values")
    for option, value in options.items():
        check_text("option name", option, empty=False)
        if isinstance(value, str):
            check_text(f"option {option}", value)
        elif not _is_finite(value):
            raise UserError(f"option {option} {shown(value)}: must be true, false, a finite number or text")
    return dict(options)


def _is_finite(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63  # the range of int64 tensors and of recipe readers
    return isinstance(value, float) and math.isfinite(value)


def spoken(name: str) -> str:
    """The name of a field as shown in a message."""
    return name.replace("_", " ")


def shown(value: object) -> str:
    """The value as shown in a message: one line of at most about sixty characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to write out integers of more than 4,300 digits
        return "(a very long number)"


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known) or 'none'}."
