"""The page's small lines of text, as escaped HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ui.engine import Tokens
    from ui.keeping import KeptRun


def plain(words: str) -> str:
    """A quiet line."""
    return f'<p class="lc-quiet">{escape(words)}</p>' if words else ""


def error(sentence: str) -> str:
    """One sentence about what is wrong, announced to screen readers; nothing for an empty one."""
    if not sentence:
        return ""
    return f'<p class="lc-error" role="alert">{escape(sentence[0].upper() + sentence[1:])}</p>'


def tokens(count: Tokens) -> str:
    """How long the prompt is, and which of its words the model has not learned."""
    length = f"{count.used} of {count.limit} tokens"
    if count.chunks > 1:
        length = f"{count.used} tokens in {count.chunks} chunks of {count.limit}"
    if not count.unknown:
        return f'<p class="lc-quiet">{length}</p>'
    words = ", ".join(f"<b>{escape(word)}</b>" for word in count.unknown)
    return (
        f'<p class="lc-quiet">{length}. <span class="lc-unknown">Not known to this model: {words}</span></p>'
    )


def report(kept: KeptRun, shown: float) -> str:
    """What it took and where it went: evaluations, seconds by part, the file, the seed."""
    calls = f"{kept.evals} evaluation{'' if kept.evals == 1 else 's'}"
    seconds = {**kept.seconds, "preview": shown}
    total = sum(seconds.values())
    parts = ", ".join(f"{escape(name)} {value:.2f}" for name, value in seconds.items())
    made = len(kept.trajectory.steps) if kept.trajectory else 0
    stopped = f"stopped after step {made}, " if kept.stopped else ""
    return (
        f'<p class="lc-report"><span>{stopped}<b>{calls}</b> in <b>{total:.2f} s</b>: {parts}</span>'
        f"<span>seed <b>{kept.settings.seed}</b></span><span>{_saved(kept)}</span></p>"
    )


def _saved(kept: KeptRun) -> str:
    if not kept.saved:
        return "not saved"
    first = f"saved <b>{escape(kept.names[0])}</b>"
    return first if len(kept.names) == 1 else f"{first} to <b>{escape(kept.names[-1])}</b>"
