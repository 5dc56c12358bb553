"""The Train view of the Learn tab: train a small model from the page, watch it, stop it and use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from core.errors import UserError
from core.learn.training import training
from ui.page.tabs.learn.view import NARROW, Shelf, View, number
from ui.page.widgets import text
from ui.page.widgets.fields import QUICK
from ui.page.widgets.learn import shown_html
from ui.service.trainings import DENSITIES, MOST_STEPS, RECIPES, Trainer, Training, usual_steps

if TYPE_CHECKING:
    from gradio.components import Component

    from core.learn.result import ViewResult

LOOK_SECONDS, DRAW_SECONDS = 1.0, 2.0
DRAWN_SHARE = 6  # wait this many times the drawing time before the next one: the training needs the CPU
_ONLY_THE_OWNER = "only the person at the machine that serves this page may train a model; you can watch"
_EMPTY = (
    '<div class="lc-shown"><div class="lc-learn-words"><p>Choose a recipe and press Train. The loss curve '
    "appears here, with samples of the raw and the averaged (EMA) weights from the same noise, side by side."
    "</p></div></div>"
)
Told = tuple[Any, ...]


class Train(View):
    """Trains from a recipe. is_guest: whether a visitor may only watch."""

    name = "train"
    kinds = ("png",)

    def __init__(self, shelf: Shelf, trainer: Trainer, is_guest: Callable[[gr.Request], bool]) -> None:
        super().__init__(shelf)
        self.trainer, self.is_guest = trainer, is_guest
        self.followed: list[Any] = []  # events that end when a training ends

    def controls(self) -> list[Component]:
        recipe = gr.Dropdown(
            [(title, name) for name, title in RECIPES.items()],
            value="points",
            label="Recipe",
            elem_id="train-recipe",
        )
        density = gr.Radio(
            [(name.capitalize(), name) for name in DENSITIES],
            value="moons",
            label="Data",
            elem_id="train-density",
        )
        # Without bounds: a value out of range gets our own message, not a pop-up.
        steps = gr.Number(usual_steps("points"), label="Steps", precision=0, elem_id="train-steps")
        recipe.change(
            lambda chosen: (gr.Number(value=usual_steps(chosen)), gr.Radio(visible=chosen == "points")),
            recipe,
            [steps, density],
            **QUICK,
        )
        return [recipe, steps, density]

    def build_actions(self) -> None:
        """Start, stop, resume, and use the model."""
        with gr.Row(elem_classes="lc-view-actions"):
            self.start = gr.Button("Train", variant="primary", scale=3, elem_id="learn-train-start")
            self.stop = gr.Button(
                "Stop", variant="stop", interactive=False, scale=1, min_width=72, elem_id="learn-train-stop"
            )
        self.unfinished = gr.Dropdown(
            [],
            label="Unfinished run",
            info="Resume continues it from its last checkpoint.",
            visible=False,
            elem_id="train-unfinished",
        )
        with gr.Row(elem_classes="lc-view-actions"):
            self.go_on = gr.Button("Resume", visible=False, elem_id="learn-train-go-on")
            self.use = gr.Button("Use this model", visible=False, elem_id="learn-train-use")

    def connect(self, owner: Component, opened: Sequence[Callable[..., Any]]) -> None:
        """Follow the training as soon as the view is opened, no matter who started it."""
        buttons = [self.start, self.stop, self.go_on, self.use, self.unfinished]
        outputs = [self.figure, self.code, self.notice, *buttons]
        narrow = self._narrow()
        wired: dict[str, Any] = {"outputs": outputs, "js": NARROW, **QUICK}
        self.followed = [
            gr.on(list(opened), self.on_open, [narrow], **wired),
            self.start.click(self.on_start, [narrow, *self.asked], **wired),
            self.go_on.click(self.on_go_on, [narrow, self.unfinished], **wired),
        ]
        self.stop.click(self.on_stop, None, outputs, **QUICK)
        self.connect_files([narrow, *self.asked])

    # Events: (figure, code, notice, train, stop, resume, use, unfinished runs).

    async def on_open(self, narrow: bool, request: gr.Request) -> AsyncIterator[Told]:
        """The state now, then updates."""
        guest = self.is_guest(request)
        code = await asyncio.to_thread(self.lesson_code)
        yield await self._drawn(narrow), code, *self._said(guest)
        async for told in self._followed(narrow, guest):
            yield told

    async def on_start(
        self, narrow: bool, request: gr.Request, recipe: str, steps: Any, density: str
    ) -> AsyncIterator[Told]:
        """Start, and follow the training to its end; errors are shown."""

        def start() -> None:
            self.trainer.start(recipe, _whole(steps), density)

        async for told in self._done(start, narrow, request):
            yield told

    async def on_go_on(
        self, narrow: bool, request: gr.Request, name: str | None = None
    ) -> AsyncIterator[Told]:
        """Resume from a run's checkpoint, and follow it to its end."""
        async for told in self._done(lambda: self.trainer.go_on(name or ""), narrow, request, name or ""):
            yield told

    def on_stop(self, request: gr.Request) -> Told:
        """Stop; the pages that follow it show the end."""
        guest = self.is_guest(request)
        if not guest:
            self.trainer.stop()
        return gr.skip(), gr.skip(), *self._said(guest)

    async def _done(
        self, do: Callable[[], Any], narrow: bool, request: gr.Request, chosen: str = ""
    ) -> AsyncIterator[Told]:
        """Start or resume a training, which may import torch first, and follow it."""
        nothing, buttons = (gr.skip(), gr.skip()), [gr.skip()] * 5
        if self.is_guest(request):
            yield *nothing, text.error(_ONLY_THE_OWNER), *buttons
            return
        yield *nothing, text.plain("Starting..."), gr.Button(interactive=False), *buttons[1:]
        try:
            await asyncio.to_thread(do)
        except UserError as error:
            _, *as_it_is = self._said(False, chosen)
            yield *nothing, text.error(str(error)), *as_it_is
            return
        async for told in self._followed(narrow, guest=False):
            yield told
        yield await self._drawn(narrow), gr.skip(), *self._said(guest=False)

    async def _followed(self, narrow: bool, guest: bool) -> AsyncIterator[Told]:
        """Updates while a training runs, and at its end; nothing if none runs.

        Only changes are sent: a browser on a busy machine would fall behind.
        """
        seen, at, pause, said = -1, 0.0, 0.0, ""
        while (training := self.trainer.current) is not None and training.going:
            notice, *buttons = self._said(guest)
            figure: Any = gr.skip()
            began = time.monotonic()
            if training.changes != seen and began - at > pause:
                seen, figure = training.changes, await self._drawn(narrow)
                at = time.monotonic()
                pause = max(DRAW_SECONDS, DRAWN_SHARE * (at - began))
            if notice != said or figure != gr.skip():
                said = notice
                yield figure, gr.skip(), notice, *buttons
            await asyncio.sleep(LOOK_SECONDS)
        if at:
            yield await self._drawn(narrow), gr.skip(), *self._said(guest)

    def trained(self) -> str:
        """The name to load the finished model by. Raises UserError if there is none."""
        training = self.trainer.current
        if training is None or not training.model:
            raise UserError("there is no finished model yet: train one to its end")
        return training.model

    # Views.

    def show(self, *values: Any) -> ViewResult:
        """The curves and the newest samples of the training. Raises UserError if there are none yet."""
        current = self.trainer.current
        if current is None or not current.stages:
            raise UserError("there is nothing to show yet: press Train first")
        return training(list(current.stages.values()), _samples(current))

    async def _drawn(self, narrow: bool) -> str:
        return await asyncio.to_thread(self._figure, narrow)

    def _figure(self, narrow: bool) -> str:

        try:
            shown = self.show()
        except UserError:
            return _EMPTY
        with self.shelf.drawing:
            return shown_html(shown, narrow)

    def _said(self, guest: bool, chosen: str = "") -> Told:
        """(notice, train, stop, resume, use, unfinished runs) now. chosen: the run to keep selected, if it
        still exists.
        """
        training = self.trainer.current
        state = training.state if training is not None else ""
        going = state in ("running", "stopping")
        left = [] if going or guest else self.trainer.unfinished()
        choice = chosen if chosen in left else next(iter(left), None)
        return (
            _sentence(training, guest),
            gr.Button(interactive=not going and not guest),
            gr.Button(interactive=state == "running" and not guest),
            gr.Button(visible=bool(left)),
            gr.Button(visible=state == "done"),
            gr.Dropdown(left, value=choice, visible=bool(left)),
        )


def _sentence(training: Training | None, guest: bool) -> str:
    """The status line. Errors may name paths of this machine, so guests do not see them."""
    if training is None:
        return text.plain(text.capital(f"{_ONLY_THE_OWNER}.")) if guest else ""
    words = {
        "running": training.words,
        "stopping": f"{training.words} Stopping after the next step...",
        "stopped": f"Stopped; a checkpoint is saved. {training.words} Press Resume to continue.",
        "done": f"Done: the model is named {training.name} and is in the list of models above.",
    }
    if training.state == "failed":
        return text.error("the training failed" if guest else training.error)
    if training.trouble:
        return text.plain("Done.") if guest else text.error(training.trouble)
    return text.plain(words[training.state])


def _samples(training: Training) -> tuple[int, Image.Image, Image.Image] | None:
    """(step, raw, averaged), if there are samples and the file still exists."""
    from core.training.samples import apart

    if training.samples is None:
        return None
    step, path = training.samples
    try:
        with Image.open(path) as whole:
            return step, *apart(whole.convert("RGB"))
    except OSError:
        return None


def _whole(value: Any) -> int:
    """The steps from the control. Raises UserError."""
    steps = number("steps", value)
    if steps != int(min(max(steps, -1), MOST_STEPS + 1)):
        raise UserError(f"steps {value}: must be a whole number between 1 and {MOST_STEPS}")
    return int(steps)
