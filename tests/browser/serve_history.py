"""Serve the history tab alone: `python -m tests.browser.serve_history OUTPUTS [guests]`.

It says where the page is. Beside the tab stands a field with the browser's token, and one that shows what was
opened. With `guests` a token sees only its own runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr

from core.errors import UserError
from core.history import History
from ui.page.tabs.history import HistoryPanel
from ui.page.widgets.theme import look


def page(history: History, guests: bool) -> gr.Blocks:
    """The tab in a small page."""
    panel = HistoryPanel(lambda: history, lambda token: token if guests else None)

    def opened(token: str, run: str) -> list[object]:
        if history.get(run).settings.prompt == "cannot be opened":
            raise UserError("this run cannot be opened")
        return [gr.Tabs(selected="first"), f"{token}: {run}"]

    blocks: gr.Blocks = gr.Blocks(title="History", fill_width=True, analytics_enabled=False)
    with blocks:
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("first", id="first"):
                token = gr.Textbox(label="token", elem_id="token")
                shown = gr.Textbox(label="opened", elem_id="opened")
            with gr.Tab("history", id="history") as tab:
                panel.build()
        panel.connect(token, opened, [tabs, shown], tab)
    return blocks


def main() -> None:
    """Serve until killed."""
    blocks = page(History(Path(sys.argv[1])), "guests" in sys.argv)
    _, url, _ = blocks.launch(quiet=True, prevent_thread_lock=True, **look())
    print("LatentCanvas is at", url, flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    main()
