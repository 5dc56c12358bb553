"""The history of runs: a SQLite database beside the pictures, which hold all that matters themselves.

`History` is what is used; it needs neither torch nor a screen.
"""

from core.history.rows import RunRow
from core.history.search import Filter
from core.history.store import History

__all__ = ["Filter", "History", "RunRow"]
