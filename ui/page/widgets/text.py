"""Short lines of text, as escaped HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ui.service.model_thread import Tokens


def capital(sentence: str) -> str:
    """The sentence with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]


def plain(words: str) -> str:
    """A line in the subdued colour."""
    return f'<p class="lc-quiet">{escape(words)}</p>' if words else ""


def error(sentence: str) -> str:
    """An error message, announced to screen readers; empty for an empty one."""
    if not sentence:
        return ""
    return f'<p class="lc-error" role="alert">{escape(capital(sentence))}</p>'


def tokens(count: Tokens) -> str:
    """The prompt's number of tokens, and its words unknown to the model."""
    length = f"{count.used} of {count.limit} tokens"
    if count.chunks > 1:
        length = f"{count.used} tokens in {count.chunks} chunks of {count.limit}"
    if not count.unknown:
        return f'<p class="lc-quiet">{length}</p>'
    words = ", ".join(_unknown(word, count.nearest.get(word, ())) for word in count.unknown)
    return f'<p class="lc-quiet">{length}. <span class="lc-unknown">Unknown to this model: {words}</span></p>'


def _unknown(word: str, nearest: Sequence[str]) -> str:
    """The word, with those that may be tried instead."""
    offered = f" (try {escape(', '.join(nearest))})" if nearest else ""
    return f"<b>{escape(word)}</b>{offered}"


def note(sentence: str) -> str:
    """A note; empty for an empty one."""
    return f'<p class="lc-note" role="status">{escape(capital(sentence))}</p>' if sentence else ""
