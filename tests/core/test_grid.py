"""Planning a comparison: the cells it comes to, their order and cost, and a sentence for each mistake."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.compare.axes import choices, every, example, read_axis, title_of
from core.compare.grid import (
    AxisRequest,
    GridPlan,
    Speed,
    Surroundings,
    cost_words,
    described,
    duration,
    plan_grid,
    plan_race,
    sheets,
)
from core.compare.ranges import Mistakes, join
from core.errors import UserError
from core.plugins import discovery
from core.request.image_settings import InputInfo
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.sampling.registry import Registry
from tests.core.recipes import patient

DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)
BASE = Request(
    prompt="a red house on a hill",
    negative="red sky",
    sampler="ddim",
    schedule="leading",
    steps=20,
    cfg_scale=5.0,
    width=128,
    height=128,
    batch=4,
    seed=7,
    options={"eta": 0.5},
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discovery.load_plugins(enabled=False)


@pytest.fixture
def around(registry: Registry) -> Surroundings:
    return Surroundings(registry, DEFAULTS, ("tiny", "big", "other"), "tiny")


def grid(around: Surroundings, *asked: tuple[str, str], base: Request = BASE, **more: Any) -> GridPlan:
    return plan_grid(base, [AxisRequest(*one) for one in asked], around, **more)


def mistakes(around: Surroundings, *asked: tuple[str, str], base: Request = BASE) -> tuple[str, ...]:
    with pytest.raises(Mistakes) as caught:
        grid(around, *asked, base=base)
    return caught.value.sentences


def test_a_grid_of_two_settings(around: Surroundings) -> None:
    plan = grid(around, ("steps", "10-30 (+10)"), ("cfg_scale", "1, 7"))
    assert plan.shape == (3, 2, 1)
    assert [(cell.at, cell.settings.steps, cell.settings.cfg_scale) for cell in plan.cells] == [
        ((0, 0, 0), 10, 1.0),
        ((0, 1, 0), 10, 7.0),
        ((1, 0, 0), 20, 1.0),
        ((1, 1, 0), 20, 7.0),
        ((2, 0, 0), 30, 1.0),
        ((2, 1, 0), 30, 7.0),
    ]
    assert {(cell.settings.seed, cell.settings.batch) for cell in plan.cells} == {(7, 1)}
    assert plan.label(plan.cells[1]) == "Steps: 10, CFG scale: 7"
    assert (plan.evals, plan.loads, plan.about) == (120, 0, False)
    assert cost_words(plan, None) == "6 images (3 × 2), 120 model evaluations"


def test_every_cell_is_a_request_that_makes_its_settings_again(around: Surroundings) -> None:
    base = replace(BASE, seed=None)
    plan = grid(around, ("sampler", "ddim, euler_a"), ("option:eta", "0, 1"), base=base)
    for cell in plan.cells:
        assert cell.request.resolve(DEFAULTS, around.registry) == cell.settings
        assert cell.settings.options["eta"] in (0.0, 1.0)
    assert len({cell.settings.seed for cell in plan.cells}) == 1


def test_three_axes_are_sheets(around: Surroundings) -> None:
    plan = grid(around, ("steps", "5, 6"), ("seed", "1-3"), ("clip_skip", "1, 2"))
    assert plan.shape == (2, 3, 2)
    found = list(sheets(plan))
    assert [title for title, _ in found] == ["Clip skip: 1", "Clip skip: 2"]
    assert found[1][1][2][0].settings.seed == 3
    assert found[1][1][2][0].settings.clip_skip == 2


def test_models_are_loaded_once_each_the_loaded_one_first(around: Surroundings) -> None:
    plan = grid(around, ("model", "big, tiny, other"), ("seed", "1, 2"))
    assert [cell.model for cell in plan.cells] == ["tiny"] * 2 + ["big"] * 2 + ["other"] * 2
    assert plan.loads == 2
    assert cost_words(plan, None).endswith("2 models to load")
    assert plan.cells[0].at == (1, 0, 0)


def test_samplers_keep_the_options_that_they_have(around: Surroundings) -> None:
    plan = grid(around, ("sampler", "ddim, ddpm, DPM++ 2M Karras"))
    ddim, ddpm, named = (cell.settings for cell in plan.cells)
    assert ddim.options["eta"] == 0.5
    assert "eta" not in ddpm.options
    assert (named.sampler, named.schedule) == ("dpmpp_2m", "karras")
    assert (ddim.schedule, ddpm.schedule) == ("leading", "leading")
    both = grid(around, ("sampler", "DPM++ 2M Karras"), ("schedule", "leading, exponential"))
    assert [cell.settings.schedule for cell in both.cells] == ["leading", "exponential"]


def test_all_of_a_list(around: Surroundings) -> None:
    plan = grid(around, ("schedule", "ALL"))
    assert [cell.settings.schedule for cell in plan.cells] == list(around.registry.schedules)
    assert every("model", around.registry, around.models) == "tiny, big, other"
    assert every("steps", around.registry, ()) == ""


def test_words_are_replaced_in_both_prompts(around: Surroundings) -> None:
    plan = grid(around, ("prompt", 'red, "blue, dark", ""'), ("prompt", "hill, field"))
    prompts = {cell.at: (cell.settings.prompt, cell.settings.negative) for cell in plan.cells}
    assert prompts[0, 0, 0] == (BASE.prompt, BASE.negative)
    assert prompts[1, 1, 0] == ("a blue, dark house on a field", "blue, dark sky")
    assert prompts[2, 0, 0] == ("a  house on a hill", " sky")
    assert [value.label for value in plan.axes[0].values] == ["red", "blue, dark", "(nothing)"]


def test_seeds_are_drawn_where_asked(around: Surroundings) -> None:
    plan = grid(around, ("seed", "5, -1, random"))
    assert plan.axes[0].values[0].value == 5
    assert len({cell.settings.seed for cell in plan.cells}) == 3


def test_strength_runs_part_of_the_steps(registry: Registry) -> None:
    pictured = Surroundings(registry, DEFAULTS, given=InputInfo(128, 128, "0" * 64))
    plan = grid(pictured, ("strength", "0.25, 0.5, 1"))
    assert [cell.evals for cell in plan.cells] == [5, 10, 20]
    assert plan.cells[0].model is None


def test_sizes(around: Surroundings) -> None:
    plan = grid(around, ("size", "128x96, 64x64"))
    assert [(cell.settings.width, cell.settings.height) for cell in plan.cells] == [(128, 96), (64, 64)]


@pytest.mark.parametrize(
    ("asked", "sentences"),
    [
        ([], ["choose a setting to compare"]),
        ([("", "1, 2")], ["choose a setting to compare"]),
        ([("steps", "")], ["Steps: type its values, for example 10-30 (+5)"]),
        ([("steps", "0, x, 5, 2000")], ["'x': is not a number"]),
        ([("steps", "0, 5, 2000")], ["steps 0: must be a whole", "steps 2000: must be a whole"]),
        ([("steps", "a"), ("cfg_scale", "b")], ["Steps: 'a'", "CFG scale: 'b'"]),
        ([("cfg_scale", "101")], ["cfg scale 101"]),
        ([("steps", "1"), ("steps", "2")], ["steps is on two axes"]),
        ([("sampler", "ddimm, hein")], ["did you mean 'ddim'", "did you mean 'heun'"]),
        ([("schedule", "kerras")], ["did you mean 'karras'"]),
        ([("model", "tinny")], ["did you mean 'tiny'"]),
        ([("prompt", "green, blue")], ["'green' is in neither prompt"]),
        ([("prompt", "red")], ["type a comma after 'red'"]),
        ([("prompt", 'red, "open')], ["close the double quotes"]),
        ([("strength", "0.5, 1")], ["Strength: needs an init image"]),
        ([("size", "128")], ["write it as WIDTHxHEIGHT"]),
        ([("size", "128x100")], ["multiple of 8"]),
        ([("option:eta", "5")], ["Option eta must be a number from 0 to 1"]),
        ([("option:nope", "5")], ["'option:nope' cannot be compared"]),
        ([("eta", "5")], ["'eta' cannot be compared"]),
        ([("sampler", "ddim, heun"), ("option:eta", "0, 1")], ["Sampler heun has no option 'eta'"]),
        ([("steps", "1-100"), ("seed", "1-100")], ["the grid has 10000 cells: at most 500"]),
        ([("cfg_from", "0.1, 1")], ["cfg from 1 to 1: must rise"]),
    ],
)
def test_a_sentence_for_each_mistake(
    around: Surroundings, asked: list[tuple[str, str]], sentences: list[str]
) -> None:
    said = mistakes(around, *asked)
    assert len(said) == len(sentences), said
    for sentence, part in zip(said, sentences, strict=True):
        assert part in sentence


def test_many_mistakes_are_counted(around: Surroundings) -> None:
    said = mistakes(around, ("sampler", ", ".join(f"nothing{i}" for i in range(20))))
    assert said[-1] == "and 14 more errors"


def test_typed_noise_levels_leave_no_schedule_to_compare(around: Surroundings) -> None:
    base = replace(BASE, sigmas=(10.0, 1.0, 0.0), steps=None)
    assert mistakes(around, ("schedule", "karras"), base=base) == (
        "Schedule: has no effect while noise levels are typed; clear them",
    )
    assert [cell.evals for cell in grid(around, ("seed", "1, 2"), base=base).cells] == [2, 2]


def test_every_setting_has_a_title_and_an_example_that_can_be_read(around: Surroundings) -> None:
    for title, name in choices(around.registry):
        assert title == title_of(name)
        typed = example(name, around.registry)
        assert typed
        words = "red, blue" if name == "prompt" else typed.split(";")[0]
        if name != "strength":
            assert read_axis(name, words, BASE, around.registry, around.models).values


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True))
@patient
def test_any_list_of_steps_comes_back(registry: Registry, steps: list[int]) -> None:
    plan = grid(Surroundings(registry, DEFAULTS), ("steps", join(map(str, steps))))
    assert [cell.settings.steps for cell in plan.cells] == steps


# Races.


def fit(info: Any, schedule: str, strength: float) -> tuple[int, int]:
    return 20 // info.evals, 20 // info.evals * info.evals


def test_a_race_gives_each_the_steps_that_fit(around: Surroundings) -> None:
    plan = plan_race(BASE, ["ddim", "heun", "ddim"], 20, around, fit)
    assert [(cell.settings.sampler, cell.settings.steps, cell.evals) for cell in plan.cells] == [
        ("ddim", 20, 20),
        ("heun", 10, 20),
    ]
    assert plan.axes[0].values[1].label == "Heun, 10 steps, 20 evaluations"
    assert plan.kind == "race"
    assert plan.cells[0].settings.options["eta"] == 0.5
    preferred = around.registry.sampler("heun").schedule or "leading"
    assert plan.cells[1].settings.schedule == preferred
    chosen = plan_race(BASE, ["ddim", "heun"], 20, around, fit, schedule="exponential")
    assert {cell.settings.schedule for cell in chosen.cells} == {"exponential"}


def test_a_race_from_a_picture_counts_what_is_run(registry: Registry) -> None:
    given, strengths = InputInfo(128, 128, "0" * 64), []

    def note(info: Any, schedule: str, strength: float) -> tuple[int, int]:
        strengths.append(strength)
        return 10, 5

    plan_race(replace(BASE, strength=0.5), ["ddim"], 5, Surroundings(registry, DEFAULTS, given=given), note)
    plan_race(BASE, ["ddim"], 5, Surroundings(registry, DEFAULTS, given=given), note)
    plan_race(BASE, ["ddim"], 5, Surroundings(registry, DEFAULTS), note)
    assert strengths == [0.5, 0.75, 1.0]


def test_an_adaptive_sampler_makes_the_cost_a_guess(around: Surroundings) -> None:
    plan = plan_race(BASE, ["ddim", "dpm_adaptive"], 20, around, fit)
    assert plan.about
    assert "about" in cost_words(plan, None)
    assert "its own steps" in plan.axes[0].values[1].label


@pytest.mark.parametrize(
    ("samplers", "evals", "sentence"),
    [([], 20, "choose the samplers"), (["ddim"], 0, "evaluations"), (["ddimm"], 5, "did you mean 'ddim'")],
)
def test_a_race_that_cannot_be(around: Surroundings, samplers: list[str], evals: int, sentence: str) -> None:
    with pytest.raises(Mistakes, match=sentence):
        plan_race(BASE, samplers, evals, around, fit)


# Cost.


def test_the_last_runs_speed_is_carried_over_by_size_and_guidance(around: Surroundings) -> None:
    ran = replace(BASE, batch=1).resolve(DEFAULTS, around.registry)
    speed = Speed.measured(ran, evals=20, seconds=2.0)
    assert speed is not None
    plan = grid(around, ("steps", "10, 20"))
    assert speed.of(plan.cells) == pytest.approx(3.0)
    assert cost_words(plan, speed).endswith("30 model evaluations, about 3.0 s at the last run's speed")
    large = grid(around, ("size", "256x256"))
    assert speed.of(large.cells) == pytest.approx(8.0)
    unguided = grid(around, ("cfg_scale", "1"))
    assert speed.of(unguided.cells) == pytest.approx(1.0)
    assert Speed.measured(ran, evals=0, seconds=2.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.01, "0.1 s"), (5, "5.0 s"), (42, "42 s"), (300, "5 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_plan_is_plain_json(around: Surroundings) -> None:
    plan = grid(around, ("model", "tiny, big"), ("prompt", "red, blue"))
    said = json.loads(json.dumps(described(plan)))
    assert [axis["setting"] for axis in said["axes"]] == ["model", "prompt"]
    again = [Request.from_mapping(cell["request"]) for cell in said["cells"]]
    assert again == [cell.request for cell in plan.cells]


def test_mistakes_are_a_user_error() -> None:
    assert issubclass(Mistakes, UserError)
    assert str(Mistakes(["a", "b", "a"])) == "a; b"
