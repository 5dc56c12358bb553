"""Tensors that were computed lately, so that asking for the same again costs nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

LARGEST = 4 * 1024**2  # bytes of a tensor that is worth keeping


class TensorCache:
    """The last `most` tensors by what they were computed from, none of them above LARGEST.

    Several threads may ask at once; two that ask for the same may both compute it. Everyone gets a copy of
    their own, so nothing that is done to it reaches the others.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()  # in the order of their last use

    def __call__(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, or gave for the same key. What it raises passes through, and nothing is kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is not None:
            return found.clone()
        made = make()
        if made.nbytes <= LARGEST:
            with self._lock:
                self._kept[key] = made.clone()
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
        return made

    def forget(self) -> None:
        """Let everything go."""
        with self._lock:
            self._kept.clear()
