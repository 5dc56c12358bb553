"""What is looked for in the history, as conditions in SQL.

Typed text is never given to SQLite's query language: each word becomes a quoted prefix, so that quotes,
operators and half-typed words mean themselves. What its index has no words for (emoji, and scripts that are
written without spaces) is looked for letter by letter.
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
    """Which runs: all words of `text` in prompt or negative prompt, and what else is not None.

    A phrase in quotes stands as it is written. `since` and `until` are seconds since 1970, `until` not
    included. An `owner` of None is everybody.
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
    """Text that SQLite can be given: without the halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def parsed(text: str) -> tuple[str, list[str]]:
    """(query of FTS5, empty if there are no words in the text; what is to be looked for letter by letter)."""
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
    """Whether the index has it as words: letters and digits, none of a rare script or one without spaces."""
    letters = [c for c in piece if c.isalnum()]
    return bool(letters) and not any(unicodedata.category(c) == "Lo" or ord(c) > 0xFFFF for c in letters)
