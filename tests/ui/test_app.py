"""Around the tabs: what a session keeps, the model's thread, and how the page starts."""

from __future__ import annotations

import copy
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core import plugins
from core.errors import UserError
from core.registry import PluginStatus, Registry
from core.request import Request
from tests.ui.fakes import FakePipeline, in_blocks, loaded
from ui import app
from ui.model import ModelThread
from ui.page import build_page, header_html
from ui.session import KeptRun, LiveRun, Session
from ui.widgets import text


@pytest.fixture(scope="module")
def registry() -> Registry:
    return plugins.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


# What a session keeps.


def kept_run(pipeline: FakePipeline) -> KeptRun:
    live = LiveRun(Request(steps=2, seed=1))
    stream = pipeline.stream(live.request)
    live.settings, live.steps = stream.settings, list(stream)
    return KeptRun(live, ["a.png"], [b"png"])


def test_a_session_keeps_its_newest_runs(pipeline: FakePipeline) -> None:
    session = Session(max_runs=2)
    runs = [kept_run(pipeline) for _ in range(3)]
    for one in runs:
        session.keep(one)
    assert session.run(runs[2].id) is runs[2]
    assert session.run(runs[1].id) is runs[1]
    with pytest.raises(UserError, match="no longer in memory"):
        session.run(runs[0].id)


def test_a_session_is_bounded_in_memory_but_keeps_the_newest(pipeline: FakePipeline) -> None:
    session = Session(max_bytes=1)
    runs = [kept_run(pipeline) for _ in range(2)]
    for one in runs:
        session.keep(one)
    assert runs[1].nbytes > 1
    assert session.run(runs[1].id) is runs[1]
    with pytest.raises(UserError):
        session.run(runs[0].id)


def test_each_tab_has_a_session_of_its_own(pipeline: FakePipeline) -> None:
    first = Session()
    one = kept_run(pipeline)
    first.keep(one)
    with pytest.raises(UserError):
        copy.deepcopy(first).run(one.id)
    first.close()
    with pytest.raises(UserError):
        first.run(one.id)


# The model's thread.


def test_a_model_that_cannot_be_loaded_leaves_a_sentence() -> None:
    def load() -> Any:
        raise UserError("Model 'x' is not there: name a model folder, or tiny.")

    model = ModelThread(load)
    model.start()
    assert model.wait(10)
    assert not model.ready
    with pytest.raises(UserError, match="is not there"):
        _ = model.pipeline


def test_the_models_thread_runs_one_thing_at_a_time(pipeline: FakePipeline) -> None:
    model = loaded(pipeline)
    inside, most = 0, 0
    ended = threading.Semaphore(0)

    def job(_: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        ended.release()

    for _ in range(4):
        model.submit(job)
    for _ in range(4):
        assert ended.acquire(timeout=10)
    assert most == 1


# Starting.


def test_the_page_builds_and_names_failed_plugins(
    pipeline: FakePipeline, registry: Registry, tmp_path: Path
) -> None:
    broken = PluginStatus("broken", "broken", "broken-pack", "1", False, error="ImportError: no <thing>")
    full = Registry(registry.samplers, registry.schedules, [*registry.plugins, broken])
    model = loaded(pipeline)
    assert isinstance(in_blocks(lambda: build_page(model, full, tmp_path)), gr.Blocks)
    header = header_html("tiny", full)
    assert "1 plugin failed" in header
    assert "no &lt;thing&gt;" in header


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


def test_auth_is_user_and_password() -> None:
    assert app.parse_auth(None) is None
    assert app.parse_auth("ann:se:cret") == ("ann", "se:cret")
    for bad in ("ann", "ann:", ":secret", ""):
        with pytest.raises(UserError, match="user:password"):
            app.parse_auth(bad)


def test_what_the_terminal_says() -> None:
    plain = app.PageOptions()
    assert app.lines(plain, 7860, None) == ["LatentCanvas is at http://127.0.0.1:7860 (Ctrl+C ends it)"]
    moved = app.lines(plain, 7862, None)
    assert moved[0] == "Port 7860 is taken, so this is on 7862."
    shared = app.lines(replace(plain, share=True), 7860, None)
    assert any("No share link" in line for line in shared)
    assert any(line.startswith("Warning") for line in shared)
    assert not any(
        "Warning" in line for line in app.lines(replace(plain, listen=True, auth="a:b"), 7860, None)
    )
    assert any("Warning" in line for line in app.lines(replace(plain, listen=True), 7860, None))


def test_unwritable_outputs_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError):
        app.serve(app.PageOptions(outputs=file))


@pytest.mark.slow
def test_the_page_is_built_without_torch() -> None:
    code = "import sys, ui.page, ui.app, ui.widgets.theme as t; t.look(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "False", done.stderr


# Words.


def test_sentences_are_escaped_and_start_with_a_capital() -> None:
    assert text.error("") == ""
    assert text.error("<x> is bad") == '<p class="lc-error" role="alert">&lt;x&gt; is bad</p>'
    assert text.error("width: <x>").count("Width: &lt;x&gt;") == 1
