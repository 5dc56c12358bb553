"""The txt2img tab: a prompt becomes a picture while you watch, and its steps stay."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.session import KeptRun, LiveRun, Session
from ui.widgets import player as messages
from ui.widgets import text
from ui.widgets.examples import cards
from ui.widgets.form import Form

if TYPE_CHECKING:
    from core.registry import Registry
    from core.request import Defaults
    from ui.model import ModelThread

log = logging.getLogger(__name__)

LIVE_SECONDS = 0.25  # at most four previews a second
EXAMPLE_PICTURES = Path(__file__).parents[2] / "data" / "examples"
NOT_STARTED = "stopped before the first step"

# The events that never wait for a run.
QUICK: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}


class Txt2img:
    """The tab, made inside the caller's layout; `connect` wires it to the page. Pictures go to `outputs`."""

    def __init__(self, model: ModelThread, registry: Registry, outputs: Path, first: Defaults) -> None:
        self.model, self.outputs = model, outputs
        self.session = gr.State(Session(), delete_callback=Session.close)
        with gr.Row(elem_id="workbench", equal_height=False):
            with gr.Column(elem_id="form", scale=4, min_width=320):
                self.form = Form(model, registry, first)
                self._build_actions()
            with gr.Column(elem_id="result", scale=7, min_width=320):
                self.player = messages.player()
                self.report = gr.HTML("", elem_id="report")

    def _build_actions(self) -> None:
        with gr.Column(elem_id="actions"):
            with gr.Row():
                self.generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=3)
                self.stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False, scale=1)
            self.notice = gr.HTML("", elem_id="notice")

    def connect(self, page: gr.Blocks) -> None:
        """Wire the controls. The model has one slot; everything else never waits for it."""
        self.form.connect(QUICK)
        self.form.reuse.click(self.on_reuse, self.session, self.form.seed, **QUICK)
        self._connect_run()
        self._connect_player()
        fields = self.form.defaulted()
        (
            page.load(self.on_loaded, None, [self.form.chips, self.player, self.notice], **QUICK)
            .then(self.form.on_defaults, fields, fields, **QUICK)
            .then(self.form.on_prompt, self.form.prompt, self.form.tokens, **QUICK)
        )

    def _connect_run(self) -> None:
        buttons = [self.generate, self.stop]
        (
            self.generate.click(
                self.on_generate,
                [self.session, *self.form.controls()],
                [self.notice, self.player, *buttons],
                **QUICK,
            )
            .then(
                self.on_run,
                self.session,
                [self.player, self.report, self.notice],
                show_progress="hidden",
                concurrency_id="model",
                concurrency_limit=1,
                api_visibility="private",
            )
            .then(_idle_buttons, None, buttons, **QUICK)
        )
        self.stop.click(Session.stop, self.session, None, **QUICK)

    def _connect_player(self) -> None:
        answers = [self.player, self.notice]
        decoder = {**QUICK, "concurrency_limit": 2, "concurrency_id": "decode"}
        self.player.frames(self.on_frames, self.session, answers, **QUICK)
        self.player.decode(self.on_decode, self.session, answers, **decoder)
        self.player.start(_prompt_of, None, self.form.prompt, **QUICK).then(
            None, None, None, js="() => { document.querySelector('#generate').click(); }"
        )

    def on_loaded(self) -> tuple[Any, Any, str]:
        """When the model is there: its examples; or the sentence why it is not."""
        self.model.wait()
        if not self.model.ready:
            return gr.skip(), gr.skip(), text.error(self.model.error)
        pipeline = self.model.pipeline
        prompts = list(pipeline.examples)
        return prompts, gr.HTML(examples=cards(prompts, EXAMPLE_PICTURES, pipeline.name)), ""

    def on_reuse(self, session: Session) -> Any:
        """The seed of the newest run."""
        return gr.skip() if session.last_seed is None else str(session.last_seed)

    def on_generate(self, session: Session, *values: Any) -> tuple[Any, Any, Any, Any]:
        """Check the form at once; a good one waits in line for the model."""
        try:
            session.ask(self.form.read(values))
        except UserError as error:
            return text.error(str(error)), gr.skip(), gr.skip(), gr.skip()
        sentence = "Waiting for the model" if self.model.ready else "Loading the model"
        return "", messages.waiting(sentence), gr.Button(interactive=False), gr.Button(interactive=True)

    def on_run(self, session: Session) -> Iterator[tuple[Any, Any, Any]]:
        """Run what waits in line: (player, report, notice), four times a second at most, and at the end."""
        run = session.take()
        if run is None:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        try:
            yield from self._watch(run)
            yield self._finish(session, run)
        except UserError as error:
            yield messages.back(), gr.skip(), text.error(str(error))
        except Exception as error:
            log.exception("the run could not be shown")
            sentence = f"the run could not be shown: {type(error).__name__}: {error}"
            yield messages.back(), gr.skip(), text.error(sentence)
        finally:
            run.cancel.set()  # the page may be gone in the middle of a run
            session.live = None

    def _watch(self, run: LiveRun) -> Iterator[tuple[Any, Any, Any]]:
        while not self.model.wait(LIVE_SECONDS):
            if run.cancel.is_set():
                raise UserError(NOT_STARTED)
        if not self.model.ready:
            raise UserError(self.model.error)
        run.start(self.model)
        shown = 0
        while not run.ended.wait(LIVE_SECONDS):
            if len(run.steps) > shown:
                shown = len(run.steps)
                yield messages.live_message(run), gr.skip(), gr.skip()

    def _finish(self, session: Session, run: LiveRun) -> tuple[Any, Any, Any]:
        if run.error:
            raise UserError(run.error)
        if not run.steps:
            raise UserError(NOT_STARTED)
        started = time.perf_counter()
        kept, trouble = self._keep(run)
        session.keep(kept)
        message = messages.done_message(kept, self.model.pipeline)
        return message, text.report(run, kept, time.perf_counter() - started), text.error(trouble)

    def _keep(self, run: LiveRun) -> tuple[KeptRun, str]:
        """The ended run with its picture files, and what went wrong when they were written."""
        if run.result is None:
            return _keep_stopped(run), ""
        try:
            paths = run.result.save(self.outputs)
        except UserError as error:
            pngs = run.result.pngs()
            return KeptRun(run, ["not-saved.png"] * len(pngs), pngs), f"the picture is not saved: {error}"
        return KeptRun(run, [path.name for path in paths], [path.read_bytes() for path in paths]), ""

    def on_frames(self, session: Session, event: gr.EventData) -> tuple[Any, Any]:
        """Another view or another picture of a kept run."""
        try:
            kept = session.run(event.run)
            image = _index(event.image, len(kept.pngs))
            answer = messages.frames_answer(kept, image, str(event.view), self.model.pipeline)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()

    def on_decode(self, session: Session, event: gr.EventData) -> tuple[Any, Any]:
        """One step of a kept run through the full decoder."""
        try:
            kept = session.run(event.run)
            image = _index(event.image, len(kept.pngs))
            index = _index(event.step, len(kept.steps) + 1)
            answer = messages.decode_answer(kept, image, max(index, 1))
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()


def _keep_stopped(run: LiveRun) -> KeptRun:
    """What was made until the stop. It is no picture of its recipe, so it is not written to a file."""
    last, count = run.steps[-1], len(run.steps)
    images = range(run.request.batch)
    names = [f"stopped-at-step-{count}-of-{run.total}-picture-{i + 1}.png" for i in images]
    return KeptRun(run, names, [messages.png(last.decode(i)) for i in images])


def _idle_buttons() -> tuple[Any, Any]:
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _prompt_of(event: gr.EventData) -> str:
    return str(event.prompt)


def _index(value: object, count: int) -> int:
    if not isinstance(value, int) or not 0 <= value < count:
        raise UserError("the page asked for a step or picture that this run does not have; generate again")
    return value
