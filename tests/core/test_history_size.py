"""A history of 5,000 runs: how long opening, counting, paging and searching take.

`python -m pytest tests/core/test_history_size.py -s` prints the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.history import History
from tests.core.histories import MANY, many


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(tmp_path_factory.mktemp("many"))


def quickest(what: str, work: Callable[[], object]) -> float:
    """Seconds that it takes where nothing else is in the way: the least of five."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    print(f"\n{what}: {1000 * min(taken):.1f} ms", end="")
    return min(taken)


def test_the_first_page_is_there_within_a_second(folder: Path) -> None:
    def first_page() -> None:
        history = History(folder)
        rows = history.search(limit=60)
        covers = history.covers([row.id for row in rows])
        assert history.count() == MANY
        assert (len(covers), len(history.models()), len(history.samplers())) == (60, 2, 2)

    assert quickest("open, first page, counts", first_page) < 1


def test_a_page_far_down(folder: Path) -> None:
    history = History(folder)
    assert len(history.search(limit=60, offset=4900)) == 60
    assert quickest("a page far down", lambda: history.search(limit=60, offset=4900)) < 0.2


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("lighthouse", {}),
        ("lig", {}),
        ("number4711", {}),
        ('"red house" moon', {"sampler": "heun", "starred": False}),
        ("red", {"owner": "guest", "model": "tiny", "since": 1e9 + 1000}),
        ("🏠", {}),
        ("r b h m l s n", {}),
    ],
)
def test_search_takes_less_than_a_fifth_of_a_second(folder: Path, text: str, filters: Any) -> None:
    history = History(folder)
    both = (lambda: history.search(text, **filters), lambda: history.count(text, **filters))
    assert quickest(f"search {text!r} {filters}", lambda: [work() for work in both]) < 0.2
