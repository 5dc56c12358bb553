"""Serve one tab alone: `python -m tests.browser.serve_tab TAB PORT FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from gradio.context import Context

from core.plugins import current
from ui.app import settle_gradio
from ui.page.tabs.plugins import PluginsTab
from ui.page.tabs.recipe import Opening, RecipeTab
from ui.page.widgets.theme import look


def plugins_tab(folder: Path) -> None:
    """Plugins, those in the files of `folder` too."""
    current.configure(directory=folder)
    tab = PluginsTab(current.registry(), directory=folder)
    tab.build()
    tab.connect()


def compare_tab(folder: Path) -> None:
    """Compare on a small model whose pictures go to `folder`, beside a form of two fields."""
    from core.inference.pipeline import Pipeline
    from core.request.request import Request
    from tests.ui.fakes import FakePipeline
    from ui.page.tabs.compare import Base, CompareTab
    from ui.service.job_queue import Jobs
    from ui.service.model_thread import ModelThread
    from ui.service.run_store import RunStore

    def load(name: str) -> Pipeline:
        return Pipeline.load("tiny") if name == "tiny" else FakePipeline(delay=0.02)

    engine = ModelThread(load, "tiny")
    engine.start()
    tab = CompareTab(Jobs(engine, RunStore(folder)), current.registry(), lambda: ("tiny", "small"))
    owner = gr.BrowserState("someone", storage_key="owner", secret="test")
    tab.build()
    with gr.Row():
        prompt = gr.Textbox("a red house on a snowy hill", label="Prompt", elem_id="prompt")
        opened = gr.Textbox(label="Opened", elem_id="opened")

    def base(owner: str, words: str) -> Base:
        return Base(Request(prompt=words, sampler="ddim", steps=10, width=128, height=128, seed=3))

    engine.wait()
    page = Context.root_block
    assert page is not None
    tab.connect(
        page,
        owner,
        base,
        [prompt],
        shown=prompt.change,
        open_run=lambda owner, run: [f"{owner} opened {run}"],
        open_outputs=[opened],
    )


def learn_tab(folder: Path) -> None:
    """Learn, inside a tab beside another as on the page, on the embedded model."""
    from core.inference.pipeline import Pipeline
    from core.request.request import Request
    from ui.page.tabs.compare import Base
    from ui.page.tabs.learn.tab import LearnTab
    from ui.service.job_queue import Jobs
    from ui.service.model_thread import ModelThread
    from ui.service.run_store import RunStore

    engine = ModelThread(Pipeline.load, "tiny")
    engine.start()
    tab = LearnTab(Jobs(engine, RunStore(folder)), current.registry())
    owner = gr.BrowserState("someone", storage_key="owner", secret="test")
    with gr.Tabs():
        with gr.Tab("first"):
            gr.HTML('<p id="here">here</p>')
        with gr.Tab("learn") as outer:
            tab.build()

    def base(owner: str) -> Base:
        return Base(Request(schedule="karras", steps=12, strength=0.5, image_sha256="0" * 64))

    tab.connect(owner, outer.select, base)


def recipe_tab(folder: Path) -> None:
    """Recipe; what is opened stands beside it, as text."""

    def opened(asked: Opening) -> list[str]:
        """In place of the workbench: what it is asked for, as text."""
        told = {
            "request": asked.request.to_dict(),
            "where": asked.where,
            "model": asked.model,
            "picture": asked.picture.name if asked.picture else None,
        }
        return [f'<pre id="opened" hidden>{json.dumps(told)}</pre>']

    tab = RecipeTab(current.registry(), loaded=lambda: ("tiny", "0" * 64))
    tab.build()
    tab.connect(opened, [gr.HTML("")])


TABS: dict[str, Callable[[Path], None]] = {
    "plugins": plugins_tab,
    "compare": compare_tab,
    "learn": learn_tab,
    "recipe": recipe_tab,
}


def main() -> None:
    """Serve until it is ended."""
    name, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True) as page:
        TABS[name](folder)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            **look(),
        )
    except ValueError:  # Gradio asks itself for the page, and gives up after three seconds: see ui/app.py
        if not page.is_running:
            raise
    print(f"LatentCanvas is at http://127.0.0.1:{port}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        settle_gradio(temporary)
        main()
