"""The workbench of txt2img, img2img and inpaint: one form, the pictures that a run starts from, one player.

A tab only chooses which picture inputs stand beside the form and which Generate button is there; prompt and settings
stay. A run is a job of the queue, and belongs to the owner whose token the browser keeps: the page watches it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.inputs import Inputs, check_inputs
from ui.watching import Following, Sight, Watcher
from ui.widgets import fields, text
from ui.widgets import queue as queue_widget
from ui.widgets.examples import cards
from ui.widgets.form import MAX_RUNS, Form
from ui.widgets.kept_words import KeptWords
from ui.widgets.pictures import Given, Pictures, tab_of

if TYPE_CHECKING:
    from gradio.components import Component

    from core.registry import Registry
    from core.request import Defaults, Request
    from ui.jobs import Jobs
    from ui.styles import Styles
    from ui.tabs.recipe import Opening
    from ui.viewer import Viewer

EXAMPLE_PICTURES = Path(__file__).parents[1] / "data" / "examples"
TABS = ("txt2img", "img2img", "inpaint")
LONGEST_TOKEN = 64

# The events that never wait for a run.
QUICK: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}


class Workbench:
    """Made inside the caller's layout; `connect` wires it to the page and its strip of tabs."""

    def __init__(
        self,
        jobs: Jobs,
        registry: Registry,
        viewer: Viewer,
        first: Defaults,
        styles: Callable[[str], Styles],
    ) -> None:
        self.engine, self.jobs, self.registry, self.viewer = jobs.engine, jobs, registry, viewer
        self.watcher = Watcher(jobs.engine, jobs, viewer)
        self.following = gr.State(Following())
        self.rest = gr.State({})
        self.owner = gr.BrowserState("", storage_key="latentcanvas-owner", secret="latentcanvas")
        self.kept_form = gr.BrowserState({}, storage_key="latentcanvas-form", secret="latentcanvas")
        self.tab = gr.BrowserState(TABS[0], storage_key="latentcanvas-tab", secret="latentcanvas")
        with gr.Row(elem_id="workbench", equal_height=False):
            with gr.Column(elem_id="form", scale=0, min_width=320):
                with gr.Column(elem_id="asked"):
                    self.kept = KeptWords(styles)
                    self.form = Form(jobs.engine, registry, first)
                self._build_actions()
            with gr.Column(elem_id="inputs", scale=0, min_width=280):
                self.pictures = Pictures(jobs.engine, registry)
            with gr.Column(elem_id="result", scale=1, min_width=320):
                self.player = viewer.build()
        self.fields: dict[str, Component] = {
            **self.form.fields,
            "styles": self.kept.chosen,
            **self.pictures.fields,
        }

    def _build_actions(self) -> None:
        with gr.Column(elem_id="actions"):
            with gr.Row():
                self.generate = {
                    tab: gr.Button(
                        "Generate",
                        variant="primary",
                        scale=3,
                        min_width=120,
                        elem_classes=["lc-generate", f"lc-{tab}"],
                    )
                    for tab in TABS
                }
                self.skip = gr.Button(
                    "Skip", interactive=False, scale=1, min_width=64, elem_id="skip", elem_classes="lc-second"
                )
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
        """Wire everything; `tabs` is the strip, `model` and `status` stand in the header."""
        self.tabs, self.model, self.status = tabs, model, status
        self.form.connect(QUICK)
        method = self.form.method
        self.pictures.connect([method.schedule, self.form.steps, self.form.sigmas], QUICK)
        everything = list(self.fields.values())
        self.kept.connect(self.owner, [self.form.prompt, self.form.negative], QUICK, everything, self._named)
        self.kept.preset.input(
            self.on_preset, [self.owner, self.kept.preset], [*everything, self.notice], **QUICK
        )
        self.form.reuse.click(self.on_reuse, self.following, self.form.seed, **QUICK)
        self._connect_runs()
        self._connect_opening(page)
        keep = f"(...values) => Object.fromEntries({list(self.fields)!r}.map((name, i) => [name, values[i]]))"
        changes = [control.change for control in everything if hasattr(control, "change")]
        gr.on(changes, None, everything, self.kept_form, js=keep, **QUICK)

    def _connect_runs(self) -> None:
        asked = [self.following, self.owner, self.rest, *self.fields.values()]
        own: dict[str, list[Component]] = {
            "txt2img": [],
            "img2img": [self.pictures.image],
            "inpaint": [self.pictures.editor, self.pictures.mask],
        }
        handlers = {"txt2img": self.on_txt2img, "img2img": self.on_img2img, "inpaint": self.on_inpaint}
        answers = [self.notice, self.player, *self._line()]
        for tab, button in self.generate.items():
            submitted = button.click(handlers[tab], [*asked, *own[tab]], answers, **QUICK)
            self._then_watch(submitted)
        self._then_watch(
            self.model.input(self.on_model, [self.following, self.owner, self.model], answers, **QUICK)
        ).then(self.on_other_model, None, [self.model, self.form.chips, self.player], **QUICK)
        self._then_watch(self.player.branch(self.on_branch, asked, answers, **QUICK))
        self.player.open(self.on_open_run, self.owner, self.run_outputs(), **QUICK)
        self.forget.click(lambda: _rest_shown({}), None, [self.rest, self.rest_row, self.rest_words], **QUICK)
        line = [self.owner, *self._line()]
        self.stop.click(self.on_stop, self.owner, line[1:], **QUICK)
        self.skip.click(self.on_skip, self.owner, line[1:], **QUICK)
        self.queue.cancel(self.on_cancel, self.owner, line[1:], **QUICK)
        gr.Timer(5).tick(self.on_look, self.owner, line[1:], **QUICK)
        self.player.start(_prompt_of, None, self.form.prompt, **QUICK).then(
            None, None, None, js="() => window.latentcanvas.generate()"
        )

    def _connect_opening(self, page: gr.Blocks) -> None:
        everything = [*self.fields.values(), self.notice]
        fields = self.form.defaulted()
        opened = page.load(
            self.on_open,
            [self.owner, self.kept_form, self.following],
            [self.owner, self.following, self.kept.chosen, self.kept.preset, *everything],
            **QUICK,
        )
        shown = opened.then(
            self.on_loaded, None, [self.form.chips, self.player, self.notice, self.model], **QUICK
        )
        shown = shown.then(self.on_defaults, [self.following, *fields], fields, **QUICK)
        shown = shown.then(self.form.on_prompt, self.form.prompt, self.form.tokens, **QUICK)
        shown = shown.then(self.on_link, self.owner, self.run_outputs(), **QUICK)
        self._then_watch(shown)

    def _then_watch(self, event: Any) -> Any:
        return event.then(
            self.on_watch, [self.following, self.owner], [self.player, self.notice, *self._line()], **QUICK
        )

    def _line(self) -> list[Component]:
        """What shows the queue: see `_told`."""
        return [self.queue, self.status, self.skip, self.stop]

    # Reading and filling.

    def _named(self, *values: Any) -> dict[str, Any]:
        return dict(zip(self.fields, values, strict=True))

    def values_of(self, request: Request) -> dict[str, Any]:
        """The controls' values, by name, that ask for this request."""
        return {**self.form.values_of(request), **self.pictures.values_of(request), "styles": []}

    def fill(self, request: Request) -> list[Any]:
        """Updates for `filled()`: the form asks for this request. Raises UserError for options that cannot be."""
        rest = rest_of(request)
        return [
            gr.Tabs(selected=tab_of(request)),
            *fields.updates(self.fields, self.values_of(request)),
            "",
            *_rest_shown(rest),
        ]

    def filled(self) -> list[Any]:
        """The outputs of an event that fills the form."""
        return [self.tabs, *self.fields.values(), self.notice, self.rest, self.rest_row, self.rest_words]

    def opened_run(self, owner: str, run_id: str, step: int | None = None) -> list[Any]:
        """Updates for `run_outputs()`: a kept run in the player and the form. Raises UserError."""
        message = self.viewer.show(owner, run_id, step)
        return [message, *self.fill(self.viewer.settings(owner, run_id).as_request())]

    def run_outputs(self) -> list[Any]:
        """What opening a run changes."""
        return [self.player, *self.filled()]

    def opened_recipe(self, opening: Opening) -> list[Any]:
        """Updates for `recipe_outputs()`: a recipe in the form, perhaps with its picture to start from."""
        form = self.fill(opening.request)
        form[0] = gr.Tabs(selected=opening.where)
        if opening.model and self.engine.ready and opening.model != self.engine.name:
            form[len(self.fields) + 1] = text.note(
                f"it was made with {opening.model}: choose that model above"
            )
        return [*form, str(opening.picture) if opening.picture else gr.skip()]

    def recipe_outputs(self) -> list[Any]:
        """What opening a recipe changes."""
        return [*self.filled(), self.pictures.image]

    def read(
        self, owner: str, named: Mapping[str, Any], said: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> Request:
        """The request of the form's values, with what is `said` of pictures and the `rest` that no control
        shows. Raises UserError.
        """
        words = named["prompt"] or "", named["negative"] or ""
        prompt, negative = self.kept.applied(owner, named["styles"], *words)
        return self.form.read({**named, "prompt": prompt, "negative": negative}, **{**said, **rest})

    # Asking for runs.

    def on_txt2img(self, following: Following, owner: str, rest: Any, *values: Any) -> tuple[Any, ...]:
        """Generate from words alone."""
        return self._ask(following, owner, rest, values, lambda named: ({}, Given()))

    def on_img2img(self, following: Following, owner: str, rest: Any, *values: Any) -> tuple[Any, ...]:
        """Generate from a picture."""
        *asked, image = values
        return self._ask(following, owner, rest, asked, lambda named: self.pictures.img2img(named, image))

    def on_inpaint(self, following: Following, owner: str, rest: Any, *values: Any) -> tuple[Any, ...]:
        """Generate a part of a picture, or what lies around it."""
        *asked, painted, mask = values
        return self._ask(
            following, owner, rest, asked, lambda named: self.pictures.inpaint(named, painted, mask)
        )

    def on_branch(
        self, following: Following, owner: str, rest: Any, *values: Any, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Go on from a step of the run that the player shows, with what the form says."""
        named = self._named(*values)
        try:
            said = {"width": None, "height": None, "batch": 1}  # size and pictures are those of the run
            request = self.read(owner, named, said, {})
            parent, image = (str(event.run), int(event.step)), int(event.image)
            following.add(self.jobs.submit_run(owner, request, parent=parent, parent_image=image).id)
        except UserError as error:
            return text.error(str(error)), gr.skip(), *self._told(owner)
        return "", gr.skip(), *self._told(owner)

    def _ask(
        self, following: Following, owner: str, rest: Mapping[str, Any], values: Any, picture: Any
    ) -> tuple[Any, ...]:
        """Check the form at once; a good one goes to the end of the line. (notice, player, queue...)"""
        named = self._named(*values)
        try:
            said, given = picture(named)
            request = self.read(owner, named, said, rest)
            self._submit(following, owner, request, given, named["runs"])
        except UserError as error:
            return text.error(str(error)), gr.skip(), *self._told(owner)
        return "", gr.skip(), *self._told(owner)

    def _submit(self, following: Following, owner: str, request: Request, given: Given, runs: object) -> None:
        inputs = Inputs.read(*given)
        check_inputs(request, inputs)
        if self.engine.ready:
            request.resolve(
                self.engine.pipeline.defaults, self.registry, None if inputs is None else inputs.given
            )
        image, mask = (None, None) if inputs is None else (inputs.image, inputs.mask)
        for one in repeated(request, runs):
            following.add(self.jobs.submit_run(owner, one, image=image, mask=mask).id)

    def on_model(self, following: Following, owner: str, name: str) -> tuple[Any, ...]:
        """Another model, when its turn comes."""
        try:
            following.add(self.jobs.switch_model(owner, name).id)
        except UserError as error:
            return text.error(str(error)), gr.skip(), *self._told(owner)
        return "", gr.skip(), *self._told(owner)

    def on_other_model(self) -> tuple[Any, ...]:
        """The model that there is now: after a switch that failed the earlier one."""
        chips, player, _, model = self.on_loaded()
        return model, chips, player

    def on_reuse(self, following: Following) -> Any:
        """The seed of the newest run."""
        return gr.skip() if following.last_seed is None else str(following.last_seed)

    def on_preset(self, owner: str, name: str | None) -> list[Any]:
        """A saved form."""
        if not name:
            return [gr.skip()] * (len(self.fields) + 1)
        try:
            return [*fields.updates(self.fields, self.kept.load(owner, name)), ""]
        except UserError as error:
            return [*[gr.skip()] * len(self.fields), text.error(str(error))]

    # The queue.

    async def on_watch(self, following: Following, owner: str) -> AsyncIterator[tuple[Any, ...]]:
        """(player, notice, queue...) as long as there is a job of one's own."""
        async for sight in self.watcher.watch(following, owner):
            message = gr.skip() if sight.message is None else sight.message
            notice = gr.skip() if sight.error is None else text.error(sight.error)
            yield message, notice, *_line_of(sight)

    def on_stop(self, owner: str) -> tuple[Any, ...]:
        """Stop all that is one's own."""
        self.jobs.stop(owner)
        return self._told(owner)

    def on_skip(self, owner: str) -> tuple[Any, ...]:
        """Stop what runs; the next in line follows."""
        self.jobs.skip(owner)
        return self._told(owner)

    def on_cancel(self, owner: str, event: gr.EventData) -> tuple[Any, ...]:
        """Take one job out of the line."""
        with contextlib.suppress(UserError):  # it has ended meanwhile
            self.jobs.cancel(owner, str(event.job))
        return self._told(owner)

    def on_look(self, owner: str) -> tuple[Any, ...]:
        """The queue, looked at now and then: others use it too."""
        return self._told(owner)

    def _told(self, owner: str) -> tuple[Any, ...]:
        lines = self.jobs.listing(owner)
        mine = [line for line in lines if line.mine]
        running = any(line.state == "running" for line in mine)
        return _line_of(Sight(lines=lines, running=running, waiting=bool(mine)))

    # Opening the page.

    def on_open(self, owner: str, form: Any, following: Following) -> list[Any]:
        """Who this is, and the form as it was left."""
        owner = (
            owner
            if isinstance(owner, str) and 20 <= len(owner) <= LONGEST_TOKEN
            else secrets.token_urlsafe(24)
        )
        values = form if isinstance(form, dict) else {}
        following.restored = bool(values)
        chosen, preset = self.kept.choices(owner)
        restored = dict(zip(self.fields, fields.updates(self.fields, values), strict=True))
        known = [name for _, name in getattr(chosen, "choices", [])]
        restored["styles"] = gr.skip()
        chosen = gr.Dropdown(choices=known, value=[one for one in values.get("styles") or [] if one in known])
        return [owner, following, chosen, preset, *restored.values(), ""]

    def on_loaded(self) -> tuple[Any, ...]:
        """When the model is there: its examples; or the sentence why it is not."""
        self.engine.wait()
        if not self.engine.ready:
            return gr.skip(), gr.skip(), text.error(self.engine.error), gr.skip()
        pipeline = self.engine.pipeline
        prompts = list(pipeline.examples)
        player = gr.HTML(examples=cards(prompts, EXAMPLE_PICTURES, pipeline.name))
        return prompts, player, "", gr.Dropdown(choices=model_names(self.engine.name), value=self.engine.name)

    def on_defaults(self, following: Following, *values: Any) -> Any:
        """The model's defaults, in a form that nobody has touched."""
        return [gr.skip()] * len(values) if following.restored else self.form.on_defaults(*values)

    def on_link(self, owner: str, request: gr.Request) -> list[Any]:
        """The run and step that the address names: `?run=ID&step=K`."""
        run, step = (request.query_params.get(name) for name in ("run", "step"))
        if not run:
            return [gr.skip()] * len(self.run_outputs())
        return self._opened(owner, run, int(step) if step and step.isdecimal() else None)

    def on_open_run(self, owner: str, event: gr.EventData) -> list[Any]:
        """A run that was clicked in the player's tree."""
        return self._opened(owner, str(event.run), None)

    def _opened(self, owner: str, run: str, step: int | None) -> list[Any]:
        try:
            return self.opened_run(owner, run, step)
        except UserError as error:
            nothing = [gr.skip()] * len(self.run_outputs())
            nothing[self.run_outputs().index(self.notice)] = text.error(str(error))
            return nothing


def rest_of(request: Request) -> dict[str, Any]:
    """What of a request no control of the form shows: a branch, an early end, and which pictures it had."""
    names = ("stop_after", "branch", "image_sha256", "mask_sha256")
    return {name: getattr(request, name) for name in names if getattr(request, name) is not None}


def _rest_shown(rest: dict[str, Any]) -> tuple[Any, ...]:
    said = []
    if "branch" in rest:
        said.append(f"goes on after step {rest['branch'].step} of another run")
    if "stop_after" in rest:
        said.append(f"ends after step {rest['stop_after']}")
    pictures = [name for name in ("image", "mask") if f"{name}_sha256" in rest]
    if pictures and "branch" not in rest:
        words = {"image": "picture", "mask": "mask"}
        said.append(f"began from a {' and a '.join(words[name] for name in pictures)}: give the same again")
    words_ = text.note("this run " + ", ".join(said)) if said else ""
    return rest, gr.Row(visible=bool(said)), words_


def model_names(*more: str) -> list[str]:
    """The models to choose from: those that are installed, and others by their paths."""
    from core.weights import find

    return list(dict.fromkeys([*map(find.model_name, find.installed()), *more]))


def repeated(request: Request, runs: object) -> list[Request]:
    """The request as often as it is to run, its seed going on where the one before ended. Raises UserError."""
    if not isinstance(runs, int) or not 1 <= runs <= MAX_RUNS:
        raise UserError(f"runs: must be a whole number between 1 and {MAX_RUNS}")
    if request.seed is None:
        return [request] * runs
    return [dataclasses.replace(request, seed=request.seed + i * request.batch) for i in range(runs)]


def _line_of(sight: Sight) -> tuple[Any, ...]:
    return (
        queue_widget.shown(sight.lines),
        queue_widget.count(sight.lines),
        gr.Button(interactive=sight.running),
        gr.Button(interactive=sight.waiting),
    )


def _prompt_of(event: gr.EventData) -> str:
    return str(event.prompt)
