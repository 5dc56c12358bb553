"""The workbench without a browser: runs asked for, watched to their end, kept and opened."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from core.errors import UserError
from core.images.source_images import Inputs
from core.plugins import current
from core.recipes.png import read_recipe
from core.sampling.registry import Registry
from tests.core.pictures import box_mask, noise
from tests.ui.benches import ANN, PROMPT, SMALL, built, values
from tests.ui.fakes import FakePipeline, FakeTokens, jobs_of
from ui.page.live_view import Following, Watcher
from ui.page.widgets import sampler_controls
from ui.page.widgets.examples import added
from ui.page.widgets.form import DEFAULTED
from ui.page.workbench import Workbench


@pytest.fixture(scope="module")
def registry() -> Registry:
    return current.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


@pytest.fixture
def bench(pipeline: FakePipeline, registry: Registry, tmp_path: Path) -> Workbench:
    jobs = jobs_of(pipeline, tmp_path / "outputs")
    return built(jobs, registry, tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 130}, "130"),
        ({"seed": "abc"}, "abc"),
        ({"steps": 0}, "steps"),
        ({"steps": None}, "steps: enter a number"),
        ({"batch": 0}, "batch"),
        ({"cfg_from": 0.8, "cfg_to": 0.2}, "must rise"),
        ({"sigmas": "1, 2"}, "each must be below"),
    ],
)
def test_a_bad_form_gets_one_sentence_and_starts_nothing(
    bench: Workbench, changed: dict[str, Any], said: str
) -> None:
    following = Following()
    notice = bench.on_generate("txt2img", following, ANN, None, {}, *values(bench, **changed))[0]
    assert 'role="alert"' in notice
    assert said in notice.replace("&#x27;", "'").lower()
    assert not following.jobs
    assert bench.jobs.listing(ANN) == []


def test_defaults_of_the_model_fill_what_nobody_changed(bench: Workbench, pipeline: FakePipeline) -> None:
    pipeline.model.defaults = replace(pipeline.defaults, steps=12, cfg_scale=3.0)
    first = bench.form.first
    shown = [first.sampler, first.schedule, first.steps, 9.5, first.width, first.height]
    updates = bench.on_defaults(Following(), *shown)
    assert updates[2] == 12
    assert updates[3] == gr.skip()  # changed by hand: it stays
    assert bench.on_defaults(Following(restored=True), *shown) == [gr.skip()] * 6


def test_a_model_that_is_taken_up_makes_the_form_its_own(bench: Workbench, pipeline: FakePipeline) -> None:
    size: dict[str, Any] = {"width": 28, "height": 28, "multiple": 1, "smallest": 8}
    pipeline.model.defaults = replace(pipeline.defaults, steps=12, cfg_scale=1.0, **size)
    bench.jobs.switch_model(ANN, "another")
    updates = dict(zip(DEFAULTED, asyncio.run(bench.on_used(ANN)), strict=True))
    assert bench.engine.name == "another"  # it waited for that
    assert updates["steps"].value == 12
    assert (updates["width"], updates["height"]) == (28, 28)
    assert updates["sampler"] == "ddim"


# Runs.


async def everything(sights: AsyncIterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [sight async for sight in sights]


def run(bench: Workbench, following: Following | None = None, **changed: Any) -> list[tuple[Any, ...]]:
    """Generate, and everything that the page is told: (player, notice, run, queue, count, skip, stop)."""
    following = following or Following()
    assert bench.on_generate("txt2img", following, ANN, None, {}, *values(bench, **changed))[0] == ""
    return asyncio.run(everything(bench.on_watch(following, ANN)))


def ended(told: list[tuple[Any, ...]]) -> list[Any]:
    """The player's messages of runs that ended, each once: they are told again with what follows."""
    messages = (one[0] for one in told if one[0].get("phase") == "done")
    return list({message["run"]: message for message in messages}.values())


def test_a_run_is_watched_to_its_end_and_kept(bench: Workbench, tmp_path: Path) -> None:
    following = Following()
    told = run(bench, following, **SMALL, seed="7")
    [message] = ended(told)
    [run_id] = [one[2] for one in told if isinstance(one[2], str)]
    assert message["run"] == run_id
    assert len(message["steps"]) == 3
    assert bench.on_reuse(ANN, run_id) == "7"
    assert bench.on_reuse(ANN, "") == gr.skip()
    assert read_recipe(tmp_path / "outputs" / "000001.png").settings.seed == 7
    queue, count, skip, stop = told[-1][3:7]
    assert (queue, count, skip.interactive, stop.interactive) == ([], "queue 0", False, False)


def test_several_runs_are_shown_one_after_the_other(bench: Workbench) -> None:
    told = run(bench, None, **SMALL, runs=2, seed="5")
    assert [message["seed"] for message in ended(told)] == [5, 6]


def test_the_end_is_told_again(bench: Workbench) -> None:
    """A page that is still opening may lose a value."""
    *_, one, last = run(bench, None, **SMALL)
    assert one[0] == last[0]
    assert last[0]["phase"] == "done"


def test_a_page_has_one_watcher_at_a_time(bench: Workbench) -> None:
    following = Following(watched=True)
    assert run(bench, following, **SMALL) == []


def test_a_reloaded_page_finds_what_runs(bench: Workbench, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    bench.on_generate("txt2img", Following(), ANN, None, {}, *values(bench, **{**SMALL, "steps": 8}))
    told = asyncio.run(everything(bench.on_watch(Following(), ANN)))
    assert {"live", "done"} <= {one[0].get("phase") for one in told}
    assert (
        asyncio.run(everything(bench.on_watch(Following(), "someone else, with another token")))[0][0]
        == gr.skip()
    )


def test_what_ended_while_the_page_was_reloaded_is_shown(bench: Workbench) -> None:
    bench.on_generate("txt2img", Following(), ANN, None, {}, *values(bench, **SMALL, seed="4"))
    job = bench.jobs.live(ANN)
    assert job is not None
    assert job.ended.wait(60)
    until = time.monotonic() + 60
    while bench.jobs.live(ANN) is not None:
        assert time.monotonic() < until
    request: Any = SimpleNamespace(query_params={})
    bench.tabs = gr.Tabs()
    shown = bench.on_link(ANN, "an older run", Following(), request)[0]
    assert shown["run"] == job.run_id
    assert bench.on_link("someone else, with another token", "", Following(), request)[0] == gr.skip()


def test_a_run_that_is_stopped_is_kept_and_can_be_skipped(bench: Workbench, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    following = Following()
    bench.on_generate(
        "txt2img", following, ANN, None, {}, *values(bench, **{**SMALL, "steps": 100, "runs": 2})
    )

    async def watch() -> list[Any]:
        seen = []
        async for one in bench.on_watch(following, ANN):
            seen.append(one)
            if one[0].get("phase") == "live":
                (bench.on_skip if len(bench.jobs.listing(ANN)) == 2 else bench.on_stop)(ANN)
        return seen

    done = ended(asyncio.run(watch()))
    assert len(done) == 2
    assert all(message["stopped"] and 1 <= len(message["steps"]) < 100 for message in done)


def test_opening_a_run_fills_the_form(bench: Workbench) -> None:
    told = run(bench, None, **SMALL, seed="3", sampler="euler", cfg_scale=50)
    run_id = next(one[2] for one in told if isinstance(one[2], str))
    message, tabs, *rest = bench.opened_run(ANN, run_id, 2)
    assert (message["run"], message["at"], tabs.selected) == (run_id, 2, "txt2img")
    named = dict(zip(bench.asking.fields, rest, strict=False))
    assert (named["prompt"], named["sampler"], named["seed"]) == (PROMPT, "euler", "3")
    assert named["cfg_scale"].maximum == 50
    with pytest.raises(UserError):
        bench.opened_run(ANN, "no-such-run")


@pytest.mark.parametrize("masked", [False, True])
def test_a_run_brings_back_what_it_started_from(bench: Workbench, tmp_path: Path, masked: bool) -> None:
    tab = "inpaint" if masked else "img2img"
    noise((64, 64)).save(tmp_path / "in.png")
    box_mask((64, 64), (8, 8, 40, 40)).save(tmp_path / "mask.png")
    image, mask = str(tmp_path / "in.png"), str(tmp_path / "mask.png")
    files = [{"background": Image.open(image), "layers": []}, mask] if masked else [image]
    following = Following()
    asked = [*values(bench, **SMALL), *files]
    assert bench.on_generate(tab, following, ANN, None, {}, *asked)[0] == ""
    told = asyncio.run(everything(bench.on_watch(following, ANN)))
    run_id = next(one[2] for one in told if isinstance(one[2], str))

    bench.tabs = gr.Tabs()
    opened = dict(zip(bench.run_outputs(), bench.opened_run(ANN, run_id), strict=True))
    assert opened[bench.tabs].selected == tab
    assert opened[bench.rest] == {}
    painted, drawn = opened[bench.pictures.editor], opened[bench.pictures.mask]
    picture = painted["background"] if masked else opened[bench.pictures.image]
    wanted, found = (
        Inputs.read(image, mask if masked else None),
        Inputs.read(picture, drawn if masked else None),
    )
    assert wanted is not None
    assert found is not None
    assert found.given == wanted.given

    shutil.rmtree(tmp_path / "outputs" / "inputs")
    opened = dict(zip(bench.run_outputs(), bench.opened_run(ANN, run_id), strict=True))
    assert opened[bench.pictures.image] == gr.skip()
    assert opened[bench.rest]["image_sha256"] == wanted.given.image_sha256
    assert "needs the same" in opened[bench.rest_words]


@pytest.mark.parametrize("tab", ["img2img", "inpaint"])
def test_a_picture_goes_on_as_the_one_to_start_from(bench: Workbench, tmp_path: Path, tab: str) -> None:
    told = run(bench, None, **SMALL, batch=2)
    run_id = next(one[2] for one in told if isinstance(one[2], str))
    tabs, notice, image, editor, _ = bench.on_send(ANN, _event(run=run_id, image=1, to=tab))
    sent = image if tab == "img2img" else editor["background"]
    assert (tabs.selected, notice) == (tab, "")
    assert Path(sent).read_bytes() == (tmp_path / "outputs" / "000002.png").read_bytes()
    _, notice, *files = bench.on_send(ANN, _event(run="no-such-run", image=0, to=tab))
    assert 'role="alert"' in notice
    assert files == [gr.skip()] * 3


def _event(**said: Any) -> Any:
    return SimpleNamespace(**said)


def test_a_model_that_cannot_be_had_leaves_the_earlier_one(bench: Workbench) -> None:
    def fail(name: str) -> Any:
        raise UserError(f"Model {name!r} is not there")

    bench.engine.load = fail
    following = Following()
    assert bench.on_model(following, ANN, "other")[0] == ""
    told = asyncio.run(everything(bench.on_watch(following, ANN)))
    assert any(isinstance(one[1], str) and "is not there" in one[1] for one in told)
    assert bench.engine.ready
    [back] = [one[-1]["value"] for one in told if one[-1] != gr.skip()]
    assert back == bench.engine.name  # the list of models shows it again


def test_a_run_has_the_model_that_the_page_names_whatever_others_load(
    bench: Workbench, pipeline: FakePipeline
) -> None:
    asked: list[str] = []

    def load(name: str) -> FakePipeline:
        asked.append(name)
        return pipeline

    bench.engine.load, shown = load, bench.engine.name
    bench.on_model(Following(), "bob-with-another-token", "other")
    bench.on_generate("txt2img", Following(), ANN, shown, {}, *values(bench, **SMALL))
    asyncio.run(everything(bench.on_watch(Following(), ANN)))
    assert asked == ["other", shown]
    assert bench.engine.name == shown


def test_the_watcher_says_how_many_are_before(bench: Workbench, pipeline: FakePipeline) -> None:
    pipeline.delay = 0.05
    others = Following()
    bench.on_generate(
        "txt2img", others, "bob-with-another-token", None, {}, *values(bench, **{**SMALL, "steps": 12})
    )
    told = run(bench, None, **SMALL)
    waits = [one[0]["text"] for one in told if one[0].get("phase") == "wait"]
    assert "Queued: next to run." in waits
    queue = next(one[3] for one in told if one[3])
    assert queue[0]["title"] == "someone else's run"
    assert queue[0]["id"] == ""
    assert isinstance(bench.watcher, Watcher)


# Small things.


def test_a_plugins_schedule_is_marked() -> None:
    ours = SimpleNamespace(name="karras", title="Karras", plugin="latentcanvas")
    theirs = SimpleNamespace(name="mine", title="", plugin="someones")
    known: Any = SimpleNamespace(
        plugins=[SimpleNamespace(builtin=True, distribution="latentcanvas")],
        schedules={"karras": ours, "mine": theirs},
    )
    choices = sampler_controls.schedule_choices(known)
    assert choices == [("Karras", "karras"), ("mine (plugin someones)", "mine")]


def test_the_line_of_tokens_names_unknown_words(bench: Workbench) -> None:
    assert bench.form.on_prompt("a red circle") == '<p class="lc-quiet">5 of 77 tokens</p>'
    assert "<b>&lt;b&gt;dragon</b>" in bench.form.on_prompt("a <b>dragon")


def test_unknown_words_come_with_the_nearest_known_ones(bench: Workbench, monkeypatch: Any) -> None:
    count = FakeTokens(4, 77, ("coyote",), nearest={"coyote": ("fox", "<dog>")})
    monkeypatch.setattr(bench.engine.pipeline, "tokens", lambda prompt: count)
    assert "Unknown to this model: <b>coyote</b> (try fox, &lt;dog&gt;)" in bench.form.on_prompt("a coyote")


def test_the_images_of_subjects_come_when_they_are_asked_for(bench: Workbench) -> None:
    _, closed, _ = bench.on_examples()
    assert (closed["phrases"], closed["sheet"]) == (["a red circle", "a star", "on a hill"], "")
    opened = bench.form.on_subjects()
    assert opened == {**closed, "sheet": opened["sheet"]}
    assert opened["sheet"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("prompt", "phrase", "both"),
    [
        ("", "a fox", "a fox"),
        ("an owl ", "the moon", "an owl and the moon"),
        ("a fox", "in space", "a fox in space"),
    ],
)
def test_subjects_are_added_to_the_prompt(prompt: str, phrase: str, both: str) -> None:
    assert added(prompt, phrase) == both
