"""How long the networks themselves are at work."""

from __future__ import annotations

import time
from typing import Any


class Inside:
    """The seconds that calls of methods take. They must not call each other."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of this method of this object from now on."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        setattr(owner, name, timed)

    def rest_percent(self, seconds: float) -> float:
        """What part of so many seconds was spent elsewhere."""
        return 100 * (1 - self.seconds / seconds)
