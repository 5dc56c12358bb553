"""The txt2img tab: a prompt becomes a picture while you watch, and its steps stay."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.jobs import Job, Jobs
from ui.session import Session
from ui.widgets import player as messages
from ui.widgets import text
from ui.widgets.examples import cards
from ui.widgets.form import Form

if TYPE_CHECKING:
    from core.registry import Registry
    from core.request import Defaults

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
    """The tab, made inside the caller's layout; `connect` wires it to the page."""

    def __init__(self, jobs: Jobs, registry: Registry, first: Defaults) -> None:
        self.jobs, self.engine, self.runs = jobs, jobs.engine, jobs.runs
        self.session = gr.State(Session())
        with gr.Row(elem_id="workbench", equal_height=False):
            with gr.Column(elem_id="form", scale=4, min_width=320):
                self.form = Form(jobs.engine, registry, first)
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
        """Wire the controls. None of them waits for another one's run."""
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
                **QUICK,
            )
            .then(_idle_buttons, None, buttons, **QUICK)
        )
        self.stop.click(self.on_stop, self.session, None, **QUICK)

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
        self.engine.wait()
        if not self.engine.ready:
            return gr.skip(), gr.skip(), text.error(self.engine.error)
        pipeline = self.engine.pipeline
        prompts = list(pipeline.examples)
        return prompts, gr.HTML(examples=cards(prompts, EXAMPLE_PICTURES, pipeline.name)), ""

    def on_reuse(self, session: Session) -> Any:
        """The seed of the newest run."""
        return gr.skip() if session.last_seed is None else str(session.last_seed)

    def on_generate(self, session: Session, *values: Any) -> tuple[Any, Any, Any, Any]:
        """Check the form at once; a good one waits in line for the model."""
        try:
            job = self.jobs.submit_run(session.owner, self.form.read(values))
            session.job_id = job.id
        except UserError as error:
            return text.error(str(error)), gr.skip(), gr.skip(), gr.skip()
        sentence = "Waiting for the model" if self.engine.ready else "Loading the model"
        return "", messages.waiting(sentence), gr.Button(interactive=False), gr.Button(interactive=True)

    def on_stop(self, session: Session) -> None:
        """Stop what this tab runs and what waits."""
        self.jobs.stop(session.owner)

    def on_run(self, session: Session) -> Iterator[tuple[Any, Any, Any]]:
        """Watch this tab's job: (player, report, notice), four times a second at most, and at the end."""
        job_id, session.job_id = session.job_id, None
        if job_id is None:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        try:
            job = self.jobs.get(session.owner, job_id)
            yield from self._watch(job)
            yield self._finish(session, job)
        except UserError as error:
            yield messages.back(), gr.skip(), text.error(str(error))
        except Exception as error:
            log.exception("the run could not be shown")
            sentence = f"the run could not be shown: {type(error).__name__}: {error}"
            yield messages.back(), gr.skip(), text.error(sentence)

    def _watch(self, job: Job) -> Iterator[tuple[Any, Any, Any]]:
        shown = 0
        while not job.ended.wait(LIVE_SECONDS):
            steps = job.steps
            if len(steps) > shown:
                shown = len(steps)
                yield messages.live_message(job, steps), gr.skip(), gr.skip()

    def _finish(self, session: Session, job: Job) -> tuple[Any, Any, Any]:
        if job.error or job.run_id is None:
            raise UserError(job.error or NOT_STARTED)
        started = time.perf_counter()
        kept = self.runs.open(session.owner, job.run_id)
        session.last_seed = kept.settings.seed
        message = messages.done_message(kept)
        return message, text.report(kept, time.perf_counter() - started), text.error(job.trouble)

    def on_frames(self, session: Session, event: gr.EventData) -> tuple[Any, Any]:
        """Another view or another picture of a kept run."""
        try:
            kept = self.runs.open(session.owner, event.run)
            image = _index(event.image, len(kept.names))
            answer = messages.frames_answer(kept, image, str(event.view))
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()

    def on_decode(self, session: Session, event: gr.EventData) -> tuple[Any, Any]:
        """One step of a kept run through the full decoder."""
        try:
            kept = self.runs.open(session.owner, event.run)
            image = _index(event.image, len(kept.names))
            index = _index(event.step, len(kept.trajectory.steps if kept.trajectory else ()) + 1)
            answer = messages.decode_answer(kept, image, max(index, 1), self.engine.pipeline)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()


def _idle_buttons() -> tuple[Any, Any]:
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _prompt_of(event: gr.EventData) -> str:
    return str(event.prompt)


def _index(value: object, count: int) -> int:
    if not isinstance(value, int) or not 0 <= value < count:
        raise UserError("the page asked for a step or picture that this run does not have; generate again")
    return value
