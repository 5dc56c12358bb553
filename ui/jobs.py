"""The queue of the page: runs and other work for the model, that go on whoever watches.

A job belongs to its owner, a random token that a browser keeps, and to no event of a browser: it goes on when
the page is reloaded, is kept when it ends, and every page of its owner can watch it. All of it may be called
from any thread.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from core.errors import Cancelled, UserError
from ui.engine import sentence_of

if TYPE_CHECKING:
    from core.inputs import Source
    from core.request import Request, Settings
    from ui.engine import Engine, PagePipeline, PageRun, PageStep
    from ui.keeping import Runs

Kind = Literal["run", "branch", "model", "task"]
State = Literal["waiting", "running", "done", "stopped", "failed"]

MAX_ENDED = 256  # jobs that can still be asked about after they ended
NO_PROMPT = "picture without a prompt"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one may ask for: jobs in line, in all and of one owner, and the size of a run."""

    queue: int = 64
    queue_owner: int = 16
    pixels: int = 2048 * 2048
    steps: int = 1000
    batch: int = 64

    def check(self, asked: Request | Settings) -> None:
        """Raises UserError for a run that is larger. What is left open is checked when it is resolved."""
        if asked.batch > self.batch:
            raise UserError(f"batch {asked.batch}: this page makes at most {self.batch} at once")
        if asked.steps is not None and asked.steps > self.steps:
            raise UserError(f"steps {asked.steps}: this page runs at most {self.steps}")
        if asked.width is not None and asked.height is not None and asked.width * asked.height > self.pixels:
            side = int(self.pixels**0.5) // 8 * 8
            raise UserError(
                f"size {asked.width}x{asked.height}: this page makes at most {self.pixels} pixels, "
                f"such as {side}x{side}"
            )


class Job:
    """One thing for the model to do. It is changed by the model's thread and may be read from any other.

    state: "waiting" in line, "running", and then "done", "stopped" or "failed" for good; `ended` is set with
    it. error: why it failed, in one sentence; trouble: what could not be saved of a run that went well.
    steps: those made until now, only while it runs: take the list once and use that. run_id: what it made, to
    be opened from what is kept; None if it made nothing. value: what a task gave back. evals_due: the model
    evaluations of the whole run, evals those done. words: what runs of a grid that is not run whole.
    """

    def __init__(
        self,
        owner: str,
        kind: Kind,
        title: str,
        *,
        request: Request | None = None,
        image: Source | None = None,
        mask: Source | None = None,
        parent: tuple[str, int] | None = None,
        model: str | None = None,
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self.owner, self.kind, self.title = owner, kind, title
        self.request, self.parent, self.model = request, parent, model
        self.image, self.mask = image, mask
        self.state: State = "waiting"
        self.error = self.trouble = ""
        self.cancel, self.ended = threading.Event(), threading.Event()
        self.created = time.time()
        self.started: float | None = None
        self.settings: Settings | None = None
        self.total = self.evals_due = self.evals = 0
        self.words = ""
        self.steps: list[PageStep] = []
        self.run_id: str | None = None
        self.value: Any = None
        self._lock = threading.Lock()
        self._last: tuple[float, float] | None = None  # when the last step came, seconds an evaluation

    @property
    def eta(self) -> float | None:
        """Seconds until its last step by its own speed; None before its first one."""
        if self._last is None or self.state != "running":
            return None
        when, each = self._last
        left = each * max(self.evals_due - self.evals, 0)
        return max(left - (time.perf_counter() - when), 0.0)

    def begin(self) -> bool:
        """From waiting to running; False if it was stopped before."""
        with self._lock:
            if self.state != "waiting" or self.cancel.is_set():
                return False
            self.state, self.started = "running", time.time()
            return True

    def end(self, state: State, error: str = "") -> bool:
        """To its last state; False if it has one already. What only a run needs is let go."""
        with self._lock:
            if self.ended.is_set():
                return False
            self.state, self.error = state, error
            self.steps, self.image, self.mask = [], None, None
            self.ended.set()
            return True

    def follow(self, run: PageRun, evals: int) -> None:
        """Take the run's steps as they are made. `evals` is how many evaluations one step takes."""
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
    """A job in the list of the queue. Of others there is no id, no title and no run.

    position: 0 for the one that runs, and then the place in line.
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
    """The queue. `engine` is the model that it works on, `runs` where what it makes is kept."""

    def __init__(self, engine: Engine, runs: Runs, limits: Limits | None = None) -> None:
        self.engine, self.runs, self.limits = engine, runs, limits or Limits()
        self._lock = threading.Lock()
        self._active: OrderedDict[str, Job] = OrderedDict()
        self._work: dict[str, Callable[[], None]] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()

    def submit_run(
        self,
        owner: str,
        request: Request,
        *,
        image: Source | None = None,
        mask: Source | None = None,
        parent: tuple[str, int] | None = None,
        model: str | None = None,
    ) -> Job:
        """A run at the end of the line: of the loaded model, or of `model`, which is then loaded first.

        image, mask: what it starts from. parent: (run id, step) that it branches from. Raises UserError when
        the line is full, and for what is beyond the limits.
        """
        self.limits.check(request)
        kind: Kind = "run" if parent is None else "branch"
        title = request.prompt or NO_PROMPT
        job = Job(owner, kind, title, request=request, image=image, mask=mask, parent=parent, model=model)
        return self._submit(job, self._run)

    def submit_task(
        self,
        owner: str,
        title: str,
        function: Callable[[Any, Job], Any],
        *,
        model: str | None = None,
    ) -> Job:
        """`function(pipeline, job)` at the end of the line; what it gives back is `job.value`.

        It should look at `job.cancel` now and then; that it was stopped it says by raising Cancelled. It may
        set `job.evals` and `job.evals_due`. Raises UserError when the line is full.
        """

        def do(job: Job) -> None:
            job.value = function(self._pipeline(job), job)
            job.end("done")

        return self._submit(Job(owner, "task", title, model=model), do)

    def switch_model(self, owner: str, name: str) -> Job:
        """Load another model when its turn comes. Raises UserError when the line is full."""

        def do(job: Job) -> None:
            self._pipeline(job)
            job.end("done")

        return self._submit(Job(owner, "model", f"load {name}", model=name), do)

    def cancel(self, owner: str, job_id: str) -> None:
        """Stop one of the owner's jobs: at once if it waits, within one evaluation if it runs.

        Raises UserError if there is no such job.
        """
        self._stop(self.get(owner, job_id))

    def stop(self, owner: str) -> None:
        """Stop all of the owner's jobs."""
        for job in self._of(owner):
            self._stop(job)

    def skip(self, owner: str) -> None:
        """Stop the owner's job that runs; the next one follows."""
        for job in self._of(owner):
            if job.state == "running":
                self._stop(job)

    def get(self, owner: str, job_id: str) -> Job:
        """One of the owner's jobs, also for a while after it ended. Raises UserError if there is none."""
        with self._lock:
            job = self._active.get(job_id) or self._ended.get(job_id)
        if job is None or job.owner != owner:
            raise UserError("this job is gone; what it made is in the history")
        return job

    def live(self, owner: str) -> Job | None:
        """The owner's job that runs, else the first that waits, else None."""
        return next(iter(self._of(owner)), None)

    def listing(self, owner: str) -> list[JobLine]:
        """What runs and waits, of everybody, in order."""
        with self._lock:
            jobs = list(self._active.values())
        ahead = int(not any(job.state == "running" for job in jobs))
        return [_line(job, owner, place) for place, job in enumerate(jobs, ahead)]

    def _of(self, owner: str) -> list[Job]:
        with self._lock:
            return [job for job in self._active.values() if job.owner == owner]

    def _submit(self, job: Job, do: Callable[[Job], None]) -> Job:
        def work() -> None:
            if job.begin():
                self._do(job, do)
            self._leave(job)

        with self._lock:
            self._check_room(job.owner)
            self._active[job.id], self._work[job.id] = job, work
            self.engine.submit(work)
        return job

    def _check_room(self, owner: str) -> None:
        jobs = self._active.values()
        mine = sum(job.owner == owner for job in jobs)
        if mine >= self.limits.queue_owner:
            raise UserError(f"{mine} of your runs are in line already; wait for one, or cancel one")
        if len(jobs) >= self.limits.queue:
            raise UserError(f"the line is full ({len(jobs)} runs); try again in a moment")

    def _stop(self, job: Job) -> None:
        job.cancel.set()
        with self._lock:
            work = self._work.get(job.id)
        if work is not None and self.engine.withdraw(work):
            self._leave(job)

    def _leave(self, job: Job) -> None:
        """The job is over, or is so now because it never began."""
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
        except BaseException as error:  # a plugin may raise anything, and someone waits for the end
            what = f"the run failed at step {len(job.steps) + 1}" if job.request else f"{job.title} failed"
            job.end("failed", sentence_of(error, what))

    def _pipeline(self, job: Job) -> PagePipeline:
        return self.engine.pipeline if job.model is None else self.engine.switch(job.model)

    def _run(self, job: Job) -> None:
        from core import plugins

        assert job.request is not None
        pipeline = self._pipeline(job)
        run = pipeline.stream(job.request, image=job.image, mask=job.mask, cancel=job.cancel)
        try:
            self.limits.check(run.settings)
            result = None
            try:
                job.follow(run, plugins.registry().sampler(run.settings.sampler).evals)
                result = run.result()
            except Cancelled:
                if not job.steps:
                    raise
        finally:
            run.close()
        job.run_id, job.trouble = self.runs.keep(job, result)
        job.end("stopped" if result is None else "done")


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
