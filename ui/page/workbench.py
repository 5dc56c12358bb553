"""The workbench of txt2img, img2img and inpaint: one form, the init image and mask, one player.

The tab only selects which image inputs and which Generate button are visible; prompt and settings stay.
A run is a job in the queue. It belongs to the owner whose token the browser stores, so a reloaded page
finds it again and watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import gradio as gr

from core.errors import UserError
from core.figures.image_bytes import png
from core.request.request import Request
from core.weights.find import model_names
from ui.page.form_request import Asking, repeated, rest_shown
from ui.page.live_view import LIVE_SECONDS, LOOK_SECONDS, Following, Sight, Watcher
from ui.page.tabs.compare import Base
from ui.page.widgets import fields, text
from ui.page.widgets import queue as queue_widget
from ui.page.widgets.examples import cards, shown
from ui.page.widgets.fields import EACH, QUICK
from ui.page.widgets.form import Form
from ui.page.widgets.pictures import InputImages, tab_of
from ui.page.widgets.saved_prompts import KeptWords
from ui.web.served_files import Handing

if TYPE_CHECKING:
    from gradio.components import Component
    from PIL import Image

    from core.request.model_defaults import Defaults
    from core.sampling.registry import Registry
    from ui.page.tabs.recipe import Opening
    from ui.page.viewer import Viewer
    from ui.service.job_queue import Jobs
    from ui.service.styles import Styles

EXAMPLE_PICTURES = Path(__file__).parents[2] / "data" / "examples"
TABS = ("txt2img", "img2img", "inpaint")
# Gradio may lose an update of a control that it is still rendering, such as a form that was not visible yet.
FORM_THERE = """async (owner) => {
  for (let tries = 0; tries < 50 && !document.querySelector("#width input"); tries++)
    await new Promise((resolve) => setTimeout(resolve, 100));
  await new Promise((resolve) => setTimeout(resolve, 100));
  return owner;
}"""
# The owner token: 192 random bits, drawn by the browser before its first request. If the server issued it,
# requests sent before its reply would have no owner.
OWNER = """(owner) => {
  if (/^[\\w-]{20,64}$/.test(owner)) return owner;
  const drawn = crypto.getRandomValues(new Uint8Array(24));
  return Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
}"""


class Workbench:
    """Built inside the caller's layout; `connect` wires it to the page and its tabs."""

    def __init__(
        self,
        jobs: Jobs,
        registry: Registry,
        viewer: Viewer,
        first: Defaults,
        styles: Callable[[str], Styles],
        between: Callable[[], float] = lambda: LIVE_SECONDS,
    ) -> None:
        self.engine, self.jobs, self.registry, self.viewer = jobs.engine, jobs, registry, viewer
        self._handing = Handing()
        self.watcher = Watcher(jobs.engine, jobs, viewer, between)
        self.following, self.rest = gr.State(Following()), gr.State({})
        # Stored in the browser: owner token, form, tab, the last of the three workbench tabs, the newest run.
        self.owner, self.kept_form, self.tab, self.mode, self.last_run = (
            gr.BrowserState(value, storage_key=f"latentcanvas-{name}", secret="latentcanvas")
            for name, value in (("owner", ""), ("form", {}), ("tab", ""), ("mode", TABS[0]), ("run", ""))
        )
        with gr.Row(elem_id="workbench", equal_height=False):
            with gr.Column(elem_id="form", scale=0, min_width=320):
                with gr.Column(elem_id="asked"):
                    self.kept = KeptWords(styles)
                    self.form = Form(jobs.engine, registry, first)
                self._build_actions()
            with gr.Column(elem_id="inputs", scale=0, min_width=280):
                self.pictures = InputImages(jobs.engine, registry)
            with gr.Column(elem_id="result", scale=1, min_width=320):
                self.player = viewer.build()
        self.asking = Asking(self.form, self.pictures, self.kept)

    def _build_actions(self) -> None:
        with gr.Column(elem_id="actions"):
            with gr.Row():
                # Each tab has its own button, which sends its own images: CSS shows one.
                self.generate = {tab: _generate_button(tab) for tab in TABS}
                self.skip = gr.Button("Skip", interactive=False, scale=1, min_width=64, elem_id="skip")
                self.stop = gr.Button(
                    "Stop", variant="stop", interactive=False, scale=1, min_width=64, elem_id="stop"
                )
            self.queue = queue_widget.queue_list()
            self.notice = gr.HTML("", elem_id="notice")
            with gr.Row(visible=False, elem_id="rest") as self.rest_row:
                self.rest_words = gr.HTML("")
                self.forget = fields.small_button("Forget", "forget-rest", scale=0)

    # Wiring.

    def connect(self, page: gr.Blocks, tabs: gr.Tabs, model: gr.Dropdown, status: gr.HTML) -> None:
        """Wire everything; `model` and `status` are in the page's header."""
        self.tabs, self.model, self.status = tabs, model, status
        everything = list(self.asking.fields.values())
        self.form.connect()
        levels = [self.form.method.schedule, self.form.steps, self.form.sigmas]
        self.pictures.connect(levels)
        words = [self.form.prompt, self.form.negative]
        self.kept.connect(self.owner, words, everything, self.asking.named)
        self.kept.preset.input(
            self.on_preset, [self.owner, self.kept.preset], [*everything, self.notice], **QUICK
        )
        self.form.reuse.click(self.on_reuse, [self.owner, self.last_run], self.form.seed, **QUICK)
        self._connect_runs()
        self._connect_queue()
        self._connect_opening(page)
        names = list(self.asking.fields)
        keep = f"(...values) => Object.fromEntries({names!r}.map((name, i) => [name, values[i]]))"
        changes = [control.change for control in everything if hasattr(control, "change")]
        gr.on(changes, None, everything, self.kept_form, js=keep, **QUICK)

    def _connect_runs(self) -> None:
        asked = [self.following, self.owner, self.model, self.rest, *self.asking.fields.values()]
        answers = [self.notice, *self._line()]
        for tab, button in self.generate.items():
            submit = partial(self.on_generate, tab)
            self._then_watch(button.click(submit, [*asked, *self.asking.files(tab)], answers, **EACH))
        self._then_watch(self.player.branch(self.on_branch, asked, answers, **EACH))
        switch = [self.following, self.owner, self.model]
        self._then_watch(self.model.input(self.on_model, switch, answers, **QUICK)).then(
            self.form.on_prompt, self.form.prompt, self.form.tokens, **QUICK
        )
        self.player.start(_prompt_of, None, self.form.prompt, **QUICK).then(
            None, None, None, js="() => window.latentcanvas.generate()"
        )
        self.player.open(self.on_open_run, self.owner, self.run_outputs(), **QUICK)
        sent = [self.tabs, self.notice, *self.pictures.files()]
        self.player.send(self.on_send, self.owner, sent, **QUICK)
        self.forget.click(lambda: rest_shown({}), None, [self.rest, self.rest_row, self.rest_words], **QUICK)

    def _connect_queue(self) -> None:
        line = self._line()
        self.stop.click(self.on_stop, self.owner, line, **QUICK)
        self.skip.click(self.on_skip, self.owner, line, **QUICK)
        self.queue.cancel(self.on_cancel, self.owner, line, **EACH)
        # If a browser's stream closes while an event is in flight, its reply arrives only when another event
        # opens a stream; this timer does. EACH: a lost tick must not block the next one.
        gr.Timer(5).tick(self.told, self.owner, line, **EACH)

    def _connect_opening(self, page: gr.Blocks) -> None:
        everything = [*self.asking.fields.values(), self.notice]
        defaulted = self.form.defaulted()
        opened = page.load(None, self.owner, self.owner, js=OWNER, **QUICK).then(
            self.on_open,
            [self.owner, self.kept_form, self.tab, self.following],
            [self.following, self.tabs, self.kept.preset, *everything],
            **QUICK,
        )
        opened.then(None, None, None, js="() => window.latentcanvas.restored()", **QUICK)
        link = [self.owner, self.last_run, self.following]
        shown = opened.then(self.on_link, link, self.run_outputs(), **QUICK)
        self._then_watch(shown)  # a queued run is found before the model is loaded
        shown = shown.then(self.on_loaded, None, self.notice, **QUICK)
        shown = shown.then(self.on_defaults, [self.following, *defaulted], defaulted, **QUICK)
        # The examples come last: by the time one is clicked, the form has the model's defaults.
        shown = shown.then(self.on_examples, None, [self.player, self.form.chips, self.model], **QUICK)
        shown.then(self.form.on_prompt, self.form.prompt, self.form.tokens, **QUICK)

    def _then_watch(self, event: Any) -> Any:
        seen = [self.player, self.notice, self.last_run, *self._line(), self.form.chips, self.model]
        # EACH: else a browser that does not know yet that its last watcher has ended would not start another.
        return event.then(self.on_watch, [self.following, self.owner], seen, **EACH)

    def _line(self) -> list[Component]:
        """The outputs that show the queue: see `told`."""
        return [self.queue, self.status, self.skip, self.stop]

    def connect_use(self, button: gr.Button, model: Callable[[], str], ended: Sequence[Any]) -> None:
        """Wire a button elsewhere that loads a model through the queue and applies its defaults to the form.

        model: gives the name to load; raises UserError. ended: events after which there may be a new model.
        """

        def submit(following: Following, owner: str) -> tuple[Any, ...]:
            answer = self._do(owner, lambda: following.add(self.jobs.switch_model(owner, model()).id))
            return gr.Tabs(selected=TABS[0]), *answer

        answers = [self.tabs, self.notice, *self._line()]
        taken = self._then_watch(button.click(submit, [self.following, self.owner], answers, **QUICK))
        taken = taken.then(self.on_used, self.owner, self.form.defaulted(), js=FORM_THERE, **QUICK)
        taken.then(self.form.on_prompt, self.form.prompt, self.form.tokens, **QUICK)
        for event in ended:
            event.then(lambda: gr.update(choices=model_names(self.engine.name)), None, self.model, **QUICK)

    async def on_used(self, owner: str) -> list[Any]:
        """The defaults of the model that the owner asked for, once it is loaded."""
        while any(line.mine and line.kind == "model" for line in self.jobs.listing(owner)):
            await asyncio.sleep(LOOK_SECONDS)
        return self.form.as_model()

    # Opening runs and recipes from elsewhere.

    def filled(self) -> list[Any]:
        """The outputs of an event that fills the form, in the order of `Asking.filling`."""
        rest = [self.rest, self.rest_row, self.rest_words]
        return [self.tabs, *self.asking.fields.values(), self.notice, *rest]

    def opened_run(self, owner: str, run_id: str, step: int | None = None, image: int = 0) -> list[Any]:
        """Updates for `run_outputs()`: a saved run in the player and the form. Raises UserError."""
        message = self.viewer.show(owner, run_id, step, image)
        kept = self.jobs.runs.open(owner, run_id)
        request, inputs = Request.from_settings(kept.settings), kept.inputs()
        files: list[Any] = [gr.skip()] * len(self.pictures.files())
        if inputs is not None:
            mask = None if inputs.mask is None else self._handed(inputs.mask, "mask.png")
            files = self.pictures.filled(tab_of(request), self._handed(inputs.image, "picture.png"), mask)
        return [message, *self.asking.filling(request, inputs is not None), *files]

    def run_outputs(self) -> list[Any]:
        """The outputs of opening a run."""
        return [self.player, *self.filled(), *self.pictures.files()]

    def _handed(self, picture: Image.Image | bytes, name: str) -> str:
        """An image as a file that the page may fetch. Raises UserError."""
        if isinstance(picture, bytes):
            return str(self._handing.out(picture, name)["path"])
        return self._handed(png(picture), name)

    def opened_recipe(self, opening: Opening) -> list[Any]:
        """Updates for `recipe_outputs()`: a recipe in the form, perhaps with its image as the init image."""
        form = self.asking.filling(opening.request)
        form[0] = gr.Tabs(selected=opening.where)
        if opening.model and self.engine.ready and opening.model != self.engine.name:
            note = text.note(f"this recipe was made with {opening.model}: choose that model above")
            form[1 + len(self.asking.fields)] = note
        return [*form, str(opening.picture) if opening.picture else gr.skip()]

    def recipe_outputs(self) -> list[Any]:
        """The outputs of opening a recipe."""
        return [*self.filled(), self.pictures.image]

    def base(self, owner: str, rest: Any, tab: str, *values: Any) -> Base:
        """The form's request and images, for a comparison. Raises UserError.

        values: those of `base_inputs()`.
        """
        *form, image, painted, mask = values
        files = {"img2img": [image], "inpaint": [painted, mask]}.get(tab, [])
        return Base(*self.asking.asked(owner, tab, rest, self.asking.named(*form), files))

    def base_inputs(self) -> list[Any]:
        """The inputs of `base`."""
        return [self.rest, self.mode, *self.asking.fields.values(), *self.pictures.files()]

    # Asking for runs.

    def on_generate(
        self, tab: str, following: Following, owner: str, model: str | None, rest: Any, *values: Any
    ) -> tuple[Any, ...]:
        """Check the form at once and queue its runs for the model that the page shows, whichever model others
        load meanwhile. (notice, queue...)
        """
        count = len(self.asking.fields)
        named = self.asking.named(*values[:count])

        def submit() -> None:
            request, inputs = self.asking.asked(owner, tab, rest, named, values[count:])
            if self.engine.ready:  # report mistakes now, not when the run starts
                given = None if inputs is None else inputs.given
                request.resolve(self.engine.pipeline.defaults, self.registry, given)
            image, mask = (None, None) if inputs is None else (inputs.image, inputs.mask)
            for one in repeated(request, named["runs"]):
                job = self.jobs.submit_run(owner, one, image=image, mask=mask, model=model)
                following.add(job.id)

        return self._do(owner, submit)

    def on_branch(
        self,
        event: gr.EventData,
        following: Following,
        owner: str,
        model: str | None,
        rest: Any,
        *values: Any,
    ) -> tuple[Any, ...]:
        """Branch from a step of the run in the player, with the form's settings."""

        def submit() -> None:
            left = {"width": None, "height": None, "batch": 1}  # size and images are those of the run
            request = self.asking.request(owner, self.asking.named(*values), left)
            parent, image = (str(event.run), int(event.step)), int(event.image)
            job = self.jobs.submit_run(owner, request, parent=parent, parent_image=image, model=model)
            following.add(job.id)

        return self._do(owner, submit)

    def on_model(self, following: Following, owner: str, name: str) -> tuple[Any, ...]:
        """Queue a switch of the model."""
        return self._do(owner, lambda: following.add(self.jobs.switch_model(owner, name).id))

    def _do(self, owner: str, submit: Callable[[], None]) -> tuple[Any, ...]:
        """Submit, or show the error. (notice, queue...)"""
        try:
            submit()
        except UserError as error:
            return text.error(str(error)), *self.told(owner)
        return "", *self.told(owner)

    def on_reuse(self, owner: str, last_run: str) -> Any:
        """The seed of the newest run."""
        try:
            return str(self.viewer.settings(owner, last_run).seed)
        except UserError:  # there is none, or it was deleted
            return gr.skip()

    def on_preset(self, owner: str, name: str | None) -> list[Any]:
        """Fill the form from a preset."""
        nothing = [gr.skip()] * len(self.asking.fields)
        if not name:
            return [*nothing, gr.skip()]
        try:
            return [*fields.updates(self.asking.fields, self.kept.load(owner, name)), ""]
        except UserError as error:
            return [*nothing, text.error(str(error))]

    # The queue.

    async def on_watch(self, following: Following, owner: str) -> AsyncIterator[tuple[Any, ...]]:
        """(player, notice, newest run, queue..., chips, model) while the owner has jobs.

        A page that is busy with its own opening may lose a value, so the player's newest one goes along with
        each update, and by its mark the player knows what it shows already. On the way it costs nothing:
        Gradio sends differences.
        """
        message: Any = gr.skip()
        async for sight in self.watcher.watch(following, owner):
            if sight.message is not None:
                message = {**sight.message, "mark": uuid4().hex}
            notice = gr.skip() if sight.error is None else text.error(sight.error)
            shown = [gr.skip()] * 2
            if sight.switched and self.engine.ready:
                message, *shown = self._model_shown(value=message)
            yield message, notice, sight.run or gr.skip(), *_line_of(sight), *shown

    def on_stop(self, owner: str) -> tuple[Any, ...]:
        """Stop all of the owner's jobs."""
        self.jobs.stop(owner)
        return self.told(owner)

    def on_skip(self, owner: str) -> tuple[Any, ...]:
        """Stop the owner's running job; the next in the queue starts."""
        self.jobs.skip(owner)
        return self.told(owner)

    def on_cancel(self, owner: str, event: gr.EventData) -> tuple[Any, ...]:
        """Cancel one job."""
        with contextlib.suppress(UserError):  # it has ended meanwhile
            self.jobs.cancel(owner, str(event.job))
        return self.told(owner)

    def told(self, owner: str) -> tuple[Any, ...]:
        """The queue now: the list, its length, and whether Skip and Stop are enabled."""
        return _line_of(self.watcher.sight(owner))

    # Opening the page.

    def on_open(self, owner: str, form: Any, tab: str, following: Following) -> list[Any]:
        """Restore the page as it was left; start loading the model if it is not loaded."""
        self.engine.start()
        values = form if isinstance(form, dict) else {}
        following.restored = bool(values)
        restored = dict(zip(self.asking.fields, fields.updates(self.asking.fields, values), strict=True))
        styles, presets = self.kept.known(owner)
        chosen = [name for name in values.get("styles") or [] if name in styles]
        restored["styles"] = gr.update(choices=styles, value=chosen)
        left = gr.Tabs(selected=tab) if tab and isinstance(tab, str) else gr.skip()
        return [following, left, gr.update(choices=presets), *restored.values(), ""]

    async def on_loaded(self) -> Any:
        """When loading has ended: nothing, or the error message."""
        while not self.engine.wait(0):  # no blocked thread: all pages share a few
            await asyncio.sleep(LOOK_SECONDS)
        return gr.skip() if self.engine.ready else text.error(self.engine.error)

    def on_examples(self) -> tuple[Any, Any, Any]:
        """The model's examples and name. (player, chips, model)"""
        return self._model_shown() if self.engine.ready else (gr.skip(), gr.skip(), gr.skip())

    def _model_shown(self, **more: Any) -> tuple[Any, Any, Any]:
        """Show the loaded model. (player, chips, model)"""
        pipeline, name = self.engine.pipeline, self.engine.name
        prompts = list(pipeline.examples)
        player = gr.HTML(examples=cards(prompts, EXAMPLE_PICTURES, pipeline.name), **more)
        return player, shown(prompts, pipeline.subjects), gr.update(choices=model_names(name), value=name)

    def on_defaults(self, following: Following, *values: Any) -> Any:
        """The model's defaults, unless the form was restored."""
        return [gr.skip()] * len(values) if following.restored else self.form.on_defaults(*values)

    def on_link(self, owner: str, last_run: str, following: Following, request: gr.Request) -> list[Any]:
        """The run, step and image of the URL, `?run=ID&step=K&image=N`; else the newest run."""
        if run := request.query_params.get("run"):
            step, image = (_number(request.query_params.get(name, "")) for name in ("step", "image"))
            following.restored = True  # the form is the run's now
            return self._opened(owner, run, step, max((image or 1) - 1, 0))
        nothing = [gr.skip()] * len(self.run_outputs())
        if (live := self.jobs.live(owner)) is not None:
            following.add(live.id)  # the watcher shows it, even if it has ended by then
        # A run may have ended while the page was reloading, unknown to the browser.
        elif newest := self.jobs.newest(owner) or last_run:
            with contextlib.suppress(UserError):  # it was deleted
                nothing[0] = self.viewer.show(owner, newest)
        return nothing

    def on_open_run(self, owner: str, event: gr.EventData) -> list[Any]:
        """A run that was clicked in the player's tree."""
        return self._opened(owner, str(event.run), None)

    def on_send(self, owner: str, event: gr.EventData) -> list[Any]:
        """The player's image as the init image. (tabs, notice, image files)"""
        tab = "inpaint" if event.to == "inpaint" else "img2img"
        try:
            kept = self.jobs.runs.open(owner, str(event.run))
            image = min(int(event.image), len(kept.names) - 1)
            file = self._handed(kept.png(image), kept.names[image])
        except UserError as error:
            return [gr.skip(), text.error(str(error)), *[gr.skip()] * len(self.pictures.files())]
        return [gr.Tabs(selected=tab), "", *self.pictures.filled(tab, file)]

    def _opened(self, owner: str, run: str, step: int | None, image: int = 0) -> list[Any]:
        try:
            return self.opened_run(owner, run, step, image)
        except UserError as error:
            outputs = self.run_outputs()
            return [text.error(str(error)) if one is self.notice else gr.skip() for one in outputs]


def _generate_button(tab: str) -> gr.Button:
    return gr.Button(
        "Generate", variant="primary", scale=3, min_width=120, elem_classes=["lc-generate", f"lc-{tab}"]
    )


def _line_of(sight: Sight) -> tuple[Any, ...]:
    return (
        queue_widget.shown(sight.lines),
        queue_widget.count(sight.lines),
        gr.Button(interactive=sight.running),
        gr.Button(interactive=sight.waiting),
    )


def _prompt_of(event: gr.EventData) -> str:
    return str(event.prompt)


def _number(text: str) -> int | None:
    """A small whole number from a URL."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 6 else None
