"""Follow an owner's jobs from a page: running jobs are shown live, ended ones in full.

A page has one watcher at a time, however many events would start one. It ends when none of the owner's jobs
is left; a reloaded page starts another, without effect on the jobs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import UserError
from ui.page.widgets import player as messages

if TYPE_CHECKING:
    from ui.service.job_queue import Job, JobLine, Jobs
    from ui.service.model_thread import ModelThread

log = logging.getLogger(__name__)

LIVE_SECONDS = 0.25
LOOK_SECONDS = 0.05
SETTLE_SECONDS = 0.5  # after the last job, until its end is told once more
ON_STAGE = ("run", "branch", "model")  # kinds of job that the player shows; others appear in the queue only
NOT_STARTED = "the run was stopped before its first step"


class Shows(Protocol):
    """Makes the player's messages: `ui.page.viewer.Viewer`."""

    def live(self, job: Job) -> messages.Message: ...
    def show(self, owner: str, run_id: str, step: int | None = None) -> messages.Message: ...


@dataclass
class Following:
    """The jobs that one page follows. Submitted jobs are added from any thread."""

    jobs: deque[str] = field(default_factory=deque)
    watched: bool = False
    restored: bool = False  # the form was restored from an earlier visit or filled from a URL

    def add(self, *jobs: str) -> None:
        """Follow these too."""
        self.jobs.extend(job for job in jobs if job not in self.jobs)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """An update for the page; None where nothing changed.

    run: the run that has just ended. switched: whether a model switch has just ended, well or not.
    """

    lines: list[JobLine]
    message: messages.Message | None = None
    error: str | None = None
    run: str | None = None
    switched: bool = False
    running: bool = False
    waiting: bool = False


class Watcher:
    """Follows jobs for pages. `between` gives the minimum seconds between two previews."""

    def __init__(
        self,
        engine: ModelThread,
        jobs: Jobs,
        viewer: Shows,
        between: Callable[[], float] = lambda: LIVE_SECONDS,
    ) -> None:
        self.engine, self.jobs, self.viewer, self.between = engine, jobs, viewer, between

    async def watch(self, following: Following, owner: str) -> AsyncIterator[Sight]:
        """Updates until none of the owner's jobs is left; nothing if the page already has a watcher."""
        if following.watched:
            return
        following.watched = True
        try:
            while (job := self._next(following, owner)) is not None:
                async for sight in self._follow(job, owner):
                    yield sight
        finally:
            # No await between the last check and this line, else a job submitted then would have no watcher.
            following.watched = False
        yield self.sight(owner)
        await asyncio.sleep(SETTLE_SECONDS)
        if not following.watched:
            yield self.sight(owner)

    def _next(self, following: Following, owner: str) -> Job | None:
        """The next job to show, in the order of the queue; also jobs that have ended meanwhile."""
        following.add(*(line.id for line in self.jobs.listing(owner) if line.mine))
        while following.jobs:
            try:
                return self.jobs.get(owner, following.jobs.popleft())
            except UserError:  # it ended long ago
                continue
        return None

    async def _follow(self, job: Job, owner: str) -> AsyncIterator[Sight]:
        shown, said, at = 0, "", 0.0
        while not job.ended.is_set():
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if now - at < self.between() or job.ended.is_set():
                continue
            if len(job.steps) > shown:
                shown, at = len(job.steps), now
                message = await asyncio.to_thread(self.viewer.live, job)
                yield self.sight(owner, message if job.kind in ON_STAGE else None)
            elif (words := self._waits(job, owner)) != said and not shown:
                said, at = words, now
                yield self.sight(owner, messages.waiting(words) if job.kind in ON_STAGE else None)
            elif now - at > 1:
                at = now
                yield self.sight(owner)
        yield await asyncio.to_thread(self._ended, job, owner)

    def _waits(self, job: Job, owner: str) -> str:
        if not self.engine.ready and not self.engine.error:
            return "Loading the model..."
        if job.state == "running":
            return (self.engine.switching or "starting...").capitalize()
        place = next((line.position for line in self.jobs.listing(owner) if line.id == job.id), 1)
        return "Queued: next to run." if place < 2 else f"Queued: {place - 1} before it."

    def _ended(self, job: Job, owner: str) -> Sight:
        """The end of a job: its result, or why there is none."""
        try:
            if job.run_id is not None:
                shown = self.viewer.show(owner, job.run_id)
                return replace(self.sight(owner, shown, job.trouble or None), run=job.run_id)
            error = job.error or (NOT_STARTED if job.state == "stopped" else "")
            message = messages.back() if job.kind in ON_STAGE else None
            return replace(self.sight(owner, message, error or None), switched=job.kind == "model")
        except UserError as error:
            return self.sight(owner, messages.back(), str(error))
        except Exception as error:
            log.exception("the run could not be shown")
            sentence = f"the run could not be shown: {type(error).__name__}: {error}"
            return self.sight(owner, messages.back(), sentence)

    def sight(self, owner: str, message: Any = None, error: str | None = None) -> Sight:
        """The queue now, with a new message or error."""
        lines = self.jobs.listing(owner)
        mine = [line for line in lines if line.mine]
        return Sight(
            lines=lines,
            message=message,
            error=error,
            running=any(line.state == "running" for line in mine),
            waiting=bool(mine),
        )
