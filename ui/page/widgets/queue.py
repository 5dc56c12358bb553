"""The queue as a list: running and queued jobs, and a button to cancel one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from ui.service.job_queue import JobLine

MOST_SHOWN = 12

_TEMPLATE = '<ol class="lc-queue" aria-label="Queue"></ol>'
_SCRIPT = """
const list = element.querySelector(".lc-queue");
const cross = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 4l8 8M12 4l-8 8"/></svg>';
function draw() {
  const lines = props.value || [];
  list.toggleAttribute("hidden", !lines.length);
  list.replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.className = line.mine ? "lc-mine" : "lc-other";
    if (line.share !== null) item.style.setProperty("--lc-share", line.share * 100 + "%");
    const words = document.createElement("span");
    words.className = "lc-words";
    words.textContent = line.title;
    words.title = line.title;
    const state = document.createElement("span");
    state.className = "lc-state";
    state.textContent = line.state;
    item.append(words, state);
    if (line.id) {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = cross;
      button.title = "Cancel";
      button.setAttribute("aria-label", "Cancel: " + line.title);
      button.addEventListener("click", () => trigger("cancel", { job: line.id }));
      item.append(button);
    }
    return item;
  }));
}
watch("value", draw);
draw();
"""


def queue_list() -> gr.HTML:
    """The list; a click on a cross sends the event `cancel` with the job."""
    return gr.HTML(
        [],
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="queue",
    )


def shown(lines: Sequence[JobLine]) -> list[dict[str, Any]]:
    """The list's lines: none if the queue holds only a job that the player shows anyway."""
    if len(lines) < 2 and all(line.mine and line.kind in ("run", "branch") for line in lines):
        return []
    said = [_line(line) for line in lines[:MOST_SHOWN]]
    more = len(lines) - len(said)
    if more:
        said.append({"id": "", "mine": False, "title": f"and {more} more", "state": "", "share": None})
    return said


def count(lines: Sequence[JobLine]) -> str:
    """The queue's length, for the header."""
    return f"queue {len(lines)}"


def _line(line: JobLine) -> dict[str, Any]:
    running = line.state == "running"
    return {
        "id": line.id,
        "mine": line.mine,
        "title": line.title or "someone else's run",
        "state": _state(line) if running else f"queued, position {line.position}",
        "share": line.evals / line.evals_due if running and line.evals_due else None,
    }


def _state(line: JobLine) -> str:
    if not line.evals_due:
        return "running"
    left = "" if line.eta is None else f", {line.eta:.0f} s left"
    return f"{line.evals} of {line.evals_due} evaluations{left}"
