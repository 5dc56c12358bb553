"""What one browser session keeps: its newest runs, and the run in progress with the means to stop it."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.errors import Cancelled, UserError

if TYPE_CHECKING:
    from core.request import Request, Settings
    from ui.model import ModelThread, PagePipeline, PageResult, PageStep

log = logging.getLogger(__name__)

MAX_RUNS = 8
MAX_BYTES = 256 * 2**20


class LiveRun:
    """A run on the model's thread, watched from another: `steps` grows while it goes on.

    It ends in one of three ways: `result` is there, `stopped` is true (the steps so far are kept), or `error`
    holds a sentence for the page.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.cancel = threading.Event()
        self.ended = threading.Event()
        self.settings: Settings | None = None
        self.total = 0
        self.steps: list[PageStep] = []
        self.result: PageResult | None = None
        self.stopped = False
        self.error = ""

    def start(self, model: ModelThread) -> None:
        """Queue it on the model's thread."""
        model.submit(self._run)

    def _run(self, pipeline: PagePipeline) -> None:
        try:
            self._stream(pipeline)
        except Cancelled:
            self.stopped = True
        except UserError as error:
            self.error = str(error)
        except BaseException as error:  # a plugin may raise anything, and someone waits for the end
            log.exception("the run failed")
            self.error = f"the run failed at step {len(self.steps) + 1}: {type(error).__name__}: {error}"
        finally:
            self.ended.set()

    def _stream(self, pipeline: PagePipeline) -> None:
        run = pipeline.stream(self.request, cancel=self.cancel)
        try:
            self.settings, self.total = run.settings, run.total
            for step in run:
                self.steps.append(step)
            self.result = run.result()
        finally:
            run.close()


class KeptRun:
    """A run that has ended, with every step, for the player. `names` are the file names of its pictures."""

    def __init__(self, live: LiveRun, names: Sequence[str], pngs: Sequence[bytes]) -> None:
        assert live.settings is not None
        self.id = secrets.token_urlsafe(9)
        self.settings = live.settings
        self.steps: Sequence[PageStep] = tuple(live.steps)
        self.stopped = live.result is None
        self.names = tuple(names)
        self.pngs = tuple(pngs)

    @property
    def nbytes(self) -> int:
        """The memory that the steps and pictures take, roughly."""
        tensors = ("x", "denoised", "conditional", "unconditional")
        steps = sum(_nbytes(getattr(step, name, None)) for step in self.steps for name in tensors)
        return steps + sum(len(png) for png in self.pngs)


class Session:
    """The runs of one browser tab, newest last; the oldest are let go beyond `MAX_RUNS` or `MAX_BYTES`."""

    def __init__(self, max_runs: int = MAX_RUNS, max_bytes: int = MAX_BYTES) -> None:
        self._max_runs, self._max_bytes = max_runs, max_bytes
        self._runs: OrderedDict[str, KeptRun] = OrderedDict()
        self.waiting: LiveRun | None = None
        self.live: LiveRun | None = None
        self.last_seed: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A session of its own for each tab: what Gradio asks of a state's initial value."""
        return Session(self._max_runs, self._max_bytes)

    def ask(self, request: Request) -> LiveRun:
        """Put a run in line; `take` begins it."""
        self.waiting = LiveRun(request)
        return self.waiting

    def take(self) -> LiveRun | None:
        """The run that waits in line, now the live one; None if there is none."""
        run, self.waiting = self.waiting, None
        if run is not None:
            self.live = run
        return run

    def stop(self) -> None:
        """Stop what runs or waits: within one model evaluation."""
        for run in (self.live, self.waiting):
            if run is not None:
                run.cancel.set()

    def keep(self, run: KeptRun) -> None:
        """Keep a finished run; the newest one always stays."""
        self._runs[run.id] = run
        self.last_seed = run.settings.seed
        while len(self._runs) > 1 and self._too_much():
            self._runs.popitem(last=False)

    def run(self, run_id: object) -> KeptRun:
        """A run of this session. Raises UserError if it is gone."""
        kept = self._runs.get(str(run_id))
        if kept is None:
            raise UserError("this run is no longer in memory; generate it again from its seed")
        return kept

    def close(self) -> None:
        """Let everything go: the tab was closed."""
        self.stop()
        self._runs.clear()

    def _too_much(self) -> bool:
        size = sum(run.nbytes for run in self._runs.values())
        return len(self._runs) > self._max_runs or size > self._max_bytes


def _nbytes(tensor: object) -> int:
    return int(getattr(tensor, "nbytes", 0))
