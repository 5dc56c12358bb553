"""Tables on standard output, for people; scripts use `--json`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console


def console() -> Console:
    """A console as wide as the terminal; without one, wide enough that nothing is cut or wrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def table(to: Console, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads; long cells fold."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(*map(escape, row))
    to.print(shown)
