"""The command `bench`."""

from __future__ import annotations

import json

import pytest

from core import bench
from core.weights.find import EMBEDDED
from core.weights.layouts.model_folder import NOTES
from tests.ui.commandline import failure, run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every side answers at once; the peer takes twice as much."""

    def measure(side: bench.Side, job: bench.BenchJob) -> bench.Figures:
        return dict.fromkeys(bench.KEYS, 1.0 if side == "ours" else 2.0)

    monkeypatch.setattr(bench, "measure", measure)


@pytest.mark.usefixtures("quick")
def test_ratios_to_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "bench", "--against", "diffusers", "--json")
    report = json.loads(out)
    assert code == 0
    for each in ("diffusers", "diffusers, half precision, channels last"):
        assert report["ratio"][each]["load"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    notes = json.loads((EMBEDDED / NOTES).read_text(encoding="utf-8"))
    assert report["job"]["width"] == notes["defaults"]["width"]
    assert report["weights_mb"] > 1
    code, out, _ = run(capsys, "bench", "--against", "diffusers")
    assert code == 0
    assert "0.50 (0.50 to 0.50)" in out


@pytest.mark.usefixtures("quick")
def test_our_side_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "bench", "--rounds", "1", "--size", "64x96", "--dtype", "bfloat16")
    assert code == 0
    assert "64x96, 4 steps, bfloat16" in out
    assert "diffusers" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "100"], "WIDTHxHEIGHT"),
        (["--model", "none-such"], "was not found"),
        (["--dtype", "int8"], "int8"),
        (["--steps", "0"], "steps"),
        (["--counts", "--steps", "1"], "at least 2 steps"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in failure(capsys, "bench", *arguments)


def test_counts_are_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "bench", "--counts", "--steps", "2", "--size", "64x64", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["two pictures"]["evaluations"] == 2
    assert found["two pictures"]["kernel_calls"] > found["plain"]["kernel_calls"] > 0
    code, out, _ = run(capsys, "bench", "--counts", "--steps", "2", "--size", "64x64")
    assert code == 0
    assert "kernel calls" in out
    assert f"{found['plain']['kernel_calls']:,}" in out


@pytest.mark.parametrize("other", [["--watched"], ["--against", "diffusers"]])
def test_one_kind_of_measuring_at_a_time(capsys: pytest.CaptureFixture[str], other: list[str]) -> None:
    assert "give one of them" in failure(capsys, "bench", "--counts", *other)
