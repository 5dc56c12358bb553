"""The page without a browser: the form, runs and what is kept of them, messages, start-up."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import pytest
from PIL import Image

from core import plugins
from core.errors import UserError
from core.images import read_recipe
from core.options import Option
from core.registry import PluginStatus, Registry
from core.request import Request
from tests.ui.fakes import FakePipeline, FakeRun
from ui import app
from ui.model import ModelThread
from ui.page import build_page, first_defaults, header_html
from ui.session import KeptRun, LiveRun, Session
from ui.tabs.txt2img import Txt2img
from ui.widgets import player, sampler_controls, text

PROMPT = "a red circle on a blue background"
T = TypeVar("T")


def in_blocks(build: Callable[[], T]) -> T:
    """Make components inside a running event loop: without one, Gradio makes two that it never closes."""

    async def inside() -> T:
        with gr.Blocks():
            return build()

    return asyncio.run(inside())


@pytest.fixture(scope="module")
def registry() -> Registry:
    return plugins.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


def loaded(pipeline: FakePipeline) -> ModelThread:
    model = ModelThread(lambda: pipeline)
    model.start()
    assert model.wait(60)
    return model


@pytest.fixture
def tab(pipeline: FakePipeline, registry: Registry, tmp_path: Path) -> Txt2img:
    model = loaded(pipeline)
    return in_blocks(lambda: Txt2img(model, registry, tmp_path / "outputs", first_defaults(registry)))


def values(tab: Txt2img, **changed: Any) -> list[Any]:
    """What the form sends as it is first shown, with some controls changed."""
    named = {
        "prompt": tab.form.prompt,
        "steps": tab.form.steps,
        "width": tab.form.width,
        "batch": tab.form.batch,
        "seed": tab.form.seed,
        "sampler": tab.form.method.sampler,
        "cfg_scale": tab.form.cfg_scale,
    }
    by_control = {named[name]._id: value for name, value in changed.items()}
    return [by_control.get(control._id, getattr(control, "value", None)) for control in tab.form.controls()]


def run(tab: Txt2img, session: Session, **changed: Any) -> list[tuple[Any, Any, Any]]:
    """Generate, and everything that the page is sent."""
    notice = tab.on_generate(session, *values(tab, **changed))[0]
    assert notice == ""
    return list(tab.on_run(session))


# The form.


def test_the_form_as_first_shown_is_a_good_request(tab: Txt2img) -> None:
    request = tab.form.read(values(tab, prompt=PROMPT))
    assert request == Request(
        prompt=PROMPT,
        sampler="ddim",
        schedule="leading",
        steps=20,
        cfg_scale=5.0,
        width=128,
        height=128,
        seed=None,
        options={"eta": 0.0},
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 130}, "130"),
        ({"seed": "abc"}, "abc"),
        ({"steps": 0}, "steps"),
        ({"steps": None}, "steps: is empty"),
        ({"batch": 0}, "batch"),
    ],
)
def test_a_bad_form_gets_one_sentence_and_starts_nothing(
    tab: Txt2img, changed: dict[str, Any], said: str
) -> None:
    session = Session()
    notice = tab.on_generate(session, *values(tab, **changed))[0]
    assert 'role="alert"' in notice
    assert said in notice.replace("&#x27;", "'").lower()
    assert session.waiting is None
    assert len(list(tab.on_run(session))) == 1


def test_only_the_chosen_samplers_options_are_sent(tab: Txt2img) -> None:
    assert tab.form.read(values(tab, sampler="ddpm")).options == {}


def test_defaults_of_the_model_fill_what_nobody_changed(tab: Txt2img, pipeline: FakePipeline) -> None:
    pipeline.defaults = replace(pipeline.defaults, steps=12, cfg_scale=3.0)
    first = tab.form.first
    shown = [first.sampler, first.schedule, first.steps, 9.5, first.width, first.height]
    updates = tab.form.on_defaults(*shown)
    assert updates[2] == 12
    assert updates[3] == gr.skip()  # changed by hand: it stays


def test_the_line_of_tokens_names_unknown_words(tab: Txt2img) -> None:
    assert tab.form.on_prompt("a red circle") == '<p class="lc-quiet">5 of 77 tokens</p>'
    line = tab.form.on_prompt("a <b>dragon")
    assert "<b>&lt;b&gt;dragon</b>" in line


def test_cost_is_in_model_evaluations(registry: Registry) -> None:
    assert sampler_controls.cost(registry, "ddim", 20) == "20 steps = 20 model evaluations"
    assert sampler_controls.cost(registry, "ddim", 1) == "1 step = 1 model evaluation"
    heun = replace(registry.sampler("ddim"), evals=2)
    assert sampler_controls.cost(Registry({"heun": heun}), "heun", 20) == "20 steps = 40 model evaluations"
    assert sampler_controls.cost(registry, "unknown", 20) == ""


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        (Option("eta", "float", 1.0, 0.0, 1.0), gr.Slider),
        (Option("order", "int", 2, 1, 3), gr.Slider),
        (Option("churn", "float", 0.0), gr.Number),
        (Option("final", "bool", True), gr.Checkbox),
        (Option("variant", "choice", "bh1", choices=("bh1", "bh2")), gr.Dropdown),
    ],
)
def test_every_kind_of_option_becomes_a_control(option: Option, kind: type) -> None:
    control = in_blocks(lambda: sampler_controls.option_control(option, "mine"))
    assert type(control) is kind
    assert getattr(control, "value") == option.default  # noqa: B009  (controls share no typed base with a value)


def test_a_samplers_options_are_read_by_its_name(registry: Registry) -> None:
    options = (Option("a", "float", 0.5, 0, 1), Option("b", "bool", False))
    mine = replace(registry.sampler("ddim"), name="pack/mine", plugin="pack", options=options)
    full = Registry({**registry.samplers, "pack/mine": mine}, registry.schedules, registry.plugins)
    controls = in_blocks(lambda: sampler_controls.sampler_controls(full, "ddim", "leading"))
    assert controls.read("pack/mine", [0.0, 0.25, True]) == {"a": 0.25, "b": True}
    assert ("DDIM", "ddim") in sampler_controls.sampler_choices(full)
    assert any("plugin pack" in label for label, _ in sampler_controls.sampler_choices(full))
    assert [group.visible for group in controls.groups.values()] == [True, False]


# A run.


def test_a_run_is_shown_live_and_then_whole(tab: Txt2img, pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.delay = 0.06
    began = time.monotonic()
    sent = run(tab, Session(), prompt=PROMPT, seed="7")
    seconds = time.monotonic() - began
    live = [message for message, _, _ in sent[:-1]]
    assert 2 <= len(live) <= seconds * 4 + 1
    assert all(message["phase"] == "live" for message in live)
    assert len({message["clean"][0] for message in live}) == len(live)

    done, report, notice = sent[-1]
    assert done["phase"] == "done"
    assert len(done["frames"]["0/clean"]) == len(done["steps"]) == 20
    assert done["steps"][-1] == {"sigma": 0.0, "evals": 20}
    assert done["views"] == ["clean", "noisy", "prompted", "unprompted", "difference"]
    assert notice == ""
    assert "20 evaluations" in report
    assert "000001.png" in report
    assert "7" in report

    path = tmp_path / "outputs" / "000001.png"
    assert read_recipe(path).settings.seed == 7
    assert base64.b64decode(done["finals"][0].split(",")[1]) == path.read_bytes()


def test_a_batch_shows_each_picture_when_asked(tab: Txt2img, pipeline: FakePipeline, tmp_path: Path) -> None:
    session = Session()
    done = run(tab, session, batch=3, seed="5")[-1][0]
    assert done["names"] == ["000001.png", "000002.png", "000003.png"]
    assert len(done["thumbnails"]) == 3
    assert [bool(final) for final in done["finals"]] == [True, False, False]
    answer = player.frames_answer(session.run(done["run"]), 2, "clean", pipeline)
    saved = (tmp_path / "outputs" / "000003.png").read_bytes()
    assert base64.b64decode(answer["final"].split(",")[1]) == saved
    assert read_recipe(tmp_path / "outputs" / "000003.png").settings.seed == 7


@pytest.mark.parametrize("view", ["clean", "noisy", "prompted", "unprompted", "difference"])
def test_every_view_of_every_step_is_a_small_jpeg(tab: Txt2img, pipeline: FakePipeline, view: str) -> None:
    session = Session()
    kept = session.run(run(tab, session, steps=3)[-1][0]["run"])
    frames = player.frames(kept, 0, view, pipeline)
    assert len(frames) == 3
    image = Image.open(io.BytesIO(base64.b64decode(frames[0].split(",")[1])))
    assert image.format == "JPEG"
    assert max(image.size) <= player.MAX_PREVIEW


def test_without_guidance_there_is_no_unprompted_view(tab: Txt2img) -> None:
    assert run(tab, Session(), cfg_scale=1, steps=2)[-1][0]["views"] == ["clean", "noisy"]


def test_any_step_decodes_in_full(tab: Txt2img) -> None:
    session = Session()
    kept = session.run(run(tab, session, steps=4)[-1][0]["run"])
    answer = player.decode_answer(kept, 0, 2)
    assert answer["step"] == 2
    image = Image.open(io.BytesIO(base64.b64decode(answer["uri"].split(",")[1])))
    assert image.size == (128, 128)


def test_stop_keeps_what_was_made(tab: Txt2img, pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.delay = 0.1
    session = Session()
    tab.on_generate(session, *values(tab, steps=100))
    sent = []
    for message in tab.on_run(session):
        sent.append(message)
        session.stop()
    done, report, notice = sent[-1]
    assert done["stopped"]
    assert 1 <= len(done["steps"]) < 20
    assert done["finals"][0]
    assert "stopped after step" in report
    assert notice == ""
    assert not (tmp_path / "outputs").exists()


def test_stopped_in_line_makes_nothing(tab: Txt2img) -> None:
    session = Session()
    tab.on_generate(session, *values(tab))
    session.stop()
    message, _, notice = list(tab.on_run(session))[-1]
    assert message == {"phase": "back"}
    assert "Stopped before the first step" in notice


def test_a_page_that_goes_away_stops_its_run(tab: Txt2img, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    session = Session()
    tab.on_generate(session, *values(tab, steps=150))
    sending = tab.on_run(session)
    next(sending)
    assert session.live is not None
    live = session.live
    assert isinstance(sending, Iterator)
    getattr(sending, "close")()  # noqa: B009  (an Iterator to the caller, a generator here)
    assert live.ended.wait(10)
    assert live.stopped


def test_outputs_that_cannot_be_written_lose_no_picture(tab: Txt2img, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where a folder should be")
    done, report, notice = run(tab, Session())[-1]
    assert done["finals"][0]
    assert "The picture is not saved" in notice
    assert "not saved" in report


def test_a_sampler_that_breaks_gives_a_sentence(
    tab: Txt2img, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: FakeRun) -> Iterator[Any]:
        yield from ()
        raise ValueError("no such thing")

    monkeypatch.setattr(FakeRun, "__iter__", broken)
    message, _, notice = run(tab, Session())[-1]
    assert message == {"phase": "back"}
    assert "The run failed at step 1: ValueError: no such thing" in notice


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


def test_generate_without_a_model_says_why(registry: Registry, tmp_path: Path) -> None:
    def load() -> Any:
        raise UserError("Model 'x' is not there.")

    model = ModelThread(load)
    tab = in_blocks(lambda: Txt2img(model, registry, tmp_path, first_defaults(registry)))
    session = Session()
    message = tab.on_generate(session, *values(tab))[1]
    assert message == {"phase": "wait", "text": "Loading the model"}
    model.start()
    back, _, notice = list(tab.on_run(session))[-1]
    assert back == {"phase": "back"}
    assert "is not there" in notice


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
