"""Around the tabs: how the page starts."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.errors import UserError
from core.plugins import current
from core.sampling.registry import PluginStatus, Registry
from tests.ui.fakes import FakePipeline, in_blocks, jobs_of
from ui import app
from ui.page.layout import build_page, plugins_html
from ui.page.widgets import text
from ui.service.page_settings import FILE_NAME, PageConfig, PageSettings

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return current.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


# Starting.


def test_the_page_builds_and_names_failed_plugins(
    pipeline: FakePipeline, registry: Registry, tmp_path: Path
) -> None:
    broken = PluginStatus("broken", "broken", "broken-pack", "1", False, error="ImportError: no <thing>")
    full = Registry(registry.samplers, registry.schedules, [*registry.plugins, broken])
    jobs = jobs_of(pipeline, tmp_path)
    assert isinstance(in_blocks(lambda: build_page(jobs, full)), gr.Blocks)
    header = plugins_html(full)
    assert "1 plugin failed" in header
    assert "no &lt;thing&gt;" in header


def built(pipeline: FakePipeline, registry: Registry, folder: Path) -> gr.Blocks:
    async def build() -> gr.Blocks:  # inside a running event loop: see `in_blocks`
        return build_page(jobs_of(pipeline, folder), registry)

    return asyncio.run(build())


def test_events_tell_few_controls_of_their_progress(
    pipeline: FakePipeline, registry: Registry, tmp_path: Path
) -> None:
    """The browser tells every control that any event's progress shows on of each stage of every event."""
    events = built(pipeline, registry, tmp_path).get_config_file()["dependencies"]
    told = {
        control
        for event in events
        for control in (event["outputs"] if event["show_progress_on"] is None else event["show_progress_on"])
    }
    assert len({control for event in events for control in event["outputs"]}) > 150
    assert len(told) < 50


def test_what_follows_a_run_is_begun_though_another_seems_under_way(
    pipeline: FakePipeline, registry: Registry, tmp_path: Path
) -> None:
    """A browser begins no event that it believes to be under way, but for those of this mode."""
    page = built(pipeline, registry, tmp_path)
    modes = [
        (event.name, event.trigger_mode)
        for event in page.fns.values()
        if (event.name == "on_watch" and "player" in [one.elem_id for one in event.outputs])
        or "tick" in [name for _, name in event.targets]
    ]
    assert len(modes) > 5
    assert set(modes) == {("on_watch", "multiple"), ("told", "multiple")}


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < app.free_port("127.0.0.1", port) <= port + app.PORTS_TRIED


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(UserError, match="between 1 and 65535"):
        app.free_port("127.0.0.1", port)


def test_what_the_terminal_says() -> None:
    def said(port: int = 7860, link: str | None = None, asks: bool = False, **page: Any) -> list[str]:
        return app.lines(PageConfig(page=PageSettings(**page)), port, link, asks=asks)

    assert said() == ["LatentCanvas is at http://127.0.0.1:7860 (Ctrl+C stops it)"]
    assert said(7862)[0] == "Port 7860 is taken; using port 7862."
    assert any("No share link" in line for line in said(share=True))
    assert not any("No share link" in line for line in said(share=True, link="https://x.gradio.live"))
    assert any(line.startswith("Warning") for line in said(share=True))
    assert any(line.startswith("Warning") for line in said(listen=True))
    assert not any("Warning" in line for line in said(share=True, listen=True, asks=True))


def test_the_command_line_wins_over_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(FILE_NAME).write_text('[page]\nport = 8000\nmodel = "a"\nshare = true\n')
    there = app.PageOptions().settings().current.page
    assert (there.port, there.model, there.share, there.outputs) == (8000, "a", True, "outputs")
    said = app.PageOptions(port=9000, share=False, outputs=Path("o")).settings().current.page
    assert (said.port, said.model, said.share, said.outputs) == (9000, "a", False, "o")
    with pytest.raises(UserError, match="no such file"):
        app.PageOptions(config=Path("none.toml")).settings()


def test_mcp_without_its_package_or_with_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package mcp, .* pip install"):
        app.serve(app.PageOptions(mcp=True))
    monkeypatch.setattr(app, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="does not support passwords"):
        app.serve(app.PageOptions(mcp=True, auth="a:b"))


def test_unwritable_outputs_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError):
        app.serve(app.PageOptions(outputs=file))


def test_the_page_is_served_without_torch_and_by_one_application(tmp_path: Path) -> None:
    code = """
import os, sys
from ui import app
app._start = lambda jobs: None
early, made, really = [], [], app.import_gradio
def importing():
    early.append("gradio" not in sys.modules)
    really()
    from gradio.routes import App
    create = App.create_app
    App.create_app = staticmethod(lambda *a, **k: made.append(create(*a, **k)) or made[-1])
app.import_gradio = importing
def served(page):
    print("torch" in sys.modules, page.is_running, early, len(made), flush=True)
    os._exit(0)
app._until_interrupted = served
app.serve(app.PageOptions())
"""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.splitlines()[-1] == "False True [True] 1", done.stderr


def test_inside_no_stubs_none_are_written(tmp_path: Path) -> None:
    path = tmp_path / "component_of_a_test.py"
    path.write_text("import gradio as gr\nclass Mine(gr.HTML):\n    EVENTS = [*gr.HTML.EVENTS]\n")
    getfile, stubs = inspect.getfile, path.with_suffix(".pyi")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        with app.no_stubs():
            spec.loader.exec_module(module)
        assert not stubs.exists()
        assert module.Mine("a word").value == "a word"
        assert inspect.getfile is getfile
        spec.loader.exec_module(module)
        assert stubs.exists()  # so it is what Gradio does otherwise
    finally:
        del sys.modules[path.stem]


def test_inside_no_application_none_is_made() -> None:
    async def build() -> tuple[gr.Blocks, gr.Blocks]:
        with app.no_application(), gr.Blocks() as without:
            pass
        with gr.Blocks() as page:
            pass
        return without, page

    without, page = asyncio.run(build())
    assert without.app is None
    assert page.app is not None  # so it is what Gradio does otherwise


# Words.


def test_sentences_are_escaped_and_start_with_a_capital() -> None:
    assert text.error("") == ""
    assert text.error("<x> is bad") == '<p class="lc-error" role="alert">&lt;x&gt; is bad</p>'
    assert text.error("width: <x>").count("Width: &lt;x&gt;") == 1


@pytest.mark.parametrize("root_path", ["lc", "/lc/", "/a b", "https://", "ftp://a/lc", "/lc?x=1"])
def test_a_root_path_is_a_path_or_an_address(root_path: str) -> None:
    with pytest.raises(UserError, match=r"--root-path .*: write a path such as /lc"):
        app.check_root_path(root_path)
    for good in ("", "/lc", "/a/b", "https://example.com", "http://example.com:8080/lc"):
        app.check_root_path(good)
