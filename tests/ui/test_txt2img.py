"""The txt2img tab without a browser: its form, and runs from the request to the last message."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from core import plugins
from core.errors import UserError
from core.images import read_recipe
from core.options import Option
from core.registry import Registry
from core.request import Request
from tests.ui.fakes import FakePipeline, FakeTokens, in_blocks, jobs_of
from ui.engine import Engine
from ui.jobs import Jobs
from ui.keeping import Runs
from ui.page import first_defaults
from ui.session import Session
from ui.tabs.txt2img import Txt2img
from ui.widgets import player, sampler_controls, text

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return plugins.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


@pytest.fixture
def tab(pipeline: FakePipeline, registry: Registry, tmp_path: Path) -> Txt2img:
    jobs = jobs_of(pipeline, tmp_path / "outputs")
    return in_blocks(lambda: Txt2img(jobs, registry, first_defaults(registry)))


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
    assert session.job_id is None
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


def test_the_line_of_tokens_says_how_many_chunks_run() -> None:
    assert (
        text.tokens(FakeTokens(63, 46, (), chunks=2)) == '<p class="lc-quiet">63 tokens in 2 chunks of 46</p>'
    )


def test_the_line_of_tokens_says_what_cannot_be_read(tab: Txt2img, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(prompt: str) -> None:
        raise UserError(f"the weight 1000 of {prompt} is too large")

    monkeypatch.setattr(tab.engine.pipeline, "tokens", refuse)
    assert "The weight 1000 of x is too large" in tab.form.on_prompt("x")


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
    ddim = registry.sampler("ddim")
    mine = replace(ddim, name="pack/mine", plugin="pack", options=options)
    full = Registry({"ddim": ddim, "pack/mine": mine}, registry.schedules, registry.plugins)
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
    answer = player.frames_answer(tab.runs.open(session.owner, done["run"]), 2, "clean")
    saved = (tmp_path / "outputs" / "000003.png").read_bytes()
    assert base64.b64decode(answer["final"].split(",")[1]) == saved
    assert read_recipe(tmp_path / "outputs" / "000003.png").settings.seed == 7


@pytest.mark.parametrize("view", ["clean", "noisy", "prompted", "unprompted", "difference"])
def test_every_view_of_every_step_is_a_small_jpeg(tab: Txt2img, pipeline: FakePipeline, view: str) -> None:
    session = Session()
    kept = tab.runs.open(session.owner, run(tab, session, steps=3)[-1][0]["run"])
    frames = player.frames(kept, 0, view)
    assert len(frames) == 3
    image = Image.open(io.BytesIO(base64.b64decode(frames[0].split(",")[1])))
    assert image.format == "JPEG"
    assert max(image.size) <= player.MAX_PREVIEW


def test_without_guidance_there_is_no_unprompted_view(tab: Txt2img) -> None:
    assert run(tab, Session(), cfg_scale=1, steps=2)[-1][0]["views"] == ["clean", "noisy"]


def test_any_step_decodes_in_full(tab: Txt2img) -> None:
    session = Session()
    kept = tab.runs.open(session.owner, run(tab, session, steps=4)[-1][0]["run"])
    answer = player.decode_answer(kept, 0, 2, tab.engine.pipeline)
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
        tab.on_stop(session)
    done, report, notice = sent[-1]
    assert done["stopped"]
    assert 1 <= len(done["steps"]) < 20
    assert done["finals"][0]
    assert "stopped after step" in report
    assert notice == ""
    assert len(list((tmp_path / "outputs").glob("*.png"))) == 1


def test_stopped_in_line_makes_nothing(tab: Txt2img, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.1
    tab.jobs.submit_run("another", Request(steps=5))
    session = Session()
    tab.on_generate(session, *values(tab))
    tab.on_stop(session)
    message, _, notice = list(tab.on_run(session))[-1]
    assert message == {"phase": "back"}
    assert "Stopped before the first step" in notice


def test_a_run_goes_on_without_its_page(tab: Txt2img, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    session = Session()
    tab.on_generate(session, *values(tab, steps=20))
    sending = tab.on_run(session)
    next(sending)
    job = tab.jobs.live(session.owner)
    assert job is not None
    assert isinstance(sending, Iterator)
    getattr(sending, "close")()  # noqa: B009  (an Iterator to the caller, a generator here)
    assert job.ended.wait(20)
    assert job.state == "done"


def test_outputs_that_cannot_be_written_lose_no_picture(tab: Txt2img, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where a folder should be")
    done, report, notice = run(tab, Session())[-1]
    assert done["finals"][0]
    assert "The picture is not saved" in notice
    assert "not saved" in report


def test_a_sampler_that_breaks_gives_a_sentence(
    tab: Txt2img, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(pipeline.unet, "forward", broken)
    message, _, notice = run(tab, Session())[-1]
    assert message == {"phase": "back"}
    assert "The run failed at step 1: ValueError: no such thing" in notice


def test_generate_without_a_model_says_why(registry: Registry, tmp_path: Path) -> None:
    def load(name: str) -> Any:
        raise UserError("Model 'x' is not there.")

    jobs = Jobs(Engine(load), Runs(tmp_path))
    tab = in_blocks(lambda: Txt2img(jobs, registry, first_defaults(registry)))
    session = Session()
    message = tab.on_generate(session, *values(tab))[1]
    assert message == {"phase": "wait", "text": "Loading the model"}
    tab.engine.start()
    back, _, notice = list(tab.on_run(session))[-1]
    assert back == {"phase": "back"}
    assert "is not there" in notice
