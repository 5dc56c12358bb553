"""The player with what it asks for: other views and images, and full decodes of the steps of kept runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.widgets import player as messages
from ui.widgets import text

if TYPE_CHECKING:
    from core.request import Settings
    from ui.engine import Engine
    from ui.jobs import Job
    from ui.keeping import Runs

QUICK: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}


class Viewer:
    """Builds the player and answers it."""

    def __init__(self, engine: Engine, runs: Runs) -> None:
        self.engine, self.runs = engine, runs

    def build(self) -> gr.HTML:
        """The player, in the caller's layout."""
        self.player = messages.player()
        self.report = gr.HTML("", elem_id="report")
        return self.player

    def connect(self, owner: Any) -> None:
        """Wire its questions."""
        answers = [self.player, self.report]
        self.player.frames(self.on_frames, owner, answers, **QUICK)
        self.player.decode(self.on_decode, owner, answers, **QUICK)

    def live(self, job: Job) -> messages.Message:
        """A run in progress."""
        return messages.live_message(job, list(job.steps))

    def show(self, owner: str, run_id: str, step: int | None = None) -> messages.Message:
        """A kept run."""
        return messages.done_message(self.runs.open(owner, run_id), self.engine.pipeline)

    def settings(self, owner: str, run_id: str) -> Settings:
        """What a kept run was."""
        return self.runs.open(owner, run_id).settings

    def on_frames(self, owner: str, event: gr.EventData) -> tuple[Any, Any]:
        """Another view or another picture of a kept run."""
        try:
            kept = self.runs.open(owner, event.run)
            answer = messages.frames_answer(kept, event.image, str(event.view), self.engine.pipeline)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()

    def on_decode(self, owner: str, event: gr.EventData) -> tuple[Any, Any]:
        """One step of a kept run through the full decoder."""
        try:
            answer = messages.decode_answer(self.runs.open(owner, event.run), event.image, max(event.step, 1))
        except UserError as error:
            return gr.skip(), text.error(str(error))
        return gr.HTML(answer=answer), gr.skip()
