"""Typed values, checked before a model is loaded."""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from core.request.request import Request


def numbers(what: str, typed: object) -> list[float]:
    """The numbers in "1, 2, 3". Raises UserError."""
    try:
        return [float(word) for word in str(typed or "").replace(";", ",").split(",") if word.strip()]
    except ValueError:
        raise UserError(f"{what} {str(typed)[:60]!r}: write numbers with commas between them") from None


def whole_numbers(what: str, typed: object) -> list[int]:
    """The whole numbers in "1, 2, 3". Raises UserError."""
    found = numbers(what, typed)
    if any(one != int(one) for one in found if abs(one) < 1e9) or any(abs(one) >= 1e9 for one in found):
        raise UserError(f"{what} {str(typed)[:60]!r}: write whole numbers")
    return [int(one) for one in found]


def prompts(typed: object) -> list[str]:
    """The prompts in a text, one per line; empty lines are skipped."""
    return [line.strip() for line in str(typed or "").splitlines() if line.strip()]


def check(prompt: object, **fields: Any) -> None:
    """Raises UserError for values that no run accepts. Fields that are None take the model's defaults."""
    asked = {name: value for name, value in fields.items() if value is not None}
    Request.from_mapping({"prompt": prompt or "", **asked})
