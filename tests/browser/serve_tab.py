"""Serve one tab alone: `python -m tests.browser.serve_tab TAB PORT FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from core import plugins
from ui.app import _settle_gradio
from ui.tabs.plugins import PluginsTab
from ui.widgets.theme import look


def plugins_tab(folder: Path) -> None:
    """Plugins, those in the files of `folder` too."""
    plugins.configure(directory=folder)
    tab = PluginsTab(plugins.registry(), directory=folder)
    tab.build()
    tab.connect()


TABS: dict[str, Callable[[Path], None]] = {"plugins": plugins_tab}


def main() -> None:
    """Serve until it is ended."""
    name, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True) as page:
        TABS[name](folder)
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
    _settle_gradio()
    main()
