"""Time and memory of one image, measured in a new process each.

`measure` runs one side once; `compare` runs several sides in turns, so that a machine that slows down affects
all of them. A side is a module of this package with `measure(job) -> dict`: `ours`, and `peer`, which is
diffusers; `best` is diffusers with its fastest settings.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from core.errors import UserError

Side = Literal["ours", "peer", "best"]
TITLES: Mapping[Side, str] = {
    "ours": "latentcanvas",
    "peer": "diffusers",
    "best": "diffusers, half precision, channels last",
}
Figures = Mapping[str, float]
# What a side reports; `total`, the whole time of the process, is added here. `outside_percent` is the share
# of the image's time in which no network runs or is moved to its device; `peak_percent` is the speed of a
# step in percent of a plain matrix product's in the same dtype.
KEYS = (
    "import", "load", "encode", "step", "decode", "picture", "total", "outside_percent", "peak_memory_mb",
    "peak_percent",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """One image of the model at the path `model`. `dtype` is a name such as float32; None is each side's
    default. channels_last: for diffusers' networks; ours choose by themselves. memory: our memory mode.
    """

    model: str
    dtype: str | None
    width: int
    height: int
    steps: int
    cfg_scale: float = 7.5
    prompt: str = "a red house under a full moon"
    seed: int = 0
    channels_last: bool = False
    memory: str | None = None


def measure(side: Side, job: BenchJob) -> Figures:
    """Seconds by part, and the peak memory in MB, of one image in a new process.

    Raises UserError with the last line of the process's stderr if it fails.
    """
    module = "ours" if side == "ours" else "peer"
    if side == "best":
        job = replace(job, dtype=_half(), channels_last=True)
    command = [sys.executable, "-m", "core.bench", module, json.dumps(asdict(job))]
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2]
    )
    total = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{TITLES[side]} could not make the image: {said[-1]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "total": total}


def _half() -> str:
    """The fastest dtype that the hardware supports natively."""
    from core.device import find_device, find_dtype

    return str(find_dtype(None, find_device(None))).removeprefix("torch.")


def compare(
    sides: Sequence[Side], job: BenchJob, rounds: int, told: Callable[[], object] = lambda: None
) -> dict[Side, list[Figures]]:
    """`rounds` measurements of each side, in turns. `told` is called after each one."""
    samples: dict[Side, list[Figures]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            samples[side].append(measure(side, job))
            told()
    return samples


def medians(samples: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {key: statistics.median(sample[key] for sample in samples) for key in KEYS}


@dataclass(frozen=True)
class Ratio:
    """Ours divided by the peer's, per round: median, minimum and maximum."""

    median: float
    low: float
    high: float


def ratios(ours: Sequence[Figures], peer: Sequence[Figures]) -> dict[str, Ratio]:
    """The Ratio of each figure; below 1 means that ours needs less."""
    found = {}
    for key in KEYS:
        each = [a[key] / b[key] for a, b in zip(ours, peer, strict=True)]
        found[key] = Ratio(statistics.median(each), min(each), max(each))
    return found
