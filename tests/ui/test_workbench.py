"""The workbench without a browser: from the controls to requests and back, runs watched to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import plugins
from core.branching import Branch
from core.errors import UserError
from core.images import read_recipe
from core.options import Option
from core.registry import Registry
from core.request import Request, Settings
from tests.ui.fakes import FakePipeline, FakeTokens, in_blocks, jobs_of
from ui.asking import repeated, rest_of
from ui.page import first_defaults
from ui.styles import Style, Styles
from ui.viewer import Viewer
from ui.watching import Following, Watcher
from ui.widgets import fields, sampler_controls, strength, text
from ui.widgets.pictures import tab_of
from ui.workbench import Workbench

ANN = "ann-has-a-token-of-her-own"
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return plugins.registry()


@pytest.fixture
def pipeline(registry: Registry) -> FakePipeline:
    return FakePipeline(registry)


@pytest.fixture
def bench(pipeline: FakePipeline, registry: Registry, tmp_path: Path) -> Workbench:
    jobs = jobs_of(pipeline, tmp_path / "outputs")
    return built(jobs, registry, tmp_path)


@pytest.fixture(scope="module")
def still(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """One that runs nothing."""
    jobs: Any = SimpleNamespace(
        engine=SimpleNamespace(ready=False, error="", pipeline=None), runs=None, listing=lambda owner: []
    )
    return built(jobs, registry, tmp_path_factory.mktemp("still"))


def built(jobs: Any, registry: Registry, folder: Path) -> Workbench:
    styles = Styles(folder / "styles.json")

    def build() -> Workbench:
        viewer = Viewer(jobs.engine, jobs.runs, jobs)
        return Workbench(jobs, registry, viewer, first_defaults(registry), lambda owner: styles)

    return in_blocks(build)


def values(bench: Workbench, **changed: Any) -> list[Any]:
    """What the controls send as they are first shown, with some of them changed."""
    shown = {name: getattr(control, "value", None) for name, control in bench.asking.fields.items()}
    assert set(changed) <= set(shown)
    return list((shown | changed).values())


def request_of(
    bench: Workbench, tab: str = "txt2img", files: Any = (), rest: Any = None, **changed: Any
) -> Request:
    named = bench.asking.named(*values(bench, **changed))
    return bench.asking.asked(ANN, tab, rest or {}, named, files)[0]


# From the controls to a request.


def test_the_form_as_first_shown_is_a_good_request(still: Workbench) -> None:
    assert request_of(still, prompt=PROMPT) == Request(
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


def test_only_the_chosen_samplers_options_are_sent(still: Workbench) -> None:
    assert request_of(still, sampler="ddpm").options == {}


def test_typed_sigmas_take_the_place_of_the_steps(still: Workbench) -> None:
    request = request_of(still, sigmas="14.6, 3; 1")
    assert (request.sigmas, request.steps) == ((14.6, 3.0, 1.0, 0.0), 3)


def test_styles_are_added_when_the_request_is_made(still: Workbench) -> None:
    still.kept._styles(ANN).save_style(Style("ink", "{prompt}, in ink", "colour"))
    request = request_of(still, prompt="a boat", styles=["ink"])
    assert (request.prompt, request.negative) == ("a boat, in ink", "colour")
    with pytest.raises(UserError, match="there is no style"):
        request_of(still, styles=["gone"])


def test_several_runs_go_on_counting_their_seeds() -> None:
    assert [one.seed for one in repeated(Request(seed=5, batch=2), 3)] == [5, 7, 9]
    assert [one.seed for one in repeated(Request(), 2)] == [None, None]
    for bad in (0, 101, None):
        with pytest.raises(UserError, match="runs"):
            repeated(Request(), bad)


# Pictures.


def picture(size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.effect_noise(size, 40).convert("RGB")


def painted(mark: tuple[int, int, int, int] | None = (10, 10, 40, 40)) -> dict[str, Any]:
    layer = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    if mark is not None:
        layer.paste((255, 0, 0, 255), mark)
    return {"background": picture(), "layers": [layer], "composite": None}


def test_img2img_starts_from_its_picture_at_its_size(still: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    picture().save(path)
    request = request_of(still, "img2img", [str(path)], strength=0.5)
    assert (request.strength, request.width, request.resize) == (0.5, None, "crop")
    request = request_of(still, "img2img", [str(path)], own_size=False, resize="pad")
    assert (request.width, request.height, request.resize) == (128, 128, "pad")
    with pytest.raises(UserError, match="no picture to start from"):
        request_of(still, "img2img", [None])


def test_what_is_painted_is_the_mask(still: Workbench) -> None:
    named = still.asking.named(*values(still, mask_blur=7, area="masked", padding=16, keep_unmasked=True))
    request, inputs = still.asking.asked(ANN, "inpaint", {}, named, [painted(), None])
    assert inputs is not None
    assert inputs.mask is not None
    assert inputs.mask.getbbox() == (10, 10, 40, 40)
    assert (request.mask_blur, request.only_masked, request.keep_unmasked) == (7, 16, True)


def test_a_mask_from_a_file_adds_to_the_painted_one(still: Workbench, tmp_path: Path) -> None:
    mask = Image.new("L", (96, 64), 0)
    mask.paste(255, (60, 20, 80, 50))
    mask.save(tmp_path / "mask.png")
    named = still.asking.named(*values(still))
    for marks, box in ((painted(), (10, 10, 80, 50)), (painted(None), (60, 20, 80, 50))):
        _, inputs = still.asking.asked(ANN, "inpaint", {}, named, [marks, str(tmp_path / "mask.png")])
        assert inputs is not None
        assert inputs.mask is not None
        assert inputs.mask.getbbox() == box


def test_inpainting_needs_a_picture_and_a_mask_or_a_side(still: Workbench) -> None:
    with pytest.raises(UserError, match="no picture to paint on"):
        request_of(still, "inpaint", [None, None])
    with pytest.raises(UserError, match="there is no mask"):
        request_of(still, "inpaint", [painted(None), None])
    request = request_of(still, "inpaint", [painted(None), None], outpaint_left=64, invert_mask=True)
    assert request.outpaint == (64, 0, 0, 0)
    assert not request.invert_mask


def test_added_sides_are_painted_from_scratch(still: Workbench) -> None:
    assert still.pictures.on_outpaint(0, 64, 0, 0, 0.75, "original") == (1.0, "fill")
    assert still.pictures.on_outpaint(0, 64, 0, 0, 0.5, "noise") == (gr.skip(), gr.skip())
    assert still.pictures.on_outpaint(0, 0, 0, 0, 0.75, "original") == (gr.skip(), gr.skip())


# Strength in words.


def test_strength_says_what_will_run(registry: Registry) -> None:
    levels = strength.grid(registry, None, "karras", 20, "")
    assert strength.words(levels, 0.6) == f"12 of 20 steps, from sigma {levels[8]:.3g}"
    assert strength.words([14.6, 3.4, 1.0, 0.0], 0.7) == "2 of 3 steps, from sigma 3.4"
    assert strength.words([5.0, 0.0], 0.5) == "none of 1 steps: raise the strength to 1"
    assert strength.line(levels, 0.6).count("<circle") == 1


def test_strength_says_what_is_wrong_with_the_steps(still: Workbench) -> None:
    assert "sigmas" in still.pictures.on_strength("karras", 20, "1, 2", 0.5)
    assert "steps" in still.pictures.on_strength("karras", None, "", 0.5)
    assert "1 of 2 steps, from sigma 3" in still.pictures.on_strength("karras", 20, "9, 3", 0.5)


# From a request to the controls, and back.

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="()[]\\{}"), max_size=30)


@st.composite
def settings_of(draw: st.DrawFn, registry: Registry) -> Settings:
    """Any settings that a picture may carry: without a picture, with one, with a mask, with added sides."""
    sampler = draw(st.sampled_from([info for info in registry.samplers.values() if not info.adaptive]))
    unit = st.floats(0, 1, allow_nan=False)
    sigmas = draw(st.none() | st.sets(st.floats(0.01, 100), min_size=1, max_size=9))
    levels = None if sigmas is None else (*sorted(sigmas, reverse=True), 0.0)
    start, end = sorted(draw(st.tuples(unit, unit).filter(lambda pair: pair[0] != pair[1])))
    values: dict[str, Any] = {
        "prompt": draw(NAMES),
        "negative": draw(NAMES),
        "sampler": sampler.name,
        "schedule": draw(st.sampled_from(sorted(registry.schedules))),
        "sigmas": levels,
        "steps": draw(st.integers(1, 1000)) if levels is None else len(levels) - 1,
        "cfg_scale": draw(st.floats(0, 100, allow_nan=False)),
        "width": 8 * draw(st.integers(8, 256)),
        "height": 8 * draw(st.integers(8, 256)),
        "batch": draw(st.integers(1, 64)),
        "seed": draw(st.integers(0, 2**62)),
        "options": sampler.check_options({}),
        "cfg_rescale": draw(unit),
        "cfg_from": start,
        "cfg_to": end,
        "clip_skip": draw(st.integers(1, 100)),
    }
    plain = Settings(**values)
    kind = draw(st.sampled_from(["txt2img", "img2img", "inpaint", "branch"]))
    if kind == "txt2img":
        return plain
    if kind == "branch":
        return replace(plain, prompt=draw(NAMES), branch=Branch(draw(st.integers(0, 9)), plain))
    values |= {
        "strength": draw(st.floats(2 / plain.steps, 1)) if plain.steps > 2 else 1.0,
        "resize": "pad",
        "image_sha256": "a" * 64,
    }
    if kind == "inpaint":
        values |= {
            "mask_blur": draw(st.integers(0, 64)),
            "masked_content": draw(st.sampled_from(["original", "fill", "noise", "nothing"])),
            "only_masked": draw(st.none() | st.integers(0, 1024)),
            "keep_unmasked": draw(st.booleans()),
            "invert_mask": draw(st.booleans()),
            "mask_sha256": "b" * 64,
        }
    return Settings(**values)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_recipe_survives_the_form(data: st.DataObject) -> None:
    """Picture -> recipe -> form -> request: the same, whatever the picture was."""
    bench, registry = _bench_for_round_trips(), plugins.registry()
    asked = data.draw(settings_of(registry)).as_request()
    updates = fields.updates(bench.asking.fields, bench.asking.values_of(asked))
    shown = [
        _after(control, update) for control, update in zip(bench.asking.fields.values(), updates, strict=True)
    ]
    named = bench.asking.named(*shown)
    tab = tab_of(asked)
    mask = Image.new("L", (64, 64), 255)
    said: dict[str, Any] = {}
    if tab == "img2img":
        said, _ = bench.pictures.img2img(named, "in.png")
    elif tab == "inpaint":
        layer = Image.merge("RGBA", [mask] * 4)
        said, _ = bench.pictures.inpaint(named, {"background": mask, "layers": [layer]}, None)
    assert bench.asking.request(ANN, named, {**said, **rest_of(asked)}) == asked


_ROUND_TRIPS: list[Workbench] = []


def _bench_for_round_trips() -> Workbench:
    """Made once, as a test with examples cannot have a fixture of a function."""
    if not _ROUND_TRIPS:
        jobs: Any = SimpleNamespace(engine=SimpleNamespace(ready=False, error=""), runs=None)
        _ROUND_TRIPS.append(built(jobs, plugins.registry(), Path("nowhere")))
    return _ROUND_TRIPS[0]


def _after(control: Any, update: Any) -> Any:
    """What a control holds after an update."""
    if isinstance(update, gr.Slider):
        assert update.minimum <= update.value <= update.maximum  # else it would refuse its own value
        return update.value
    return control.value if update == gr.skip() else update


def test_a_form_that_was_kept_comes_back_whatever_is_wrong_with_it(still: Workbench) -> None:
    following = Following()
    kept = {"prompt": "a boat", "sampler": "gone", "steps": "x", "cfg_scale": True, "runs": 3, "nonsense": 1}
    owner, _, _, _, *updates, _ = still.on_open("", kept, "history", following)
    named = dict(zip(still.asking.fields, updates, strict=True))
    assert (named["prompt"], named["runs"]) == ("a boat", 3)
    assert named["sampler"] == named["steps"] == named["cfg_scale"] == gr.skip()
    assert len(owner) >= 20
    assert following.restored
    assert still.on_open(owner, None, "", following)[0] == owner
    assert not following.restored


def test_defaults_of_the_model_fill_what_nobody_changed(bench: Workbench, pipeline: FakePipeline) -> None:
    pipeline.defaults = replace(pipeline.defaults, steps=12, cfg_scale=3.0)
    first = bench.form.first
    shown = [first.sampler, first.schedule, first.steps, 9.5, first.width, first.height]
    updates = bench.on_defaults(Following(), *shown)
    assert updates[2] == 12
    assert updates[3] == gr.skip()  # changed by hand: it stays
    assert bench.on_defaults(Following(restored=True), *shown) == [gr.skip()] * 6


# Runs.


async def everything(sights: AsyncIterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [sight async for sight in sights]


def run(bench: Workbench, following: Following | None = None, **changed: Any) -> list[tuple[Any, ...]]:
    """Generate, and everything that the page is told: (player, notice, run, queue, count, skip, stop)."""
    following = following or Following()
    assert bench.on_generate("txt2img", following, ANN, None, {}, *values(bench, **changed))[0] == ""
    return asyncio.run(everything(bench.on_watch(following, ANN)))


SMALL: dict[str, Any] = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 3}


def test_a_run_is_watched_to_its_end_and_kept(bench: Workbench, tmp_path: Path) -> None:
    following = Following()
    told = run(bench, following, **SMALL, seed="7")
    done = [one for one in told if one[0].get("phase") == "done"]
    assert len(done) == 1
    message, _, run_id = done[0][:3]
    assert message["run"] == run_id
    assert len(message["steps"]) == 3
    assert bench.on_reuse(ANN, run_id) == "7"
    assert bench.on_reuse(ANN, "") == gr.skip()
    assert read_recipe(tmp_path / "outputs" / "000001.png").settings.seed == 7
    queue, count, skip, stop = told[-1][3:7]
    assert (queue, count, skip.interactive, stop.interactive) == ([], "queue 0", False, False)


def test_several_runs_are_shown_one_after_the_other(bench: Workbench) -> None:
    told = run(bench, None, **SMALL, runs=2, seed="5")
    seeds = [one[0]["seed"] for one in told if one[0].get("phase") == "done"]
    assert seeds == [5, 6]


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

    done = [one[0] for one in asyncio.run(watch()) if one[0].get("phase") == "done"]
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


def test_a_model_that_cannot_be_had_leaves_the_earlier_one(bench: Workbench) -> None:
    def fail(name: str) -> Any:
        raise UserError(f"Model {name!r} is not there")

    bench.engine._load = fail
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

    bench.engine._load, shown = load, bench.engine.name
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
    assert "Next in line" in waits
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


def test_the_line_of_tokens_says_how_many_chunks_run() -> None:
    said = text.tokens(FakeTokens(63, 46, (), chunks=2))
    assert said == '<p class="lc-quiet">63 tokens in 2 chunks of 46</p>'


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
    shown = {"ddim.eta": 0.0, "pack/mine.a": 0.25, "pack/mine.b": True}
    assert list(controls.fields()) == list(shown)
    assert controls.read("pack/mine", shown) == {"a": 0.25, "b": True}
    assert ("DDIM", "ddim") in sampler_controls.sampler_choices(full)
    assert any("plugin pack" in label for label, _ in sampler_controls.sampler_choices(full))
    assert [group.visible for group in controls.groups.values()] == [True, False]
