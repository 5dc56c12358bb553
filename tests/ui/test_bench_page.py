"""What watching costs, as far as a small run can tell."""

from __future__ import annotations

from core.request.request import Request
from tests.ui.fakes import FakePipeline
from ui.commands.bench_page import Cost, Overhead, measure


def test_a_watched_run_is_measured_beside_the_same_run_alone() -> None:
    pipeline = FakePipeline(delay=0.03)
    rounds: list[int] = []
    found = measure(pipeline, Request(steps=20, width=64, height=64), 1, lambda: rounds.append(1))
    assert len(rounds) == 2
    assert len(found.plain) == len(found.watched) == 1
    assert found.looks >= 1
    assert found.plain[0].clock > 0.6
    assert found.watched[0].clock > 0.6
    assert found.processor > 0
    assert 0 < found.look_seconds < 0.25


def test_ratios_are_medians_of_pairs() -> None:
    costs = [Cost(1.0, 2.0), Cost(2.0, 2.0), Cost(4.0, 2.0)]
    found = Overhead(costs, [Cost(1.1, 2.2), Cost(2.1, 2.2), Cost(40.0, 2.2)], 3, 0.001)
    assert round(found.clock, 3) == 1.1
    assert round(found.processor, 3) == 1.1
    assert found.to_dict()["ratio"] == found.clock
