"""Work that is tried again until it succeeds, in a thread of its own: what a lock or a full disk holds up."""

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
    """Does what it is given in order. What raises UserError is tried again, after longer and longer waits.

    Any thread may use it. Of more than `MOST_WAITING` pieces of work the oldest are dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], object]] = deque()
        self._again = threading.Event()
        self._at_work = False

    def do(self, work: Callable[[], object]) -> None:
        """Begin at once, unless other work is in the way."""
        with self._lock:
            self._waiting.append(work)
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def try_again(self) -> None:
        """Do not wait any longer: the cause seems to be gone."""
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
            log.warning("it is tried again later: %s", error)
            return False
        except Exception:
            log.exception("the history could not be brought up to date")
        return True
