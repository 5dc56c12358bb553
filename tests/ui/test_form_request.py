"""From the workbench's controls to requests, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import UserError
from core.plugins import current
from core.prompts.emphasis import EMPHASES
from core.request.request import Request
from core.request.settings import Branch, Settings
from core.sampling.options import Option
from core.sampling.registry import Registry
from tests.ui.benches import ANN, PROMPT, built, values
from tests.ui.fakes import FakeTokens, in_blocks
from ui.page.form_request import repeated, rest_of
from ui.page.live_view import Following
from ui.page.widgets import fields, sampler_controls, strength, text
from ui.page.widgets.pictures import tab_of
from ui.page.workbench import Workbench
from ui.service.styles import Style


@pytest.fixture(scope="module")
def registry() -> Registry:
    return current.registry()


@pytest.fixture(scope="module")
def still(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """One that runs nothing."""
    engine = SimpleNamespace(ready=False, error="", pipeline=None, start=lambda: None)
    jobs: Any = SimpleNamespace(engine=engine, runs=None, listing=lambda owner: [])
    return built(jobs, registry, tmp_path_factory.mktemp("still"))


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


def test_only_the_chosen_samplers_options_are_sent(still: Workbench) -> None:
    assert request_of(still, sampler="ddpm").options == {}


def test_typed_sigmas_take_the_place_of_the_steps(still: Workbench) -> None:
    request = request_of(still, sigmas="14.6, 3; 1")
    assert (request.sigmas, request.steps) == ((14.6, 3.0, 1.0, 0.0), 3)


def test_styles_are_added_when_the_request_is_made(still: Workbench) -> None:
    still.kept.styles(ANN).save_style(Style("ink", "{prompt}, in ink", "colour"))
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
    with pytest.raises(UserError, match="no init image"):
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
    with pytest.raises(UserError, match="no image to paint on"):
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
    assert strength.words([5.0, 0.0], 0.5) == "0 of 1 steps: raise the strength to 1"
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
        "emphasis": draw(st.sampled_from(EMPHASES)),
        "feature_reuse": draw(st.integers(1, 20)),
        "token_merging": draw(st.floats(0, 0.75)),
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


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_recipe_survives_the_form(data: st.DataObject) -> None:
    """Picture -> recipe -> form -> request: the same, whatever the picture was."""
    bench, registry = _bench_for_round_trips(), current.registry()
    asked = Request.from_settings(data.draw(settings_of(registry)))
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
        _ROUND_TRIPS.append(built(jobs, current.registry(), Path("nowhere")))
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
    _, _, _, *updates, _ = still.on_open("ann", kept, "history", following)
    named = dict(zip(still.asking.fields, updates, strict=True))
    assert (named["prompt"], named["runs"]) == ("a boat", 3)
    assert named["sampler"] == named["steps"] == named["cfg_scale"] == gr.skip()
    assert following.restored
    still.on_open("ann", None, "", following)
    assert not following.restored


# Small things.


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
