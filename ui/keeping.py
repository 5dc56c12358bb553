"""What is kept of runs that have ended: picture files, and their steps."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from ui.engine import sentence_of

if TYPE_CHECKING:
    from ui.engine import PageResult, PageStep
    from ui.jobs import Job

MAX_RUNS = 32
MAX_BYTES = 512 * 2**20


class KeptRun:
    """A run that has ended, with every step. `names` are the file names of its pictures."""

    def __init__(
        self, job: Job, names: Sequence[str], pngs: Sequence[bytes], seconds: dict[str, float]
    ) -> None:
        assert job.settings is not None
        self.id = secrets.token_urlsafe(9)
        self.owner, self.settings, self.total = job.owner, job.settings, job.total
        self.steps: Sequence[PageStep] = tuple(job.steps)
        self.stopped = not seconds
        self.seconds = seconds
        self.names, self.pngs = tuple(names), tuple(pngs)

    @property
    def nbytes(self) -> int:
        """The memory that the steps and pictures take, roughly."""
        tensors = ("x", "denoised", "conditional", "unconditional")
        steps = sum(_nbytes(getattr(step, name, None)) for step in self.steps for name in tensors)
        return steps + sum(len(png) for png in self.pngs)


class Runs:
    """The runs that are kept. Pictures go to `folder`; a run belongs to its owner, or to all with `see_all`.

    The oldest ones leave the memory beyond `max_runs` and `max_bytes`; the newest one always stays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        see_all: bool = False,
        max_runs: int = MAX_RUNS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.folder, self.see_all = folder, see_all
        self._max_runs, self._max_bytes = max_runs, max_bytes
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, KeptRun] = OrderedDict()

    def keep(self, job: Job, result: PageResult | None) -> tuple[str, str]:
        """Keep what a job made: (run id, what could not be saved). No result: it was stopped."""
        run, trouble = self._stopped(job) if result is None else self._saved(job, result)
        with self._lock:
            self._runs[run.id] = run
            while len(self._runs) > 1 and self._too_much():
                self._runs.popitem(last=False)
        return run.id, trouble

    def open(self, owner: str, run_id: object) -> KeptRun:
        """A run that the owner may see. Raises UserError if it is gone."""
        with self._lock:
            run = self._runs.get(str(run_id))
        if run is None or not (self.see_all or run.owner == owner):
            raise UserError("this run is no longer in memory; generate it again from its seed")
        return run

    def _saved(self, job: Job, result: PageResult) -> tuple[KeptRun, str]:
        try:
            paths = result.save(self.folder)
        except Exception as error:
            pngs = result.pngs()
            reason = sentence_of(error, "writing it failed")
            return KeptRun(job, ["not-saved.png"] * len(pngs), pngs, result.seconds), (
                f"the picture is not saved: {reason}"
            )
        return KeptRun(job, [p.name for p in paths], [p.read_bytes() for p in paths], result.seconds), ""

    def _stopped(self, job: Job) -> tuple[KeptRun, str]:
        """What was made until the stop. It is no picture of its recipe, so it is not written to a file."""
        from ui.widgets.player import png

        last, count = job.steps[-1], len(job.steps)
        assert job.settings is not None
        images = range(job.settings.batch)
        names = [f"stopped-at-step-{count}-of-{job.total}-picture-{i + 1}.png" for i in images]
        return KeptRun(job, names, [png(last.decode(i)) for i in images], {}), ""

    def _too_much(self) -> bool:
        size = sum(run.nbytes for run in self._runs.values())
        return len(self._runs) > self._max_runs or size > self._max_bytes


def _nbytes(tensor: object) -> int:
    return int(getattr(tensor, "nbytes", 0))
