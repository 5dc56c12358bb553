"""The lines of this project's code that do what a view shows, found where they are now."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MOST = 16  # lines of a function that is shown from its first line on


@dataclass(frozen=True)
class Lines:
    """`where` is "core/schedule.py:42", the line that matters; `text` it and those around."""

    where: str
    text: str


def lines(target: str, words: str = "", before: int = 1, after: int = 1) -> Lines:
    """The line of a function that holds `words`, and a few around it; its first lines without any.

    target: "core.guidance:guide", or with a class "core.starting:Start.state". Raises LookupError when no
    line of it does, so that a text cannot point at code that has changed.
    """
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return lines_of(found, words, before, after)


def lines_of(function: Callable[..., Any], words: str = "", before: int = 1, after: int = 1) -> Lines:
    """The same of a function that is there already, such as a plugin's sampler."""
    source, first = inspect.getsourcelines(inspect.unwrap(function))
    place, start, end = 0, 0, min(len(source), MOST)
    if words:
        place = next((i for i, line in enumerate(source) if words in line), -1)
        if place < 0:
            raise LookupError(f"{function.__qualname__} has no line with {words!r}")
        start, end = max(place - before, 0), min(place + after + 1, len(source))
    path = Path(inspect.getsourcefile(function) or "")
    where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return Lines(f"{where}:{first + place}", textwrap.dedent("".join(source[start:end])).rstrip())
