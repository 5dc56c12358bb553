"""Text forms of single settings, for the command line and the page."""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.checks import check_size, shown
from core.errors import UserError
from core.request.settings import max_seed


def parse_seed(text: str) -> int | None:
    """A seed as typed. Empty, "random" and -1 (random in A1111) give None. Raises UserError."""
    text = text.strip()
    if text.lower() in ("", "random", "-1"):
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > max_seed(1):
        raise UserError(f"seed {shown(text)}: must be a whole number between 0 and {max_seed(1)}, or random")
    return int(text)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "128x96". Raises UserError."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise UserError(f"size {shown(text)}: write it as WIDTHxHEIGHT, for example 128x96")
    width, height = int(match[1]), int(match[2])
    check_size(width, height)
    return width, height


def parse_interval(text: str) -> tuple[float, float]:
    """(from, to) as fractions of the steps, from "0.1:0.8". Raises UserError."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"cfg interval {shown(text)}: write it as FROM:TO, for example 0.1:0.8") from None
    return start, end


def parse_option(text: str) -> tuple[str, str]:
    """(name, value) from "eta=0.5". The value stays text: only the sampler knows its type."""
    name, equals, written = text.partition("=")
    name, written = name.strip(), written.strip()
    if not equals or not written or not name.isidentifier():
        raise UserError(f"option {shown(text)}: write it as NAME=VALUE, for example eta=0.5")
    return name, written


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """The options of several "name=value". Raises UserError, also for a name given twice."""
    options: dict[str, str] = {}
    for text in texts:
        name, value = parse_option(text)
        if name in options:
            raise UserError(f"option {name}: is given twice; give it once")
        options[name] = value
    return options
