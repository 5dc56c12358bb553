"""What the page does with memory: models that are switched leave nothing behind, and a run that finds too
little of it fails alone.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path

import pytest
import torch

from core.inference.pipeline import Pipeline
from core.request.request import Request
from tests.small import write_model
from tests.ui.fakes import FakePipeline, jobs_of
from ui.service.model_thread import ModelThread, PagePipeline

TOLERANCE = 15  # megabytes: half of one model's weights


def resident_mb() -> float:
    """The memory of this process just now, in MB of 2**20 bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of a process")
@pytest.mark.parametrize(
    ("mode", "switches"),
    [
        ("full", 6),
        pytest.param("full", 20, marks=pytest.mark.slow),
        pytest.param("offload", 20, marks=pytest.mark.slow),
    ],
)
def test_models_that_are_switched_leave_nothing_behind(tmp_path: Path, mode: str, switches: int) -> None:
    places = {name: write_model(tmp_path / name, width=128) for name in ("first", "second")}
    made: list[weakref.ref[PagePipeline]] = []

    def load(name: str) -> PagePipeline:
        pipeline = Pipeline.load(places[name], device="cpu", dtype="float32", memory=mode)
        pipeline.generate(prompt="a red circle", steps=1, seed=1)
        made.append(weakref.ref(pipeline))
        return pipeline

    engine = ModelThread(load)
    for name in ("first", "second", "first"):  # what is loaded once and stays
        engine.switch(name)
    before = resident_mb()
    for _ in range(switches // 2):
        engine.switch("second")
        engine.switch("first")
    assert resident_mb() - before < TOLERANCE
    assert [pipeline() is not None for pipeline in made] == [False] * (switches + 2) + [True]


def test_a_run_without_memory_fails_in_one_sentence_and_the_next_one_works(tmp_path: Path) -> None:
    pipeline = FakePipeline()
    jobs = jobs_of(pipeline, tmp_path)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    handle = pipeline.unet.register_forward_pre_hook(fail)
    job = jobs.submit_run("ann", Request(prompt="a red circle", steps=2))
    assert job.ended.wait(60)
    assert job.state == "failed"
    assert job.error.startswith("There is not enough memory on cpu for this with memory offload: try a")
    handle.remove()
    job = jobs.submit_run("ann", Request(prompt="a red circle", steps=2))
    assert job.ended.wait(60)
    assert (job.state, job.error) == ("done", "")
