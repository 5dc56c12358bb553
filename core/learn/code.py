"""The lines of this project's code that compute what a view shows, looked up in the current source."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.plugins import current

ROOT = Path(__file__).resolve().parents[2]
MOST = 14  # lines of a loop to show


@dataclass(frozen=True)
class Lines:
    """`where` is the important line, as "core/sampling/schedule.py:42"; `text` is the excerpt around it."""

    where: str
    text: str


def lines(target: str, words: str = "", before: int = 0, after: int = 1) -> Lines:
    """The line of a function that contains `words`, and the next line; its first loop if `words` is empty.

    target: "core.sampling.guidance:guide", a method "core.inference.start:Start.state", or "sampler:ddim" for
    a registered sampler. Raises LookupError if no line contains `words`, so that a text cannot point at code
    that has changed.
    """
    module, _, name = target.partition(":")
    if module == "sampler":
        return lines_of(current.registry().sampler(name).function, words, before, after)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return lines_of(found, words, before, after)


def lines_of(function: Callable[..., Any], words: str = "", before: int = 0, after: int = 1) -> Lines:
    """The same for a function object, such as a plugin's sampler."""
    source, first = inspect.getsourcelines(inspect.unwrap(function))
    if words:
        place = next((i for i, line in enumerate(source) if words in line), -1)
        if place < 0:
            raise LookupError(f"{function.__qualname__} has no line with {words!r}")
        start, end = max(place - before, 0), place + after + 1
    else:
        loops = (i for i, line in enumerate(source) if line.lstrip().startswith(("for ", "while ")))
        start = place = next(loops, 0)
        end = place + MOST
    path = Path(inspect.getsourcefile(function) or "")
    where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return Lines(f"{where}:{first + place}", textwrap.dedent("".join(source[start:end])).rstrip())
