"""A least-recently-used cache of tensors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

LARGEST = 4 * 1024**2  # bytes; larger tensors are not cached


class TensorCache:
    """The `most` tensors last used, by key; none of them above LARGEST.

    Thread-safe; two threads that ask for the same key may both compute it. Every caller gets its own copy, so
    changes in place do not reach the others.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()  # in the order of their last use

    def __call__(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The cached tensor of `key`, of any shape, or that of `make()`. Errors of `make` are not cached."""
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
        """Empty the cache."""
        with self._lock:
            self._kept.clear()
