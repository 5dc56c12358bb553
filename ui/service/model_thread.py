"""The model behind the page: what the page needs of a pipeline, and the one thread that loads and runs it.

Nothing here imports torch, so that the page starts before the model is loaded: `ModelThread` loads it in the
background.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import UserError
from core.memory import free_memory, release_memory, trim_memory
from core.weights.find import find_model

if TYPE_CHECKING:
    from PIL.Image import Image

    from core.request.model_defaults import Defaults
    from core.request.request import Request
    from core.sampling.schedule import NoiseSchedule

log = logging.getLogger(__name__)

Work = Callable[[], None]


class Tokens(Protocol):
    """Token count of a prompt: tokens used, tokens per chunk, chunks, and words unknown to the model."""

    @property
    def used(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def unknown(self) -> Sequence[str]: ...
    @property
    def nearest(self) -> Mapping[str, Sequence[str]]: ...


class PagePipeline(Protocol):
    """A loaded model, as far as the page uses it: `core.inference.pipeline.Pipeline`, or the tests' small
    fake.
    """

    @property
    def name(self) -> str: ...
    @property
    def defaults(self) -> Defaults: ...
    @property
    def examples(self) -> Sequence[str]: ...
    @property
    def subjects(self) -> Sequence[str]: ...
    def subject_sheet(self) -> bytes: ...
    @property
    def noise_schedule(self) -> NoiseSchedule: ...
    def tokens(self, prompt: str) -> Any: ...
    def stream(
        self, request: Request, *, image: Any = None, mask: Any = None, cancel: threading.Event
    ) -> Any: ...
    def preview(self, latents: Any) -> Sequence[Image]: ...
    def decode(self, latents: Any) -> Sequence[Image]: ...


class ModelThread:
    """The model's thread: loads the model in the background, then runs submitted work, one by one.

    name: the name that the model was loaded by, empty without one. switching: progress of a switch, as text.
    error: why there is no model.

    `load` makes a pipeline of a model's name, and `name` is the first one. `fits` says whether a model fits
    into memory next to the loaded one; if not, `switch` unloads that one first.
    """

    def __init__(
        self,
        load: Callable[[str], PagePipeline],
        name: str = "tiny",
        fits: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.load, self._first, self._fits = load, name, fits
        self._queue: deque[Work] = deque()
        self._current: Work | None = None
        self._changed = threading.Condition()
        self._loaded = threading.Event()
        self._pipeline: PagePipeline | None = None
        self.name = ""
        self.error = ""
        self.switching: str | None = None
        self._thread = self._new_thread(self._load_and_work)

    def start(self) -> None:
        """Start loading, if it has not started."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model can be used now."""
        return self._pipeline is not None

    @property
    def pipeline(self) -> PagePipeline:
        """The loaded model; its `name` is its own, `self.name` the name it was loaded by.

        Raises UserError while there is none.
        """
        pipeline = self._pipeline
        if pipeline is None:
            raise UserError(self.error or "the model is still loading; try again in a moment")
        return pipeline

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the first load has succeeded or failed; False after `seconds`."""
        return self._loaded.wait(seconds)

    def submit(self, work: Work) -> None:
        """Run `work()` on the model's thread, after earlier work. It must not raise."""
        with self._changed:
            self._queue.append(work)
            self._changed.notify()

    def withdraw(self, work: Work) -> bool:
        """Remove submitted work from the queue; False if it has started or ended."""
        with self._changed:
            if work not in self._queue:
                return False
            self._queue.remove(work)
            return True

    def switch(self, name: str) -> PagePipeline:
        """Load another model and use it from now on; only on the model's own thread. Does nothing if it is
        loaded already.

        The earlier model is unloaded once the new one is loaded. If memory has no room for both, it is
        unloaded first, and loaded again if the new one fails. Raises UserError; the earlier one then stays.
        """
        if name == self.name:
            return self.pipeline
        self.switching = f"loading {name}"
        try:
            if self._pipeline is None or self._fits(name):
                self._use(name, self.load(name))
            else:
                self._switch_in_turn(name)
        finally:
            self.switching = None
        return self.pipeline

    def _switch_in_turn(self, name: str) -> None:
        earlier = self.name
        self._pipeline, self.error = None, f"{name} is loading; try again in a moment"
        release_memory()
        try:
            self._use(name, self.load(name))
        except BaseException:
            self.switching = f"loading {earlier} again"
            self._load_first(earlier)
            raise

    def _use(self, name: str, pipeline: PagePipeline) -> None:
        give_back = trim_memory if self._pipeline is None else release_memory
        self._pipeline, self.name, self.error = pipeline, name, ""
        give_back()

    def _load_first(self, name: str) -> None:
        """Load a model when there is none; a failure becomes `error`."""
        self.name = ""
        try:
            self._use(name, self.load(name))
        except Exception as error:
            self.error = sentence_of(error, f"the model {name} could not be loaded")

    def leave_behind(self, work: Work) -> bool:
        """Abandon a thread that does not return from `work`: a new one continues with the queue.

        False if `work` is not running. A thread cannot be ended from outside: the abandoned one ends when
        `work` returns.
        """
        with self._changed:
            if self._current is not work:
                return False
            self._current = None
            self._thread = self._new_thread(self._work)
            self._thread.start()
            return True

    def where(self, work: Work) -> FrameType | None:
        """The current frame of the model's thread, if it is running `work`."""
        with self._changed:
            if self._current is not work:
                return None
            return sys._current_frames().get(self._thread.ident or 0)

    def _new_thread(self, target: Work) -> threading.Thread:
        return threading.Thread(target=target, name="model", daemon=True)

    def _load_and_work(self) -> None:
        self._load_first(self._first)
        self._loaded.set()
        self._work()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                self._current = work = self._queue.popleft()
            try:
                work()
            except BaseException:  # whatever was raised, the thread must survive for the next work
                log.exception("work on the model failed")
            with self._changed:
                if self._current is not work:  # this thread was abandoned
                    return
                self._current = None
            del work  # frees what it refers to while the queue is empty


def fits_beside(name: str) -> bool:
    """Whether a model fits into free memory, by the size of its files. Raises UserError.

    On an accelerator the networks are as large as their files, mostly float16; elsewhere they are float32.
    """
    import torch

    from core.weights.model_files import open_model

    size = sum(path.stat().st_size for path in open_model(find_model(name)).hashed)
    if torch.cuda.is_available():
        return size < torch.cuda.mem_get_info()[0]
    free = free_memory()
    return free is None or 2 * size < free


def sentence_of(error: BaseException, what: str) -> str:
    """One sentence for the page: a UserError's message, else `what` and the error, which is also logged."""
    if isinstance(error, UserError):
        return str(error)
    log.error(what, exc_info=error)
    return f"{what}: {type(error).__name__}: {error}"
