"""Serve a page with the player alone: `python -m tests.browser.serve_player PORT`.

Buttons do what the page around it does: show a run, watch one, open what the player asks for. What the player
says to the page stands under it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

from core.plugins import current
from core.request.request import Request
from core.request.settings import Settings
from tests.ui import kept
from ui.page.viewer import Viewer
from ui.page.widgets import player as messages
from ui.page.widgets.theme import look

EVENTS: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}


@dataclass
class FakeJob:
    """A run in progress."""

    settings: Settings
    total: int
    id: str = "job"
    words: str = ""
    steps: list[Any] = field(default_factory=list)

    @property
    def evals_due(self) -> int:
        return self.total

    @property
    def eta(self) -> float:
        return (self.total - len(self.steps)) * 0.2


def watch(viewer: Viewer) -> Iterator[Any]:
    """A run of a fake model as the page shows it."""
    yield messages.waiting("Waiting for the model")
    time.sleep(0.4)
    run = kept.pipeline().stream(
        Request(prompt="a green star", batch=2, steps=12, seed=4, width=64, height=64)
    )
    job = FakeJob(run.settings, run.total)
    for step in run:
        job.steps.append(step)
        yield viewer.live(job)  # pyrefly: ignore[bad-argument-type]
        time.sleep(0.2)
    yield viewer.show(kept.OWNER, "first")


def build() -> gr.Blocks:
    """The page, over kept runs of the small model."""
    runs = kept.family(size=128)
    long = Request(prompt="a yellow star", seed=3, steps=150, cfg_scale=1.0, width=64, height=64)
    runs.runs["long"] = kept.kept("long", long)
    viewer = Viewer(kept.FakeEngine(kept.pipeline()), runs)
    examples = [{"prompt": "a red circle on a blue background"}, {"prompt": "a house on a hill"}]
    page = gr.Blocks(title="player", analytics_enabled=False, fill_width=True)
    with page:
        with gr.Row(elem_id="workbench", equal_height=False):
            with gr.Column(elem_id="form", scale=0, min_width=320):
                buttons = {name: gr.Button(name, elem_id=f"show-{name}") for name in runs.runs}
                watching = gr.Button("watch", elem_id="watch")
                heard = gr.Textbox(label="Heard", elem_id="heard")
            with gr.Column(elem_id="result", scale=1, min_width=320):
                player = viewer.build(examples)
        for name, button in buttons.items():
            button.click(partial(viewer.show, kept.OWNER, name), None, player, **EVENTS)
        watching.click(partial(watch, viewer), None, player, **EVENTS)
        viewer.connect(gr.State(kept.OWNER))
        for event in (player.branch, player.start):
            event(heard_of, None, heard, **EVENTS)

        def opened(event: gr.EventData) -> dict[str, Any]:
            return viewer.show(kept.OWNER, event.run)

        player.open(opened, None, player, **EVENTS)
    return page


def heard_of(event: gr.EventData) -> str:
    """What the player said to the page."""
    return json.dumps({name: getattr(event, name, None) for name in ("run", "image", "step", "prompt")})


def main() -> None:
    """Serve until the process is ended."""
    page = build()
    page.launch(server_port=int(sys.argv[1]), quiet=True, prevent_thread_lock=True, footer_links=[], **look())
    print(f"LatentCanvas is at {page.local_url}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    current.configure()
    main()
