"""The base classes of the Learn tab's views: controls, figure, text, code and files."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.figures.plots import Paper
from core.learn.code import lines
from core.learn.lessons import LESSONS, Lesson
from core.learn.recorder import Watch
from ui.page.widgets import text
from ui.page.widgets.fields import LATEST, QUICK
from ui.page.widgets.learn import code_html, shown_html
from ui.web.served_files import Handing

if TYPE_CHECKING:
    from gradio.components import Component

    from core.learn.code import Lines
    from core.learn.recorder import Watch
    from core.learn.result import ViewResult
    from core.sampling.registry import Registry
    from ui.service.job_queue import Job, Jobs

# The first value of each event: whether the window is narrow, as on a phone.
NARROW = "(narrow, ...rest) => [window.innerWidth < 700, ...rest]"
MOST_KEPT = 24  # results of views with a model, stored for the save buttons
LOOK_SECONDS = 0.3


@dataclass
class Shelf:
    """What the views share. `narrow` is the component that says whether the window is narrow."""

    jobs: Jobs
    registry: Registry
    handing: Handing = field(default_factory=Handing)
    drawing: threading.Lock = field(default_factory=threading.Lock)  # matplotlib draws one figure at a time
    narrow: Component | None = None


class View:
    """One lesson: `build` its part of the tab, then `connect` it. Subclasses have controls and `show`."""

    name: str

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.lesson: Lesson = LESSONS[self.name]

    def build(self) -> None:
        """The controls, the figure and the text."""
        name = self.name
        with gr.Row(elem_classes="lc-view", elem_id=f"learn-{name}", equal_height=False):
            with gr.Column(elem_classes="lc-view-asked", min_width=280):
                self.asked: list[Component] = self.controls()
                self.build_actions()
                self.notice = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-notice")
                with gr.Row(elem_classes="lc-view-files"):
                    self.save = {
                        kind: gr.Button(f"Save {kind.upper()}", size="sm", elem_id=f"learn-{name}-{kind}")
                        for kind in self.kinds
                    }
                    self.file = gr.DownloadButton(
                        "Download", visible=False, size="sm", elem_id=f"learn-{name}-file"
                    )
            with gr.Column(elem_classes="lc-view-figure", min_width=280):
                self.figure = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-figure")
            with gr.Column(elem_classes="lc-view-text", min_width=280):
                gr.Markdown(
                    f"### {self.lesson.title}\n\n{self.lesson.text}\n\nSource: {self.lesson.source}",
                    latex_delimiters=[
                        {"left": "$$", "right": "$$", "display": True},
                        {"left": "$", "right": "$", "display": False},
                    ],
                    elem_classes="lc-lesson",
                )
                self.code = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-code")

    kinds: Sequence[str] = ("png", "gif")

    def controls(self) -> list[Component]:
        """Build the controls."""
        raise NotImplementedError

    def build_actions(self) -> None:
        """Buttons, for views that do not draw by themselves."""

    def show(self, *values: Any) -> ViewResult:
        """The result for the controls' values. Raises UserError."""
        raise NotImplementedError

    def _narrow(self) -> Component:
        assert self.shelf.narrow is not None
        return self.shelf.narrow

    def connect(self, owner: Component, opened: Sequence[Callable[..., Any]]) -> None:
        """Draw when the view is opened and when a control changes: one event, so that the newest result wins.

        owner: holds the owner token.
        """
        changes = [control.change for control in self.asked]  # pyrefly: ignore[missing-attribute]
        inputs, outputs = [self._narrow(), *self.asked], [self.figure, self.code, self.notice]
        gr.on([*opened, *changes], self.on_draw, inputs, outputs, js=NARROW, **LATEST)
        self.connect_files(inputs)

    def connect_files(self, inputs: Sequence[Component]) -> None:
        """The buttons that save the figure."""
        for kind, button in self.save.items():
            button.click(self._saver(kind), list(inputs), [self.file, self.notice], js=NARROW, **QUICK)

    def on_draw(self, narrow: bool, *values: Any) -> tuple[Any, Any, str]:
        """(figure, code, error)"""
        try:
            return *self.drawn(self.show(*values), narrow), ""
        except UserError as error:
            return gr.skip(), gr.skip(), text.error(str(error))

    def drawn(self, shown: ViewResult, narrow: bool) -> tuple[str, str]:
        """(figure, code) as HTML."""
        with self.shelf.drawing:
            return shown_html(shown, narrow), code_html(self.lines(shown))

    def lesson_code(self) -> str:
        """The lesson's code, as HTML."""
        return code_html(lines(target, words) for target, words in self.lesson.code)

    def lines(self, shown: ViewResult) -> list[Lines]:
        """The code of the lesson and of the result."""
        return [lines(target, words) for target, words in (*self.lesson.code, *shown.code)]

    def _saver(self, kind: str) -> Callable[..., tuple[Any, str]]:
        def save(narrow: bool, *values: Any) -> tuple[Any, str]:
            return self.saved(kind, lambda: self.show(*values))

        return save

    def saved(self, kind: str, make: Callable[[], ViewResult]) -> tuple[Any, str]:
        """(download button, error)"""
        name = f"{self.name}.{kind}"
        try:
            shown = make()
            with self.shelf.drawing:
                data = shown.png(Paper()) if kind == "png" else shown.gif(Paper())
            file = self.shelf.handing.out(data, name)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        label = f"Download {name}, {len(data) / 1e6:.1f} MB"
        return gr.DownloadButton(label, value=file["path"], visible=True), ""


class ModelView(View):
    """A view that uses the model: it has a button, is queued, and can be stopped."""

    action = "Show"

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self._kept: OrderedDict[str, ViewResult] = OrderedDict()  # by owner
        self._running: dict[str, str] = {}

    def task(self, *values: Any) -> Callable[[Any, Watch], ViewResult]:
        """A function of (pipeline, watch) for the queue. Raises UserError for bad values at once."""
        raise NotImplementedError

    def build_actions(self) -> None:
        """The buttons to start and stop."""
        with gr.Row(elem_classes="lc-view-actions"):
            self.start = gr.Button(
                self.action, variant="primary", scale=3, elem_id=f"learn-{self.name}-start"
            )
            self.stop = gr.Button(
                "Stop",
                variant="stop",
                interactive=False,
                scale=1,
                min_width=72,
                elem_id=f"learn-{self.name}-stop",
            )

    def connect(self, owner: Component, opened: Sequence[Callable[..., Any]]) -> None:
        """Run on the button; the code is shown as soon as the view is opened."""
        gr.on(list(opened), self.lesson_code, None, self.code, **LATEST)
        inputs = [self._narrow(), owner, *self.asked]
        outputs = [self.figure, self.code, self.notice, self.start, self.stop]
        self.start.click(self.on_start, inputs, outputs, js=NARROW, **QUICK)
        self.stop.click(self.on_stop, owner, None, **QUICK)
        for kind, button in self.save.items():
            button.click(self._keeper(kind), owner, [self.file, self.notice], **QUICK)

    async def on_start(self, narrow: bool, owner: str, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
        """(figure, code, progress or error, start, stop)"""
        same = (gr.skip(), gr.skip())
        try:
            job = self._submitted(owner, self.task(*values))
        except UserError as error:
            yield *same, text.error(str(error)), gr.skip(), gr.skip()
            return
        yield *same, text.plain("Queued."), gr.Button(interactive=False), gr.Button(interactive=True)
        idle = gr.Button(interactive=True), gr.Button(interactive=False)
        try:
            async for words in _progress(job):
                yield *same, text.plain(words), gr.skip(), gr.skip()
            yield *await asyncio.to_thread(self._ended, job, owner, narrow), *idle
        except UserError as error:
            yield *same, text.error(str(error)), *idle
        finally:
            job.cancel.set()  # the page may have been closed

    def on_stop(self, owner: str) -> None:
        """Stop it; `on_start` shows its end."""
        job_id = self._running.get(owner)
        if job_id is not None:
            self.shelf.jobs.cancel(owner, job_id)

    def _submitted(self, owner: str, task: Callable[[Any, Watch], ViewResult]) -> Job:
        def do(pipeline: Any, job: Job) -> ViewResult:
            def told(done: int, due: int) -> None:
                job.evals, job.evals_due = done, due

            return task(pipeline, Watch(job.cancel, told))

        job = self.shelf.jobs.submit_task(owner, self.lesson.title.partition(":")[0], do)
        self._running[owner] = job.id
        return job

    def _ended(self, job: Job, owner: str, narrow: bool) -> tuple[str, str, str]:
        """(figure, code, '') of the result. Raises UserError if the job failed."""
        if job.state == "stopped":
            raise UserError("the run was stopped before its end; nothing was drawn")
        if job.state != "done":
            raise UserError(job.error or "the run failed")
        shown: ViewResult = job.value
        self._kept[owner] = shown
        self._kept.move_to_end(owner)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return *self.drawn(shown, narrow), ""

    def _keeper(self, kind: str) -> Callable[[str], tuple[Any, str]]:
        def save(owner: str) -> tuple[Any, str]:
            shown = self._kept.get(owner)
            if shown is None:
                return gr.skip(), text.error(f"there is nothing to save yet: press {self.action} first")
            return self.saved(kind, lambda: shown)

        return save


async def _progress(job: Job) -> AsyncIterator[str]:
    """The progress as text, until the job ends."""
    said = ""
    while not job.ended.is_set():
        await asyncio.sleep(LOOK_SECONDS)
        words = "Queued."
        if job.state == "running":
            words = f"Evaluation {job.evals} of about {job.evals_due}." if job.evals_due else "Starting..."
        if words != said and not job.ended.is_set():
            said = words
            yield words


def whole(what: str, value: Any) -> int:
    """A whole number from a control. Raises UserError."""
    return int(number(what, value))


def number(what: str, value: Any) -> float:
    """A number from a control. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise UserError(f"{what}: enter a number")
    return float(value)
