"""The history of runs: a SQLite database next to the images, which themselves hold their recipes.

`History` is the interface; it does not need torch.
"""

from core.history.rows import RunRow
from core.history.search import Filter
from core.history.store import History

__all__ = ["Filter", "History", "RunRow"]
