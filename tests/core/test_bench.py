"""The bench: what it measures, and what it says when a side cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core import bench
from core.bench import KEYS, Job, Ratio, compare, measure, medians, ratios
from core.errors import UserError
from tests.small import write_model


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = write_model(tmp_path_factory.mktemp("bench") / "small")
    return Job(model=str(folder), dtype="float32", width=64, height=64, steps=2)


@pytest.mark.parametrize("side", ["ours", "peer"])
def test_each_side_reports_every_figure(job: Job, side: bench.Side) -> None:
    figures = measure(side, job)
    assert set(figures) == set(KEYS)
    assert all(value > 0 for value in figures.values())
    parts = figures["import"] + figures["load"] + figures["picture"]
    assert parts < figures["total"]
    assert figures["encode"] + figures["step"] + figures["decode"] < figures["picture"]
    assert figures["peak_memory_mb"] > 100  # torch alone takes more


def test_a_side_that_fails_is_one_sentence(job: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"latentcanvas could not make the picture: Model .* is not there"):
        measure("ours", replace(job, model=str(tmp_path / "nothing")))


def test_sides_take_turns(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bench.Side] = []

    def counted(side: bench.Side, job: Job) -> bench.Figures:
        asked.append(side)
        return dict.fromkeys(KEYS, float(len(asked)))

    monkeypatch.setattr(bench, "measure", counted)
    samples = compare(["ours", "peer"], job, 3)
    assert asked == ["ours", "peer"] * 3
    assert medians(samples["ours"])["load"] == 3
    assert ratios(samples["ours"], samples["peer"])["load"] == Ratio(3 / 4, 1 / 2, 5 / 6)
