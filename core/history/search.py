"""Searches of the history, as SQL conditions.

Typed text never reaches SQLite's query syntax: each word becomes a quoted prefix, so that quotes, operators
and half-typed words are taken literally. Text that its index does not split into words (emoji, and scripts
without spaces) is searched as a substring.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

MAX_TEXT, MAX_WORDS = 1000, 32
_PIECES = re.compile(r'"(?P<phrase>[^"]*)(?P<end>"?)|(?P<word>[^\s"]+)')


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which runs: all words of `text` in prompt or negative prompt, and every filter that is not None.

    A phrase in quotes matches exactly. `since` and `until` are seconds since 1970, `until` not
    included. An `owner` of None means all owners.
    """

    text: str = ""
    model: str | None = None
    sampler: str | None = None
    since: float | None = None
    until: float | None = None
    starred: bool | None = None
    owner: str | None = None

    def sql(self) -> tuple[str, list[Any]]:
        """(condition over `runs`, its values)."""
        plain = (
            ("model = ?", self.model),
            ("sampler = ?", self.sampler),
            ("created >= ?", self.since),
            ("created < ?", self.until),
            ("starred = ?", self.starred),
            ("owner = ?", self.owner),
        )
        parts: list[tuple[str, Any]] = [(part, value) for part, value in plain if value is not None]
        match, literal = parsed(self.text)
        if match:
            parts.append(("number IN (SELECT rowid FROM words WHERE words MATCH ?)", match))
        for piece in literal:
            parts.append(("instr(lower(prompt || char(10) || negative), ?) > 0", piece))
        conditions = " AND ".join(part for part, _ in parts) or "1"
        return conditions, [clean(value) if isinstance(value, str) else value for _, value in parts]


def clean(text: str) -> str:
    """Text that SQLite accepts: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def parsed(text: str) -> tuple[str, list[str]]:
    """(FTS5 query, empty without words; texts to search as substrings)."""
    said = text[:MAX_TEXT].encode("utf-8", "ignore").decode().replace("\0", " ")
    words, literal = [], []
    for match in list(_PIECES.finditer(said))[:MAX_WORDS]:
        piece = (match["phrase"] or match["word"] or "").strip()
        if _has_words(piece):
            words.append(f'"{piece}"' + ("" if match["end"] else " *"))
        elif not piece.isascii():
            literal.append(piece.lower())
    return " AND ".join(words), literal


def _has_words(piece: str) -> bool:
    """Whether the index splits it into words: letters and digits of common scripts with spaces."""
    letters = [c for c in piece if c.isalnum()]
    return bool(letters) and not any(unicodedata.category(c) == "Lo" or ord(c) > 0xFFFF for c in letters)
