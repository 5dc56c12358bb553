"""What every view of the Learn tab is made of: controls, the place of what is drawn, text, code, files."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.learn.lessons import LESSONS, Lesson
from ui.page.widgets import text
from ui.page.widgets.fields import LATEST, QUICK
from ui.web.served_files import Handing

if TYPE_CHECKING:
    from gradio.components import Component

    from core.learn.code import Lines
    from core.learn.recorder import Watch
    from core.learn.result import ViewResult
    from core.sampling.registry import Registry
    from ui.service.job_queue import Job, Jobs

# What each event sends first: whether the window is that of a telephone.
NARROW = "(narrow, ...rest) => [window.innerWidth < 700, ...rest]"
MOST_KEPT = 24  # results of views that took the model, to be saved
LOOK_SECONDS = 0.3


@dataclass
class Shelf:
    """What the views share. `narrow` is the component that says whether the window is a telephone's."""

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
        """The controls, the place of what is drawn, and the text."""
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
        """Make them."""
        raise NotImplementedError

    def build_actions(self) -> None:
        """What starts it, where it does not draw by itself."""

    def show(self, *values: Any) -> ViewResult:
        """What the controls' values ask for. Raises UserError."""
        raise NotImplementedError

    def _narrow(self) -> Component:
        assert self.shelf.narrow is not None
        return self.shelf.narrow

    def connect(self, owner: Component, opened: Sequence[Callable[..., Any]]) -> None:
        """Draw when it is opened and when a control changes: one event, so that the newest answer stays.

        owner: holds whose page it is.
        """
        changes = [control.change for control in self.asked]  # pyrefly: ignore[missing-attribute]
        inputs, outputs = [self._narrow(), *self.asked], [self.figure, self.code, self.notice]
        gr.on([*opened, *changes], self.on_draw, inputs, outputs, js=NARROW, **LATEST)
        self.connect_files(inputs)

    def connect_files(self, inputs: Sequence[Component]) -> None:
        """The buttons that save what is shown."""
        for kind, button in self.save.items():
            button.click(self._saver(kind), list(inputs), [self.file, self.notice], js=NARROW, **QUICK)

    def on_draw(self, narrow: bool, *values: Any) -> tuple[Any, Any, str]:
        """(what is drawn, the code, what is wrong)"""
        try:
            return *self.drawn(self.show(*values), narrow), ""
        except UserError as error:
            return gr.skip(), gr.skip(), text.error(str(error))

    def drawn(self, shown: ViewResult, narrow: bool) -> tuple[str, str]:
        """As HTML, with the code that does it."""
        from ui.page.widgets.learn import code_html, shown_html

        with self.shelf.drawing:
            return shown_html(shown, narrow), code_html(self.lines(shown))

    def lesson_code(self) -> str:
        """The lines of code of the lesson, as HTML."""
        from core.learn.code import lines
        from ui.page.widgets.learn import code_html

        return code_html(lines(target, words) for target, words in self.lesson.code)

    def lines(self, shown: ViewResult) -> list[Lines]:
        """The lines of code of the lesson, and those of what is shown."""
        from core.learn.code import lines

        return [lines(target, words) for target, words in (*self.lesson.code, *shown.code)]

    def _saver(self, kind: str) -> Callable[..., tuple[Any, str]]:
        def save(narrow: bool, *values: Any) -> tuple[Any, str]:
            return self.saved(kind, lambda: self.show(*values))

        return save

    def saved(self, kind: str, make: Callable[[], ViewResult]) -> tuple[Any, str]:
        """The file as a button to download it, or what is wrong."""
        from core.figures.plots import Paper

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
    """A view that takes the model: it has a button, waits in the queue, and can be stopped."""

    action = "Show"

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self._kept: OrderedDict[str, ViewResult] = OrderedDict()  # by whose page it is
        self._running: dict[str, str] = {}

    def task(self, *values: Any) -> Callable[[Any, Watch], ViewResult]:
        """What is to be done with (pipeline, watch). Raises UserError for bad values, before it waits."""
        raise NotImplementedError

    def build_actions(self) -> None:
        """Start and stop."""
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
        """Run when asked to; the code is there as soon as it is opened."""
        gr.on(list(opened), self.lesson_code, None, self.code, **LATEST)
        inputs = [self._narrow(), owner, *self.asked]
        outputs = [self.figure, self.code, self.notice, self.start, self.stop]
        self.start.click(self.on_start, inputs, outputs, js=NARROW, **QUICK)
        self.stop.click(self.on_stop, owner, None, **QUICK)
        for kind, button in self.save.items():
            button.click(self._keeper(kind), owner, [self.file, self.notice], **QUICK)

    async def on_start(self, narrow: bool, owner: str, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
        """(what is drawn, the code, how far it is or what is wrong, start, stop)"""
        same = (gr.skip(), gr.skip())
        try:
            job = self._submitted(owner, self.task(*values))
        except UserError as error:
            yield *same, text.error(str(error)), gr.skip(), gr.skip()
            return
        yield *same, text.plain("Waits in line."), gr.Button(interactive=False), gr.Button(interactive=True)
        idle = gr.Button(interactive=True), gr.Button(interactive=False)
        try:
            async for words in _progress(job):
                yield *same, text.plain(words), gr.skip(), gr.skip()
            yield *await asyncio.to_thread(self._ended, job, owner, narrow), *idle
        except UserError as error:
            yield *same, text.error(str(error)), *idle
        finally:
            job.cancel.set()  # whoever asked may have left

    def on_stop(self, owner: str) -> None:
        """Stop it; whoever follows it sees its end."""
        job_id = self._running.get(owner)
        if job_id is not None:
            self.shelf.jobs.cancel(owner, job_id)

    def _submitted(self, owner: str, task: Callable[[Any, Watch], ViewResult]) -> Job:
        from core.learn.recorder import Watch

        def do(pipeline: Any, job: Job) -> ViewResult:
            def told(done: int, due: int) -> None:
                job.evals, job.evals_due = done, due

            return task(pipeline, Watch(job.cancel, told))

        job = self.shelf.jobs.submit_task(owner, self.lesson.title.partition(":")[0], do)
        self._running[owner] = job.id
        return job

    def _ended(self, job: Job, owner: str, narrow: bool) -> tuple[str, str, str]:
        """What it made, drawn. Raises UserError for what went wrong."""
        if job.state == "stopped":
            raise UserError("it was stopped before its end; nothing was drawn")
        if job.state != "done":
            raise UserError(job.error or "it did not end well")
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
                return gr.skip(), text.error(f"nothing to save yet; press {self.action} first")
            return self.saved(kind, lambda: shown)

        return save


async def _progress(job: Job) -> AsyncIterator[str]:
    """How far it is, in words, until it ends."""
    said = ""
    while not job.ended.is_set():
        await asyncio.sleep(LOOK_SECONDS)
        words = "Waits in line."
        if job.state == "running":
            words = f"Evaluation {job.evals} of about {job.evals_due}." if job.evals_due else "Begins."
        if words != said and not job.ended.is_set():
            said = words
            yield words


def whole(what: str, value: Any) -> int:
    """A whole number out of a control. Raises UserError."""
    return int(number(what, value))


def number(what: str, value: Any) -> float:
    """A number out of a control. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise UserError(f"{what}: enter a number")
    return float(value)
