"""The queue behind the page: whose runs they are, in what order, what is kept of them, and its limits."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from core.errors import Cancelled, UserError
from core.files import write_numbered
from core.plugins import current
from core.recipes.png import read_recipe
from core.request.request import Request
from core.request.settings import Branch
from tests.ui.benches import built
from tests.ui.fakes import FakePipeline, loaded
from tests.ui.queues import ANN, BOB, PATIENCE, Gate, asked, done, until
from tests.ui.queues import jobs as jobs  # a fixture, as the next ones are
from tests.ui.queues import pipeline as pipeline
from tests.ui.queues import runs as runs
from ui.page.live_view import Following
from ui.service import run_store
from ui.service.job_queue import MAX_ENDED, Job, Jobs
from ui.service.limits import OwnLimits
from ui.service.model_thread import ModelThread
from ui.service.run_store import RunStore

# A run.


def test_a_run_is_kept_as_pictures_steps_and_a_row(jobs: Jobs, runs: RunStore) -> None:
    job = done(jobs.submit_run(ANN, asked(batch=2, cfg_scale=2.0)))
    assert (job.state, job.error, job.trouble) == ("done", "", "")
    assert (job.total, job.evals, job.evals_due) == (3, 3, 3)
    kept = runs.open(ANN, job.run_id)
    assert kept.names == ("000001.png", "000002.png")
    assert [path.read_bytes() for path in kept.paths] == [kept.png(0), kept.png(1)]
    assert read_recipe(kept.paths[1]).settings.seed == 2
    assert kept.thumbnail(1)[:2] == b"\xff\xd8"
    assert kept.row.steps == "000001.steps.safetensors"
    assert kept.trajectory is not None
    assert len(kept.trajectory.steps) == 3
    assert kept.seconds["denoise"] > 0
    assert [row.id for row in runs.history.search()] == [job.run_id]
    assert job.run_id is not None
    assert [row.id for row in runs.family(ANN, job.run_id)] == [job.run_id]
    assert runs.open(ANN, job.run_id).trajectory is kept.trajectory  # the file stays open


def test_steps_are_there_while_it_runs_and_gone_afterwards(jobs: Jobs, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.02
    job = jobs.submit_run(ANN, asked(steps=10))
    until(lambda: len(job.steps) >= 2)
    steps = job.steps
    assert 0 < (job.eta or 0) < 5
    assert steps[1].preview().size == (64, 64)
    done(job)
    assert job.steps == []
    assert job.eta is None
    assert steps[1].preview().size == (64, 64)  # who took the list can go on with it


def test_the_picture_and_mask_that_a_run_begins_with(jobs: Jobs, runs: RunStore) -> None:
    from PIL import Image

    picture, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 255)
    job = done(jobs.submit_run(ANN, asked(strength=0.7, steps=10), image=picture, mask=mask))
    assert job.state == "done"
    assert job.words.startswith("strength 0.7 x 10 = 7 steps, from sigma ")
    assert job.evals_due == 7
    assert (job.image, job.mask) == (None, None)
    assert runs.open(ANN, job.run_id).settings.mask_sha256 is not None


def test_keeping_steps_can_be_switched_off(pipeline: FakePipeline, tmp_path: Path) -> None:
    runs = RunStore(tmp_path, keep_steps=lambda: False)
    job = done(Jobs(loaded(pipeline), runs).submit_run(ANN, asked()))
    assert list(tmp_path.glob("*.safetensors")) == []
    assert runs.open(ANN, job.run_id).trajectory is not None  # for now
    again = RunStore(tmp_path)
    assert again.open(ANN, job.run_id).trajectory is None
    assert again.open(ANN, job.run_id).names == ("000001.png",)


def test_a_run_that_was_deleted_is_let_go(pipeline: FakePipeline, tmp_path: Path) -> None:
    runs = RunStore(tmp_path, keep_steps=lambda: False)
    job = done(Jobs(loaded(pipeline), runs).submit_run(ANN, asked()))
    assert job.run_id is not None
    runs.history.delete([job.run_id])
    runs.forget([job.run_id])
    with pytest.raises(UserError, match="deleted"):
        runs.open(ANN, job.run_id)


def test_a_batch_is_saved_whole_or_not_at_all(
    jobs: Jobs, runs: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = write_numbered

    def full(folder: Path, data: bytes) -> Path:
        if list(folder.glob("*.png")):
            raise UserError("there is no room")
        return write(folder, data)

    monkeypatch.setattr(run_store, "write_numbered", full)
    job = done(jobs.submit_run(ANN, asked(batch=2)))
    assert "there is no room" in job.trouble
    assert list(runs.folder.glob("*.png")) == []
    assert len(runs.open(ANN, job.run_id).pngs) == 2


def test_a_branch_is_kept_with_its_parent(jobs: Jobs, runs: RunStore) -> None:
    first = done(jobs.submit_run(ANN, asked(batch=2, sampler="euler")))
    assert first.run_id is not None
    same = done(jobs.submit_run(ANN, Request(prompt="a red circle"), parent=(first.run_id, 2)))
    assert (same.kind, same.state, same.error) == ("branch", "done", "")
    other = done(jobs.submit_run(ANN, Request(prompt="x"), parent=(first.run_id, 1), parent_image=1))
    kept, one = runs.open(ANN, same.run_id), runs.open(ANN, other.run_id)
    assert (kept.row.parent, kept.row.parent_step, kept.evals) == (first.run_id, 2, 1)
    pictures = [run.picture(1) for run in (kept, runs.open(ANN, first.run_id))]
    assert len({picture.tobytes() for picture in pictures if picture}) == 1
    assert (one.names, one.settings.seed, one.settings.prompt) == (("000005.png",), 2, "x")
    assert [row.id for row in runs.family(ANN, first.run_id)] == [first.run_id, same.run_id, other.run_id]


def test_only_what_has_steps_of_this_model_can_be_branched(jobs: Jobs, runs: RunStore) -> None:
    first = done(jobs.submit_run(ANN, asked()))
    assert first.run_id is not None
    strange = done(jobs.submit_run(BOB, Request(), parent=(first.run_id, 1)))
    assert (strange.state, strange.run_id) == ("failed", None)
    pipeline: Any = jobs.engine.pipeline
    pipeline.model.files.__dict__["sha256"] = "1" * 64
    other = done(jobs.submit_run(ANN, Request(), parent=(first.run_id, 1)))
    assert other.error == "this run was made by the model fake; choose that model to branch from it"
    (runs.folder / "000001.steps.safetensors").unlink()
    bare = done(jobs.submit_run(ANN, Request(), parent=(first.run_id, 1)))
    assert bare.error == "the steps of this run were not saved, so nothing can branch from it"


# Owners and order.


def test_two_owners_never_see_each_others_runs(jobs: Jobs, runs: RunStore) -> None:
    gate = Gate(jobs)
    hers, his = jobs.submit_run(ANN, asked(prompt="a secret")), jobs.submit_run(BOB, asked(seed=2))
    lines = jobs.listing(BOB)
    assert [(line.mine, line.title, line.position) for line in lines] == [
        (False, "", 0),
        (False, "", 1),
        (True, "a red circle", 2),
    ]
    assert [line.id for line in lines] == ["", "", his.id]
    assert jobs.live(ANN) is hers
    with pytest.raises(UserError, match="no longer available"):
        jobs.get(BOB, hers.id)
    with pytest.raises(UserError):
        jobs.cancel(BOB, hers.id)
    jobs.stop(BOB)
    gate.opened.set()
    assert done(hers).state == "done"
    assert done(his).state == "stopped"
    assert runs.open(ANN, hers.run_id).settings.prompt == "a secret"
    for stranger in (BOB, ""):
        with pytest.raises(UserError):
            runs.open(stranger, hers.run_id)
        assert runs.history.count(owner=runs.scope(stranger)) == 0


def test_alone_everybody_sees_every_run(pipeline: FakePipeline, tmp_path: Path) -> None:
    runs = RunStore(tmp_path)
    job = done(Jobs(loaded(pipeline), runs).submit_run(ANN, asked()))
    assert runs.open(BOB, job.run_id).id == job.run_id


def test_jobs_run_in_the_order_they_came(jobs: Jobs) -> None:
    gate, order = Gate(jobs), []
    for owner, name in ((ANN, "a"), (BOB, "b"), (ANN, "c")):
        last = jobs.submit_task(owner, name, lambda pipeline, job: order.append(job.title))
    assert [line.title for line in jobs.listing(ANN)] == ["", "a", "", "c"]
    gate.opened.set()
    done(last)
    assert order == ["a", "b", "c"]
    until(lambda: jobs.listing(ANN) == [])
    assert jobs.live(ANN) is None


# Stopping.


def test_a_waiting_job_is_cancelled_at_once(jobs: Jobs) -> None:
    gate = Gate(jobs)
    first, second = jobs.submit_run(ANN, asked()), jobs.submit_run(ANN, asked(seed=2))
    jobs.cancel(ANN, first.id)
    assert first.ended.is_set()
    assert (first.state, first.run_id) == ("stopped", None)
    assert [line.id for line in jobs.listing(ANN) if line.mine] == [second.id]
    gate.opened.set()
    assert done(second).state == "done"
    jobs.cancel(ANN, second.id)  # too late, and nothing happens
    assert second.state == "done"


def test_stop_in_mid_run_keeps_what_was_made(jobs: Jobs, runs: RunStore, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.02
    job = jobs.submit_run(ANN, asked(steps=200))
    until(lambda: len(job.steps) >= 2)
    made = len(job.steps)
    jobs.stop(ANN)
    assert done(job).state == "stopped"
    kept = runs.open(ANN, job.run_id)
    assert kept.stopped
    assert kept.trajectory is not None
    assert made <= len(kept.trajectory.steps) <= made + 2  # within one evaluation
    assert kept.settings.stop_after == len(kept.trajectory.steps)
    pipeline.delay = 0
    again = pipeline.generate(Request.from_settings(read_recipe(kept.paths[0]).settings))
    assert again.pngs() == [kept.png(0)]


def test_skip_leaves_what_waits(jobs: Jobs, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.02
    first, second = jobs.submit_run(ANN, asked(steps=200)), jobs.submit_run(ANN, asked())
    until(lambda: first.steps)
    jobs.skip(BOB)
    jobs.skip(ANN)
    assert done(first).state == "stopped"
    assert done(second).state == "done"


def test_a_task_says_how_far_it_is_and_can_be_stopped(jobs: Jobs) -> None:
    def count(pipeline: Any, job: Job) -> int:
        job.evals_due = 10
        for job.evals in range(10):
            if job.cancel.wait(0.01):
                raise Cancelled
        return job.evals

    job = done(jobs.submit_task(ANN, "count", count))
    assert (job.state, job.value) == ("done", 9)
    job = jobs.submit_task(ANN, "count", count)
    until(lambda: job.state == "running")
    jobs.stop(ANN)
    assert (done(job).state, job.value) == ("stopped", None)


# Limits.


def test_the_line_has_an_end(pipeline: FakePipeline, runs: RunStore) -> None:
    limits = OwnLimits(queue=3, queue_owner=2)
    jobs = Jobs(loaded(pipeline), runs, lambda: limits)
    gate = Gate(jobs)
    jobs.submit_run(ANN, asked())
    last = jobs.submit_run(ANN, asked())
    with pytest.raises(UserError, match="2 of your runs are queued already"):
        jobs.submit_run(ANN, asked())
    with pytest.raises(UserError, match="queue is full"):
        jobs.submit_run(BOB, asked())
    jobs.cancel(ANN, last.id)
    his = jobs.submit_run(BOB, asked())
    gate.opened.set()
    assert done(his).state == "done"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 11}, "steps 11: must be at most 10 on this page"),
        ({"batch": 3}, "batch 3: must be at most 2 on this page"),
        (
            {"width": 128, "height": 64},
            "size 128x64: must be at most 4096 pixels on this page, such as 64x64",
        ),
    ],
)
def test_what_is_too_large_is_refused_at_once(
    pipeline: FakePipeline, runs: RunStore, fields: dict[str, Any], said: str
) -> None:
    jobs = Jobs(loaded(pipeline), runs, lambda: OwnLimits(steps=10, batch=2, pixels=4096))
    with pytest.raises(UserError, match=said):
        jobs.submit_run(ANN, asked(**fields))
    job = done(jobs.submit_run(ANN, Request()))  # the model's own 20 steps
    assert job.error == "steps 20: must be at most 10 on this page"


def test_the_steps_of_a_recipe_of_branches_count_together(pipeline: FakePipeline, runs: RunStore) -> None:
    jobs = Jobs(loaded(pipeline), runs, lambda: OwnLimits(steps=10))
    first = pipeline.stream(asked(steps=9)).settings
    assert done(jobs.submit_run(ANN, asked(steps=9, branch=Branch(8, first)))).state == "done"
    longer = asked(sigmas=(1e3, 0.1, 0.08, 0.06, 0.04, 0.02), steps=None, branch=Branch(8, first))
    assert done(jobs.submit_run(ANN, longer)).error == "steps 11: must be at most 10 on this page"


# Models.


def models(tmp_path: Path, **loaders: Callable[[], Any]) -> Jobs:
    engine = ModelThread(lambda name: loaders[name](), "first", lambda name: name != "large")
    engine.start()
    assert engine.wait(PATIENCE)
    return Jobs(engine, RunStore(tmp_path))


def refuse() -> NoReturn:
    raise UserError("Model 'x' is not there.")


def test_the_first_page_that_opens_has_the_model_loaded(
    pipeline: FakePipeline, runs: RunStore, tmp_path: Path
) -> None:
    loads: list[str] = []

    def load(name: str) -> FakePipeline:
        loads.append(name)
        return pipeline

    jobs = Jobs(ModelThread(load, "first"), runs)
    bench = built(jobs, current.registry(), tmp_path)
    assert loads == []
    for _ in range(2):
        bench.on_open("ann", None, "", Following())
        assert jobs.engine.wait(PATIENCE)
    assert loads == ["first"]


def test_what_would_be_nobodys_is_refused(tmp_path: Path) -> None:
    jobs = models(tmp_path, first=FakePipeline)
    with pytest.raises(UserError, match="the page is still opening"):
        jobs.submit_run("", asked())
    assert jobs.listing("") == []


def test_a_model_is_switched_in_its_turn(tmp_path: Path) -> None:
    jobs = models(tmp_path, first=FakePipeline, second=FakePipeline)
    engine, first = jobs.engine, jobs.engine.pipeline
    before, switch = jobs.submit_run(ANN, asked()), jobs.switch_model(ANN, "second")
    after = jobs.submit_run(ANN, asked())
    assert done(switch).state == "done"
    assert before.state == "done"
    assert (engine.name, engine.switching) == ("second", None)
    assert engine.pipeline is not first
    assert done(after).state == "done"
    job = done(jobs.submit_run(ANN, asked(), model="first"))
    assert (job.state, engine.name) == ("done", "first")


@pytest.mark.parametrize("name", ["gone", "large"])
def test_a_model_that_cannot_be_loaded_leaves_the_earlier_one(tmp_path: Path, name: str) -> None:
    jobs = models(tmp_path, first=FakePipeline, gone=refuse, large=refuse)
    job = done(jobs.switch_model(ANN, name))
    assert (job.state, job.error) == ("failed", "Model 'x' is not there.")
    assert (jobs.engine.name, jobs.engine.switching) == ("first", None)
    assert done(jobs.submit_run(ANN, asked())).state == "done"


def test_a_large_model_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    there: list[bool] = []
    engines: list[ModelThread] = []

    def large() -> FakePipeline:
        there.append(engines[0].ready)
        return FakePipeline()

    jobs = models(tmp_path, first=FakePipeline, large=large)
    engines.append(jobs.engine)
    assert done(jobs.switch_model(ANN, "large")).state == "done"
    assert there == [False]
    assert jobs.engine.name == "large"


def test_runs_without_a_model_fail_until_one_is_chosen(tmp_path: Path) -> None:
    jobs = models(tmp_path, first=refuse, second=FakePipeline)
    assert done(jobs.submit_run(ANN, asked())).error == "Model 'x' is not there."
    with pytest.raises(UserError, match="is not there"):
        _ = jobs.engine.pipeline
    done(jobs.switch_model(ANN, "second"))
    assert done(jobs.submit_run(ANN, asked())).state == "done"


def test_runs_may_be_asked_for_before_the_model_is_there(pipeline: FakePipeline, runs: RunStore) -> None:
    opened = threading.Event()

    def load(name: str) -> FakePipeline:
        assert opened.wait(PATIENCE)
        return pipeline

    jobs = Jobs(ModelThread(load), runs)
    jobs.engine.start()
    job = jobs.submit_run(ANN, asked())
    assert not jobs.engine.wait(0.05)
    assert job.state == "waiting"
    opened.set()
    assert done(job).state == "done"


# Many.


def test_a_hundred_jobs_of_eight_threads_are_neither_lost_nor_crossed(jobs: Jobs, runs: RunStore) -> None:
    counter, made, failures = itertools.count(), [], []

    def work(owner: str) -> None:
        try:
            while (number := next(counter)) < 100:
                job = done(jobs.submit_run(owner, asked(prompt=f"{owner} {number}", seed=number, steps=1)))
                made.append((owner, number, job))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"owner {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert sorted(number for _, number, _ in made) == list(range(100))
    for owner, number, job in made:
        kept = runs.open(owner, job.run_id)
        assert (kept.settings.prompt, kept.settings.seed, kept.owner) == (f"{owner} {number}", number, owner)
        assert read_recipe(kept.paths[0]).settings == replace(kept.settings, batch=1)
    assert len({job.run_id for _, _, job in made}) == 100
    assert runs.history.count() == 100


def test_what_ended_takes_no_memory(jobs: Jobs) -> None:
    first = done(jobs.submit_run(ANN, asked()))
    assert (first.steps, first.image, first.mask) == ([], None, None)
    later = [jobs.submit_task(ANN, "nothing", lambda pipeline, job: None) for _ in range(MAX_ENDED)]
    done(later[-1])
    until(lambda: not jobs.listing(ANN))
    with pytest.raises(UserError, match="no longer available"):
        jobs.get(ANN, first.id)
    assert jobs.get(ANN, later[-1].id) is later[-1]
    assert len(jobs) == MAX_ENDED
