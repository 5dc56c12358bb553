"""The time spent in the networks themselves."""

from __future__ import annotations

import time
from typing import Any

import torch


class Inside:
    """Seconds spent in watched methods, including their work on an accelerator. The methods must not call
    each other.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds, self._wait = 0.0, torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def watch(self, owner: Any, name: str) -> None:
        """Time the calls of this method of this object from now on."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._wait()
                self.seconds += time.perf_counter() - began

        setattr(owner, name, timed)

    def rest_percent(self, seconds: float) -> float:
        """The percentage of `seconds` that was spent elsewhere."""
        return 100 * (1 - self.seconds / seconds)
