"""The bench: what it measures, and what it says when a side cannot run."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from core import bench
from core.bench import KEYS, BenchJob, Ratio, compare, measure, medians, ratios
from core.bench.peak import step_flop
from core.device import find_device, find_dtype
from core.errors import UserError
from core.models.config import UNetConfig, VAEConfig
from tests.small import write_model


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> BenchJob:
    folder = write_model(tmp_path_factory.mktemp("bench") / "small")
    return BenchJob(model=str(folder), dtype="float32", width=64, height=64, steps=2)


@pytest.mark.parametrize("side", ["ours", "peer", pytest.param("best", marks=pytest.mark.slow)])
def test_each_side_reports_every_figure(job: BenchJob, side: bench.Side) -> None:
    figures = measure(side, job)
    assert set(figures) == set(KEYS)
    assert all(value > 0 for value in figures.values())
    parts = figures["import"] + figures["load"] + figures["picture"]
    assert parts < figures["total"]
    assert figures["encode"] + figures["step"] + figures["decode"] < figures["picture"]
    assert figures["outside_percent"] < 100
    assert figures["peak_memory_mb"] > 100  # torch alone takes more


def test_a_step_is_counted_whole() -> None:
    """Grows with the cells alone, and is the 0.888 + 0.466 + 0.252 TFLOP of SD 1.5."""
    tiny = UNetConfig(
        block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        mid_block_type="UNetMidBlock2D", norm_num_groups=4, cross_attention_dim=8, attention_head_dim=1,
    )  # fmt: skip
    one, larger = (step_flop(tiny, VAEConfig(), (8, 8 * times)) for times in (1, 2))
    two = step_flop(tiny, VAEConfig(), (8, 24))
    assert two - larger == larger - one  # so much for 64 cells more, the rest is of the timestep
    assert step_flop(UNetConfig(), VAEConfig(), (64, 64)) == pytest.approx(1.606e12, rel=1e-3)


def test_the_best_side_is_the_peer_in_half_precision(job: BenchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="{}", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    measure("peer", replace(job, dtype=None))
    measure("best", replace(job, dtype=None))
    plain, best = (json.loads(command[-1]) for command in asked)
    assert [command[-2] for command in asked] == ["peer", "peer"]
    assert (plain["dtype"], plain["channels_last"]) == (None, False)
    wanted = str(find_dtype(None, find_device(None))).removeprefix("torch.")
    assert (best["dtype"], best["channels_last"]) == (wanted, True)


def test_a_side_that_fails_is_one_sentence(job: BenchJob, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"latentcanvas could not make the image: Model .* was not found"):
        measure("ours", replace(job, model=str(tmp_path / "nothing")))


def test_sides_take_turns(job: BenchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bench.Side] = []

    def counted(side: bench.Side, job: BenchJob) -> bench.Figures:
        asked.append(side)
        return dict.fromkeys(KEYS, float(len(asked)))

    monkeypatch.setattr(bench, "measure", counted)
    samples = compare(["ours", "peer"], job, 3)
    assert asked == ["ours", "peer"] * 3
    assert medians(samples["ours"])["load"] == 3
    assert ratios(samples["ours"], samples["peer"])["load"] == Ratio(3 / 4, 1 / 2, 5 / 6)
