"""Serve the recipe tab alone: `python -m tests.browser.serve_recipe PORT`.

What is opened stands beside it, as text.
"""

from __future__ import annotations

import json
import sys
from tempfile import TemporaryDirectory

import gradio as gr

from core import plugins
from ui.app import _settle_gradio
from ui.tabs.recipe import Opening, RecipeTab
from ui.widgets.theme import look


def opened(asked: Opening) -> list[str]:
    """In place of the workbench: what it is asked for, as text."""
    told = {
        "request": asked.request.to_dict(),
        "where": asked.where,
        "model": asked.model,
        "picture": asked.picture.name if asked.picture else None,
    }
    return [f'<pre id="opened" hidden>{json.dumps(told)}</pre>']


def main() -> None:
    """Serve until it is ended."""
    port = int(sys.argv[1])
    with gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True) as page:
        tab = RecipeTab(plugins.registry(), loaded=lambda: ("tiny", "0" * 64))
        tab.build()
        tab.connect(opened, [gr.HTML("")])
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        **look(),
    )
    print(f"LatentCanvas is at http://127.0.0.1:{port}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        _settle_gradio(temporary)
        main()
