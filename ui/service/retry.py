"""Work that a background thread retries until it succeeds, such as writes to a locked database."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from core.errors import UserError

log = logging.getLogger(__name__)

FIRST_SECONDS, MOST_SECONDS = 2.0, 300.0
MOST_WAITING = 1000


class Later:
    """Runs work in order, and retries work that raises UserError, with increasing delays.

    Thread-safe. Beyond `MOST_WAITING` pieces of work the oldest are dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], object]] = deque()
        self._again = threading.Event()
        self._at_work = False

    def do(self, work: Callable[[], object]) -> None:
        """Start it at once, or after the work before it."""
        with self._lock:
            self._waiting.append(work)
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def try_again(self) -> None:
        """Retry now: the cause of the failure seems to be gone."""
        self._again.set()

    def _run(self) -> None:
        pause = FIRST_SECONDS
        while (work := self._next()) is not None:
            self._again.clear()
            if self._done(work):
                pause = FIRST_SECONDS
                continue
            with self._lock:
                self._waiting.appendleft(work)
            self._again.wait(pause)
            pause = min(2 * pause, MOST_SECONDS)

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            self._at_work = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _done(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except UserError as error:
            log.warning("will be retried later: %s", error)
            return False
        except Exception:
            log.exception("the history could not be updated")
        return True
