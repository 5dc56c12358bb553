"""The queue behind the page, when something goes wrong: bad plugins, full disks, damaged files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from core.errors import UserError
from core.plugins import current
from tests.ui.fakes import FakePipeline, loaded
from tests.ui.queues import ANN, BOB, asked, done, until
from tests.ui.queues import jobs as jobs  # a fixture, as the next ones are
from tests.ui.queues import pipeline as pipeline
from tests.ui.queues import runs as runs
from ui.service.job_queue import Job, Jobs
from ui.service.run_store import RunStore

BAD = """
import time
from latentcanvas import Step, hookimpl

def raises(denoise, x, sigmas, noise):
    for i in range(len(sigmas) - 1):
        clean = denoise(x, sigmas[i])
        x = clean + sigmas[i + 1] * (x - clean) / sigmas[i]
        if i == 2:
            raise RuntimeError("out of luck")
        yield Step(i, sigmas[i + 1], x, clean)

def barren(denoise, x, sigmas, noise):
    denoise(x, sigmas[0])
    return
    yield

def lost(denoise, x, sigmas, noise):
    while True:
        time.sleep(0.01)
    yield

@hookimpl
def register_samplers(register):
    for function in (raises, barren, lost):
        register(function.__name__, function, title=function.__name__)
"""


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "bad.py").write_text(BAD)
    current.configure(directory=folder)
    yield
    current.configure()


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("raises", "failed at step 3 with RuntimeError: out of luck."),
        ("barren", "stopped after 0 of 4"),
    ],
)
def test_a_bad_plugin_costs_its_own_run_alone(jobs: Jobs, runs: RunStore, sampler: str, said: str) -> None:
    job, after = jobs.submit_run(ANN, asked(steps=4, sampler=sampler)), jobs.submit_run(ANN, asked())
    assert done(job).state == "failed"
    assert job.error.startswith(f"Sampler {sampler} (bad.py ")
    assert said in job.error
    assert (job.steps, job.run_id) == ([], None)
    assert done(after).state == "done"
    assert len(list(runs.folder.glob("*.png"))) == 1


@pytest.mark.usefixtures("bad")
def test_a_sampler_that_never_comes_back_is_left_behind(pipeline: FakePipeline, runs: RunStore) -> None:
    jobs = Jobs(loaded(pipeline), runs, patience=0.3)
    job, after = jobs.submit_run(ANN, asked(sampler="lost")), jobs.submit_run(ANN, asked())
    until(lambda: job.settings is not None)
    jobs.skip(ANN)
    assert done(job).state == "failed"
    assert "sampler lost does not stop" in job.error
    assert done(after).state == "done"


def test_a_slow_network_is_not_taken_for_a_lost_sampler(pipeline: FakePipeline, runs: RunStore) -> None:
    jobs = Jobs(loaded(pipeline), runs, patience=0.1)
    pipeline.delay = 1.5
    job = jobs.submit_run(ANN, asked(cfg_scale=1.0))
    until(lambda: job.settings is not None)
    jobs.stop(ANN)
    assert done(job).state == "stopped"


def test_whatever_a_task_raises_the_next_one_runs(jobs: Jobs) -> None:
    def fail(pipeline: Any, job: Job) -> NoReturn:
        raise SystemExit("no")

    job = done(jobs.submit_task(ANN, "verify", fail))
    assert (job.state, job.error) == ("failed", "verify failed: SystemExit: no")
    assert done(jobs.submit_run(ANN, asked())).state == "done"


def full(*arguments: object, **named: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("place", "said", "saved"),
    [
        ("ui.service.run_store.write_numbered", "the image is not saved: writing it failed", False),
        ("core.inference.trajectory.Trajectory.save", "the steps are not saved: writing them failed", True),
        ("core.history.History.add", "the image is saved, but not in the history yet", True),
    ],
)
def test_a_full_disk_loses_nothing_that_was_made(
    jobs: Jobs, runs: RunStore, monkeypatch: pytest.MonkeyPatch, place: str, said: str, saved: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(place, full)
        job = done(jobs.submit_run(ANN, asked()))
        assert (job.state, job.error) == ("done", "")
        assert job.trouble.startswith(said)
        kept = runs.open(ANN, job.run_id)
        assert kept.saved is saved
        assert kept.png(0)[:4] == b"\x89PNG"
        assert kept.thumbnail(0)[:2] == b"\xff\xd8"
        assert kept.trajectory is not None
        with pytest.raises(UserError):
            runs.open(BOB, job.run_id)
    assert done(jobs.submit_run(ANN, asked(seed=2))).trouble == ""
    if saved:
        runs.history.sync()
        assert runs.history.count() == 2


def test_a_full_disk_is_said_in_the_words_of_the_files(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    job = done(jobs.submit_run(ANN, asked()))
    assert "the image is not saved: " in job.trouble
    assert "there is no space left on the disk" in job.trouble
    assert "\n" not in job.trouble


def test_a_damaged_file_of_steps_is_a_sentence(jobs: Jobs, runs: RunStore, tmp_path: Path) -> None:
    job = done(jobs.submit_run(ANN, asked()))
    (runs.folder / "000001.steps.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError):
        runs.open(ANN, job.run_id)


def test_a_deleted_run_is_gone(jobs: Jobs, runs: RunStore) -> None:
    job = done(jobs.submit_run(ANN, asked()))
    kept = runs.open(ANN, job.run_id)
    assert job.run_id is not None
    runs.history.delete([job.run_id])
    with pytest.raises(UserError):
        runs.open(ANN, job.run_id)
    with pytest.raises(UserError, match="the image file is missing"):
        kept.png(0)


def test_memory_holds_the_newest_of_what_was_not_saved(
    pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.service.run_store.write_numbered", full)
    runs = RunStore(tmp_path, max_runs=2)
    jobs = Jobs(loaded(pipeline), runs)
    made = [done(jobs.submit_run(ANN, asked(seed=seed))) for seed in range(3)]
    assert [runs.open(ANN, job.run_id).settings.seed for job in made[1:]] == [1, 2]
    with pytest.raises(UserError):
        runs.open(ANN, made[0].run_id)
    small = RunStore(tmp_path, max_bytes=1)
    jobs = Jobs(loaded(pipeline), small)
    made = [done(jobs.submit_run(ANN, asked(seed=seed))) for seed in range(2)]
    assert small.open(ANN, made[1].run_id).nbytes > 1
    with pytest.raises(UserError):
        small.open(ANN, made[0].run_id)
