"""What the bench calls inside of the networks."""

from __future__ import annotations

import time

import pytest
import torch

from core.bench.inside import Inside


class Sleeper:
    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return f"slept {seconds}"


def test_only_the_watched_calls_are_inside() -> None:
    inside, watched, other = Inside(torch.device("cpu")), Sleeper(), Sleeper()
    inside.watch(watched, "sleep")
    assert watched.sleep(0.05) == "slept 0.05"
    other.sleep(0.05)
    with pytest.raises(ValueError, match="negative"):
        watched.sleep(-1)
    assert 0.05 <= inside.seconds < 0.09
    assert inside.rest_percent(4 * inside.seconds) == pytest.approx(75)
