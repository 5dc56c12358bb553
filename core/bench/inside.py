"""How long the networks themselves are at work."""

from __future__ import annotations

import time
from typing import Any

import torch


class Inside:
    """The seconds that calls of methods take, with what they leave to an accelerator. They must not call each
    other.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds, self._wait = 0.0, torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of this method of this object from now on."""
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
        """What part of so many seconds was spent elsewhere."""
        return 100 * (1 - self.seconds / seconds)
