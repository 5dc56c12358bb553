"""The model behind the page: what the page needs of a pipeline, and the one thread that loads and runs it.

Nothing here imports torch, so that the page is up before the model is: `ModelThread` loads in the background.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import UserError
from core.memory import release_memory, trim_memory

if TYPE_CHECKING:
    from PIL.Image import Image

    from core.request.model_defaults import Defaults
    from core.request.request import Request
    from core.sampling.schedule import NoiseSchedule

log = logging.getLogger(__name__)

Work = Callable[[], None]


class Tokens(Protocol):
    """How a prompt is read: tokens used and a chunk has, chunks, and words that the model has not learned."""

    @property
    def used(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def unknown(self) -> Sequence[str]: ...


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
    def noise_schedule(self) -> NoiseSchedule: ...
    def tokens(self, prompt: str) -> Any: ...
    def stream(
        self, request: Request, *, image: Any = None, mask: Any = None, cancel: threading.Event
    ) -> Any: ...
    def preview(self, latents: Any) -> Sequence[Image]: ...
    def decode(self, latents: Any) -> Sequence[Image]: ...


class ModelThread:
    """The model's thread: loads the model in the background, then does what is submitted, one by one.

    name: what the loaded model is loaded by, empty while there is none. switching: what a switch is at, in
    words. error: why there is no model.

    `load` makes a pipeline of a model's name, and `name` is the first one's. `fits` says whether a model can
    be in memory beside the one that is there; where it cannot, `switch` lets that one go first.
    """

    def __init__(
        self,
        load: Callable[[str], PagePipeline],
        name: str = "tiny",
        fits: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._load, self._first, self._fits = load, name, fits
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
        """Begin to load, if that has not begun."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model can be used now."""
        return self._pipeline is not None

    @property
    def pipeline(self) -> PagePipeline:
        """The loaded model; its `name` is what it calls itself, `self.name` what it is loaded by.

        Raises UserError while there is none.
        """
        pipeline = self._pipeline
        if pipeline is None:
            raise UserError(self.error or "the model is still loading; try again in a moment")
        return pipeline

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the first load has ended, well or badly; False if it has not within `seconds`."""
        return self._loaded.wait(seconds)

    def submit(self, work: Work) -> None:
        """Run `work()` on the model's thread, after what came before it. It must not raise."""
        with self._changed:
            self._queue.append(work)
            self._changed.notify()

    def withdraw(self, work: Work) -> bool:
        """Take back what was submitted; False if it has begun, or is over."""
        with self._changed:
            if work not in self._queue:
                return False
            self._queue.remove(work)
            return True

    def switch(self, name: str) -> PagePipeline:
        """Load another model and use it from now on; only on the model's own thread. Nothing is done for the
        one that is there already.

        The earlier one is let go when the new one is there. Where memory has no room for both it goes first,
        and is loaded again if the new one cannot be. Raises UserError, and then the earlier one works on.
        """
        if name == self.name:
            return self.pipeline
        self.switching = f"loading {name}"
        try:
            if self._pipeline is None or self._fits(name):
                self._use(name, self._load(name))
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
            self._use(name, self._load(name))
        except BaseException:
            self.switching = f"loading {earlier} again"
            self._load_first(earlier)
            raise

    def _use(self, name: str, pipeline: PagePipeline) -> None:
        give_back = trim_memory if self._pipeline is None else release_memory
        self._pipeline, self.name, self.error = pipeline, name, ""
        give_back()

    def _load_first(self, name: str) -> None:
        """Load a model when there is none; what is wrong is kept as a sentence."""
        self.name = ""
        try:
            self._use(name, self._load(name))
        except Exception as error:
            self.error = sentence_of(error, f"the model {name} could not be loaded")

    def leave_behind(self, work: Work) -> bool:
        """Give up a thread that does not come back from `work`: another one goes on with what waits.

        False if that is not what runs. A thread cannot be ended from outside: it is left to itself, and when
        it comes back at last it ends.
        """
        with self._changed:
            if self._current is not work:
                return False
            self._current = None
            self._thread = self._new_thread(self._work)
            self._thread.start()
            return True

    def where(self, work: Work) -> FrameType | None:
        """Where the model's thread is in the code just now, if `work` is what it does."""
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
            except BaseException:  # whatever it lets through, the next one must find the thread alive
                log.exception("work on the model failed")
            with self._changed:
                if self._current is not work:  # this thread was left behind
                    return
                self._current = None
            del work  # and with it what it holds, while the queue is empty


def fits_beside(name: str) -> bool:
    """Whether there is memory for a model beside what is there, by the size of its files. Raises UserError.

    On an accelerator the networks are as large as their files, mostly of float16; elsewhere they are float32.
    """
    import torch

    from core.memory import free_memory
    from core.weights.find import find_model
    from core.weights.model_files import open_model

    size = sum(path.stat().st_size for path in open_model(find_model(name)).hashed)
    if torch.cuda.is_available():
        return size < torch.cuda.mem_get_info()[0]
    free = free_memory()
    return free is None or 2 * size < free


def sentence_of(error: BaseException, what: str) -> str:
    """One sentence for the page: a UserError's own, else what failed and how; that goes to the log, too."""
    if isinstance(error, UserError):
        return str(error)
    log.error(what, exc_info=error)
    return f"{what}: {type(error).__name__}: {error}"
