"""What the bench calls inside of the networks."""

from __future__ import annotations

import time

import pytest
import torch

from core.bench.inside import Inside


class Network:
    """Its work moves the clock on."""

    def __init__(self) -> None:
        self.now = 0.0

    def work(self, seconds: float) -> str:
        self.now += abs(seconds)
        if seconds < 0:
            raise RuntimeError("out of memory")
        return f"worked {seconds}"


def test_only_the_watched_calls_are_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, other = Network(), Network()
    monkeypatch.setattr(time, "perf_counter", lambda: watched.now + other.now)
    inside = Inside(torch.device("cpu"))
    inside.watch(watched, "work")
    assert watched.work(2.0) == "worked 2.0"
    other.work(5.0)
    with pytest.raises(RuntimeError, match="out of memory"):
        watched.work(-1.0)
    assert inside.seconds == 3.0
    assert inside.rest_percent(12.0) == 75.0
