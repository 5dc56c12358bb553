"""Noise levels typed in place of a schedule: "14.6, 7, 3, 1, 0.3"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from core.errors import UserError

MOST = 1000
HIGHEST = 100_000.0


def parse_sigmas(text: str) -> tuple[float, ...]:
    """The levels in "14.6, 7, 3", with a 0 at the end. Raises UserError."""
    words = [word for word in re.split(r"[\s,;]+", text.strip()) if word]
    try:
        levels = [float(word) for word in words]
    except ValueError:
        raise UserError(f"sigmas {text[:60]!r}: write falling numbers, for example 14.6,7,3,1,0.3") from None
    return check_sigmas(levels)


def check_sigmas(levels: object) -> tuple[float, ...]:
    """The levels as a tuple that ends with 0, which is added if missing. Raises UserError.

    They must fall strictly from at most 100,000; 1 to 1000 of them are above 0, each the start of a step.
    """
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise UserError("sigmas: must be a list of falling numbers, for example 14.6, 7, 3, 1, 0.3")
    for level in levels:
        number = isinstance(level, int | float) and not isinstance(level, bool) and math.isfinite(level)
        if not number or not 0 <= level <= HIGHEST:
            raise UserError(f"sigmas: {str(level)[:40]} must be a number from 0 to {HIGHEST:,.0f}")
    found = tuple(float(level) for level in levels)
    found = found if found and found[-1] == 0 else (*found, 0.0)
    for high, low in pairwise(found):
        if high <= low:
            raise UserError(f"sigmas: {low:g} after {high:g}: each must be below the one before it")
    if not 2 <= len(found) <= MOST + 1:
        raise UserError(f"sigmas: {len(found) - 1} levels above 0; there must be 1 to {MOST}")
    return found
