"""The model behind the page: what the page needs of a pipeline, and the one thread that loads and runs it.

Nothing here imports torch, so that the page is up before the model is: `ModelThread` loads in the background.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from core.request import Defaults, Request, Settings

log = logging.getLogger(__name__)


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


class PageStep(Protocol):
    """One step of a run; tensors are (B, C, h, w)."""

    @property
    def sigma(self) -> float: ...
    @property
    def evals(self) -> int: ...
    @property
    def conditional(self) -> Any: ...
    @property
    def unconditional(self) -> Any: ...
    def preview(self, image: int = 0, view: Any = "denoised") -> Image: ...
    def decode(self, image: int = 0) -> Image: ...


class PageResult(Protocol):
    """A finished run."""

    @property
    def images(self) -> Sequence[Image]: ...
    @property
    def seconds(self) -> dict[str, float]: ...
    @property
    def evals(self) -> int: ...
    def pngs(self) -> Sequence[bytes]: ...
    def save(self, folder: Path) -> Sequence[Path]: ...


class PageRun(Protocol):
    """A run in progress: an iterator of its steps."""

    @property
    def settings(self) -> Settings: ...
    @property
    def total(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...
    def result(self) -> Any: ...


class PagePipeline(Protocol):
    """A loaded model, as far as the page uses it: `core.pipeline.Pipeline`, or the tests' small fake."""

    @property
    def name(self) -> str: ...
    @property
    def defaults(self) -> Defaults: ...
    @property
    def examples(self) -> Sequence[str]: ...
    def tokens(self, prompt: str) -> Any: ...
    def stream(self, request: Request, *, cancel: threading.Event) -> Any: ...
    def preview(self, latents: Any) -> Sequence[Image]: ...


class ModelThread:
    """Loads the model in a thread of its own, then runs on it what is submitted, one thing at a time."""

    def __init__(self, load: Callable[[], PagePipeline]) -> None:
        self._load = load
        self._jobs: queue.SimpleQueue[Callable[[PagePipeline], None]] = queue.SimpleQueue()
        self._loaded = threading.Event()
        self._pipeline: PagePipeline | None = None
        self.error = ""
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model can be used now."""
        return self._pipeline is not None

    @property
    def pipeline(self) -> PagePipeline:
        """The loaded model. Raises UserError while it is not there."""
        if self._pipeline is None:
            raise UserError(self.error or "the model is still loading; try again in a moment")
        return self._pipeline

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until loading has ended, well or badly; False if it has not within `seconds`."""
        return self._loaded.wait(seconds)

    def submit(self, job: Callable[[PagePipeline], None]) -> None:
        """Run `job(pipeline)` on the model's thread, after what came before it. It must not raise."""
        self._jobs.put(job)

    def _work(self) -> None:
        try:
            self._pipeline = self._load()
        except UserError as error:
            self.error = str(error)
        except Exception as error:
            log.exception("the model could not be loaded")
            self.error = f"the model could not be loaded: {type(error).__name__}: {error}"
        self._loaded.set()
        while self._pipeline is not None:
            try:
                self._jobs.get()(self._pipeline)
            except BaseException:  # whatever a job lets through, the next one must find the thread alive
                log.exception("a job on the model failed")
