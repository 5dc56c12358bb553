"""The job queue of the page: runs and other work for the model, independent of any open page.

A job belongs to its owner, a random token that a browser stores, not to a browser event: it continues when
the page is reloaded, its result is saved, and every page of its owner can follow it. Everything here is
thread-safe.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from core.errors import Cancelled, UserError
from core.plugins import current
from ui.service.limits import Limits, OwnLimits, check_limits
from ui.service.model_thread import sentence_of

if TYPE_CHECKING:
    from core.images.source_images import ImageSource
    from core.inference.run import Run, RunStep
    from core.request.request import Request
    from core.request.settings import Settings
    from ui.service.model_thread import ModelThread, PagePipeline, Work
    from ui.service.run_store import RunStore

Kind = Literal["run", "branch", "model", "task"]
State = Literal["waiting", "running", "done", "stopped", "failed"]

LOOK_SECONDS = 0.5
MAX_ENDED = 256  # ended jobs that can still be queried
NO_PROMPT = "image without a prompt"


class Job:
    """One piece of work for the model. Only the model's thread changes it; any thread may read it.

    state: "waiting" in the queue, "running", and finally "done", "stopped" or "failed", when `ended` is set.
    error: why it failed, in one sentence; trouble: a warning, what of a finished run could not be saved.
    steps: those finished so far, only while it runs: take the list once and use that. run_id: the saved run;
    None if it made none. value: what a task returned. evals_due: the model evaluations of the whole run,
    evals those done. words: which part of the schedule runs, if not all of it.
    """

    def __init__(
        self,
        owner: str,
        kind: Kind,
        title: str,
        *,
        request: Request | None = None,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        parent: tuple[str, int] | None = None,
        parent_image: int | None = None,
        model: str | None = None,
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self.owner, self.kind, self.title = owner, kind, title
        self.request, self.model = request, model
        self.parent, self.parent_image = parent, parent_image
        self.image, self.mask = image, mask
        self.state: State = "waiting"
        self.error = self.trouble = ""
        self.cancel, self.ended = threading.Event(), threading.Event()
        self.created = time.time()
        self.started: float | None = None
        self.settings: Settings | None = None
        self.total = self.evals_due = self.evals = 0
        self.words = ""
        self.steps: list[RunStep] = []
        self.run_id: str | None = None
        self.value: Any = None
        self._lock = threading.Lock()
        self._last: tuple[float, float] | None = None  # when the last step ended, seconds per evaluation

    @property
    def eta(self) -> float | None:
        """Estimated seconds until its last step; None before its first one."""
        if self._last is None or self.state != "running":
            return None
        when, each = self._last
        left = each * max(self.evals_due - self.evals, 0)
        return max(left - (time.perf_counter() - when), 0.0)

    def begin(self) -> bool:
        """Change from waiting to running; False if it was stopped before."""
        with self._lock:
            if self.state != "waiting" or self.cancel.is_set():
                return False
            self.state, self.started = "running", time.time()
            return True

    def end(self, state: State, error: str = "") -> bool:
        """Set its final state and free its steps and inputs; False if it has ended already."""
        with self._lock:
            if self.ended.is_set():
                return False
            self.state, self.error = state, error
            self.steps, self.image, self.mask = [], None, None
            self.ended.set()
            return True

    def follow(self, run: Run, evals: int) -> None:
        """Collect the run's steps as they are made. `evals` is the number of evaluations per step."""
        self.settings, self.total = run.settings, run.total
        self.words, self.evals_due = run.words, run.total * evals
        began = time.perf_counter()
        for step in run:
            now = time.perf_counter()
            self.steps.append(step)
            self.evals = step.evals
            self._last = now, (now - began) / max(step.evals, 1)


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """A job in the list of the queue. Jobs of other owners have no id and no title.

    position: 0 for the running job, then the position in the queue.
    """

    id: str
    mine: bool
    kind: Kind
    title: str
    state: State
    position: int
    evals: int
    evals_due: int
    eta: float | None


class Jobs:
    """The queue. `engine` is the model's thread, `runs` the store of finished runs.

    limits: called each time, as they may change. patience: seconds that a stopped sampler may run on without
    calling the network; after that its thread is abandoned and the next job runs on a new one.
    """

    def __init__(
        self,
        engine: ModelThread,
        runs: RunStore,
        limits: Callable[[], Limits] = OwnLimits,
        patience: float = 10.0,
    ) -> None:
        self.engine, self.runs, self._limits, self._patience = engine, runs, limits, patience
        self._lock = threading.Lock()
        self._active: OrderedDict[str, Job] = OrderedDict()
        self._work: dict[str, Work] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()

    def submit_run(
        self,
        owner: str,
        request: Request,
        *,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        parent: tuple[str, int] | None = None,
        parent_image: int | None = None,
        model: str | None = None,
    ) -> Job:
        """Queue a run of the loaded model, or of `model`, which is then loaded first.

        image, mask: init image and mask. parent: (run id, step) that it branches from; parent_image: which
        image of its batch, None for all of them. Raises UserError if the queue is full or the run exceeds the
        limits.
        """
        self.check(request)
        kind: Kind = "run" if parent is None else "branch"
        title = request.prompt or NO_PROMPT
        job = Job(
            owner,
            kind,
            title,
            request=request,
            image=image,
            mask=mask,
            parent=parent,
            parent_image=parent_image,
            model=model,
        )
        return self._submit(job, self._run)

    def check(self, asked: Request | Settings) -> None:
        """Raise UserError for a run that exceeds the limits, before it is submitted."""
        check_limits(self._limits(), asked)

    def submit_task(
        self,
        owner: str,
        title: str,
        function: Callable[[Any, Job], Any],
        *,
        model: str | None = None,
    ) -> Job:
        """Queue `function(pipeline, job)`; its return value becomes `job.value`.

        It should check `job.cancel` regularly and raise Cancelled when it is set. It may set `job.evals` and
        `job.evals_due`. Raises UserError if the queue is full.
        """

        def do(job: Job) -> None:
            job.value = function(self._pipeline(job), job)
            job.end("done")

        return self._submit(Job(owner, "task", title, model=model), do)

    def switch_model(self, owner: str, name: str) -> Job:
        """Queue loading another model. Raises UserError if the queue is full."""

        def do(job: Job) -> None:
            self._pipeline(job)
            job.end("done")

        return self._submit(Job(owner, "model", f"load {name}", model=name), do)

    def cancel(self, owner: str, job_id: str) -> None:
        """Stop one of the owner's jobs: at once if it is queued, within one evaluation if it runs.

        Raises UserError if there is no such job.
        """
        self._stop(self.get(owner, job_id))

    def stop(self, owner: str) -> None:
        """Stop all of the owner's jobs."""
        for job in self._jobs_of(owner):
            self._stop(job)

    def skip(self, owner: str) -> None:
        """Stop the owner's running job; the next one in the queue starts."""
        for job in self._jobs_of(owner):
            if job.state == "running":
                self._stop(job)

    def __len__(self) -> int:
        """How many jobs are held: those that are queued or run, and the newest that have ended."""
        with self._lock:
            return len(self._active.keys() | self._work.keys() | self._ended.keys())

    def get(self, owner: str, job_id: str) -> Job:
        """One of the owner's jobs, also for a while after it ended. Raises UserError if there is none."""
        with self._lock:
            job = self._active.get(job_id) or self._ended.get(job_id)
        if job is None or job.owner != owner:
            raise UserError("this job is no longer available; its images are in the history")
        return job

    def live(self, owner: str) -> Job | None:
        """The owner's running job, else the first queued one, else None."""
        return next(iter(self._jobs_of(owner)), None)

    def newest(self, owner: str) -> str | None:
        """The id of the owner's last finished run; None if there is none."""
        with self._lock:
            ended = list(self._ended.values())
        return next((job.run_id for job in reversed(ended) if job.owner == owner and job.run_id), None)

    def listing(self, owner: str) -> list[JobLine]:
        """The running and queued jobs of all owners, in order."""
        with self._lock:
            jobs = list(self._active.values())
        ahead = int(not any(job.state == "running" for job in jobs))
        return [_line(job, owner, place) for place, job in enumerate(jobs, ahead)]

    def _jobs_of(self, owner: str) -> list[Job]:
        with self._lock:
            return [job for job in self._active.values() if job.owner == owner]

    def _submit(self, job: Job, do: Callable[[Job], None]) -> Job:
        def work() -> None:
            if job.begin():
                self._do(job, do)
            self._remove(job)

        with self._lock:
            self._check_room(job.owner)
            self._active[job.id], self._work[job.id] = job, work
            self.engine.submit(work)
        return job

    def _check_room(self, owner: str) -> None:
        if not owner:  # no page could show its result
            raise UserError("the page is still opening; try again in a moment")
        jobs, limits = self._active.values(), self._limits()
        mine = sum(job.owner == owner for job in jobs)
        if mine >= limits.queue_owner:
            raise UserError(f"{mine} of your runs are queued already; wait for one, or cancel one")
        if len(jobs) >= limits.queue:
            raise UserError(f"the queue is full ({len(jobs)} runs); try again in a moment")

    def _stop(self, job: Job) -> None:
        told_before = job.cancel.is_set()
        job.cancel.set()
        with self._lock:
            work = self._work.get(job.id)
        if work is None:
            return
        if self.engine.withdraw(work):
            self._remove(job)
        elif not told_before:
            threading.Thread(target=self._await_end, args=(job, work), name="stopping", daemon=True).start()

    def _await_end(self, job: Job, work: Work) -> None:
        """Wait until a stopped job ends; abandon its thread if the sampler never returns."""
        from core.sampling.loop import in_sampler  # imports torch, which is loaded by now

        since = time.monotonic()
        while not job.ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            if not in_sampler(self.engine.where(work)):
                since = now
            if now - since > self._patience:
                name = job.settings.sampler if job.settings else "of this run"
                if job.end(
                    "failed",
                    f"sampler {name} does not stop; it uses the processor until the page is restarted",
                ):
                    self.engine.leave_behind(work)
                    self._remove(job)
                return

    def _remove(self, job: Job) -> None:
        """Remove a job that has ended, or that never started, from the queue."""
        job.end("stopped")
        with self._lock:
            self._active.pop(job.id, None)
            self._work.pop(job.id, None)
            self._ended[job.id] = job
            while len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)

    # On the model's thread.

    def _do(self, job: Job, do: Callable[[Job], None]) -> None:
        try:
            do(job)
        except Cancelled:
            job.end("stopped")
        except BaseException as error:  # a plugin may raise anything, and pages wait for the end
            what = f"the run failed at step {len(job.steps) + 1}" if job.request else f"{job.title} failed"
            job.end("failed", sentence_of(error, what))

    def _pipeline(self, job: Job) -> PagePipeline:
        return self.engine.pipeline if job.model is None else self.engine.switch(job.model)

    def _run(self, job: Job) -> None:

        pipeline = self._pipeline(job)
        run: Run = self._stream(job, pipeline)
        try:
            check_limits(self._limits(), run.settings, run.total)
            job.follow(run, current.registry().sampler(run.settings.sampler).evals)
            result = run.result()
        except Cancelled:
            if not run.steps or job.ended.is_set():
                raise
            result = run.so_far()
        finally:
            run.close()
        if job.ended.is_set():  # its thread was abandoned and returned after all
            return
        inputs = (job.image, job.mask)
        job.run_id, job.trouble = self.runs.keep(job.owner, job.parent, inputs, run, result)
        job.end("stopped" if result.stopped and job.cancel.is_set() else "done")

    def _stream(self, job: Job, pipeline: Any) -> Any:
        """The run that a job requests, not started. Raises UserError."""
        if job.parent is None:
            return pipeline.stream(job.request, image=job.image, mask=job.mask, cancel=job.cancel)
        run_id, step = job.parent
        parent = self.runs.open(job.owner, run_id)
        steps, image = parent.trajectory, job.parent_image
        if steps is None:
            raise UserError("the steps of this run were not saved, so nothing can branch from it")
        made_by = steps.recipe.model
        if replace(made_by, name=pipeline.name) != replace(pipeline.model.ref, name=pipeline.name):
            raise UserError(
                f"this run was made by the model {made_by.name}; choose that model to branch from it"
            )
        picture = parent.picture(image or 0)
        steps = steps if image is None else steps.alone(image)
        return pipeline.branch(steps, step, job.request, picture=picture, cancel=job.cancel)


def _line(job: Job, owner: str, position: int) -> JobLine:
    mine = job.owner == owner
    return JobLine(
        id=job.id if mine else "",
        mine=mine,
        kind=job.kind,
        title=job.title if mine else "",
        state=job.state,
        position=position,
        evals=job.evals,
        evals_due=job.evals_due,
        eta=job.eta,
    )
