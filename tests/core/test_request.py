"""Requests and settings: every refusal in one sentence, and nothing lost on the way to text and back."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given

from core.errors import UserError
from core.request.image_settings import InputInfo, parse_outpaint
from core.request.model_defaults import Defaults
from core.request.parse import parse_interval, parse_option, parse_options, parse_seed, parse_size
from core.request.request import Request
from core.request.settings import Settings, max_seed
from core.sampling.contract import Step
from core.sampling.options import Option
from core.sampling.registry import Registry, SamplerInfo, ScheduleInfo
from core.sampling.schedule import NoiseSchedule
from tests.core.recipes import any_settings, patient

DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=96)


def never_run(*args: object, **options: object) -> Iterator[Step]:
    raise AssertionError("requests are resolved without running anything")


def never_asked(model: NoiseSchedule, steps: int) -> list[float]:
    raise AssertionError("requests are resolved without a noise schedule")


ETA = Option("eta", "float", 0.0, low=0.0, high=1.0)
SAMPLERS = [
    SamplerInfo(name="ddim", title="DDIM", function=never_run, options=(ETA,)),
    SamplerInfo(name="heun", title="Heun", function=never_run, schedule="karras", options=(ETA,)),
]
SCHEDULES = [
    ScheduleInfo(name=name, title=name, function=never_asked) for name in ("leading", "trailing", "karras")
]
REGISTRY = Registry({info.name: info for info in SAMPLERS}, {info.name: info for info in SCHEDULES})

BAD = [
    ({"steps": 0}, "steps 0: must be a whole number between 1 and 1000"),
    ({"steps": 1001}, "steps 1001: must be a whole number between 1 and 1000"),
    ({"steps": 20.0}, "steps 20.0: must be a whole number between 1 and 1000"),
    ({"steps": True}, "steps True: must be a whole number between 1 and 1000"),
    ({"steps": "20"}, "steps '20': must be a whole number between 1 and 1000"),
    ({"steps": math.nan}, "steps nan: must be a whole number between 1 and 1000"),
    ({"steps": 10**5000}, "steps (a very long number): must be a whole number between 1 and 1000"),
    ({"cfg_scale": -0.5}, "cfg scale -0.5: must be a number between 0 and 100"),
    ({"cfg_scale": 101}, "cfg scale 101: must be a number between 0 and 100"),
    ({"cfg_scale": math.nan}, "cfg scale nan: must be a number between 0 and 100"),
    ({"cfg_scale": math.inf}, "cfg scale inf: must be a number between 0 and 100"),
    ({"cfg_scale": True}, "cfg scale True: must be a number between 0 and 100"),
    ({"cfg_scale": "7"}, "cfg scale '7': must be a number between 0 and 100"),
    ({"width": 0, "height": 128}, "size 0x128: width must be a whole number between 1 and 2048"),
    ({"width": 128, "height": 2056}, "size 128x2056: height must be a whole number between 1 and 2048"),
    ({"width": -8}, "width -8: must be a whole number between 1 and 2048"),
    ({"height": 128.0}, "height 128.0: must be a whole number between 1 and 2048"),
    ({"height": True}, "height True: must be a whole number between 1 and 2048"),
    ({"batch": 0}, "batch 0: must be a whole number between 1 and 64"),
    ({"batch": 65}, "batch 65: must be a whole number between 1 and 64"),
    ({"batch": None}, "batch: must be given"),
    ({"seed": -1}, f"seed -1: must be a whole number between 0 and {2**63 - 2}"),
    ({"seed": 2**63 - 4, "batch": 4}, f"seed {2**63 - 4}: must be a whole number between 0 and {2**63 - 5}"),
    ({"seed": False}, f"seed False: must be a whole number between 0 and {2**63 - 2}"),
    ({"prompt": None}, "prompt: must be given"),
    ({"prompt": 7}, "prompt 7: must be text"),
    ({"prompt": "a\0b"}, "prompt: character 2 ('\\x00') is not allowed; remove it"),
    ({"negative": "\udc80"}, "negative prompt: character 1 ('\\udc80') is not allowed; remove it"),
    ({"prompt": "x" * 20_001}, "prompt of 20001 characters: must have at most 20000"),
    ({"prompt": "a (cat:101)"}, "prompt: the weight 101 of 'cat' is outside -100 to 100; choose one inside"),
    ({"negative": "([" * 51}, "negative prompt: brackets are nested more than 100 deep; remove some"),
    ({"clip_skip": 0}, "clip skip 0: must be a whole number between 1 and 100"),
    ({"clip_skip": None}, "clip skip: must be given"),
    ({"sampler": ""}, "sampler '': must not be empty"),
    ({"schedule": 3}, "schedule 3: must be text"),
    ({"options": None}, "options: must be given"),
    ({"options": "eta=1"}, "options 'eta=1': must be names and values"),
    ({"options": {"eta": math.nan}}, "option eta nan: must be true, false, a finite number or text"),
    ({"options": {"eta": None}}, "option eta None: must be true, false, a finite number or text"),
    ({"options": {"eta": 2**63}}, f"option eta {2**63}: must be true, false, a finite number or text"),
    ({"options": {"": 1}}, "option name '': must not be empty"),
    ({"options": {3: 1}}, "option name 3: must be text"),
    ({"cfg_rescale": 1.5}, "cfg rescale 1.5: must be a number between 0 and 1"),
    ({"cfg_rescale": None}, "cfg rescale: must be given"),
    ({"feature_reuse": 0}, "feature reuse 0: must be a whole number between 1 and 20"),
    ({"feature_reuse": 2.5}, "feature reuse 2.5: must be a whole number between 1 and 20"),
    ({"token_merging": 0.8}, "token merging 0.8: must be a number between 0 and 0.75"),
    ({"token_merging": None}, "token merging: must be given"),
    ({"cfg_from": -0.1}, "cfg from -0.1: must be a number between 0 and 1"),
    ({"cfg_from": 0.5, "cfg_to": 0.5}, "cfg from 0.5 to 0.5: must rise; cfg scale 1 turns guidance off"),
    ({"strength": 0}, "strength 0: would change nothing; must be above 0 and at most 1"),
    ({"strength": 1.01}, "strength 1.01: must be a number between 0 and 1"),
    ({"strength": math.nan}, "strength nan: must be a number between 0 and 1"),
    ({"strength": 0.01, "steps": 30}, "strength 0.01: runs none of 30 steps; raise it to 0.034"),
    ({"resize": "fit"}, "resize 'fit': must be stretch, crop or pad"),
    ({"masked_content": "latent"}, "masked content 'latent': must be original, fill, noise or nothing"),
    ({"mask_blur": 65}, "mask blur 65: must be a whole number between 0 and 64"),
    ({"mask_blur": 1.5}, "mask blur 1.5: must be a whole number between 0 and 64"),
    ({"only_masked": -1}, "only masked -1: must be a whole number between 0 and 1024"),
    ({"only_masked": True}, "only masked True: must be a whole number between 0 and 1024"),
    ({"keep_unmasked": "yes"}, "keep unmasked 'yes': must be true or false"),
    ({"invert_mask": 1}, "invert mask 1: must be true or false"),
    ({"outpaint": (1, 2)}, "outpaint (1, 2): must be four numbers of pixels: left, right, up, down"),
    ({"outpaint": "left"}, "outpaint 'left': must be four numbers of pixels: left, right, up, down"),
    ({"outpaint": (0, 0, -8, 0)}, "outpaint up -8: must be a whole number between 0 and 1024"),
    ({"outpaint": (1024, 961, 0, 0)}, "outpaint left and right 1985: must be at most 1984 in total"),
    (
        {"outpaint": (64, 60, 0, 0), "width": 128},
        "width 128: outpainting takes 124 of it and leaves no room for the image; raise it",
    ),
    ({"image_sha256": "AB"}, "image sha256 'AB': must be 64 hexadecimal digits"),
    ({"mask_sha256": 7}, "mask sha256 7: must be text"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_value_is_refused_in_one_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Request(**fields)


def test_a_long_value_does_not_make_a_long_message() -> None:
    with pytest.raises(UserError) as refusal:
        Request(steps=cast("int", "9" * 10_000))
    assert len(str(refusal.value)) < 150


def test_the_edges_of_every_range_are_allowed() -> None:
    Request(steps=1, cfg_scale=0, width=64, height=2048, batch=64, seed=max_seed(64))
    Request(steps=1000, cfg_scale=100, width=2048, height=64, batch=1, seed=max_seed(1), prompt="x" * 20_000)


def test_an_integer_cfg_scale_becomes_a_float() -> None:
    assert Request(cfg_scale=7) == Request(cfg_scale=7.0)
    assert isinstance(Request(cfg_scale=7).cfg_scale, float)


def test_options_are_copied() -> None:
    options = {"eta": 0.5}
    request = Request(options=options)
    options["eta"] = 9.0
    assert request.options == {"eta": 0.5}


def test_requests_can_be_hashed_copied_and_pickled() -> None:
    request = Request(prompt="a cat", options={"eta": 0.5})
    assert len({request, copy.deepcopy(request), pickle.loads(pickle.dumps(request))}) == 1


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"step": 20}, "request: 'step' is not known; did you mean 'steps'?"),
        ({"cfgscale": 5}, "request: 'cfgscale' is not known; did you mean 'cfg_scale'?"),
        ({"qqq": 1}, "request: 'qqq' is not known; known are clip_skip, emphasis, sigmas, cfg_rescale, "),
        ({3: 1}, "request: 3 is not known; "),
        (["steps"], "request ['steps']: must be an object of names and values"),
    ],
)
def test_an_unknown_key_names_the_nearest(mapping: object, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Request.from_mapping(mapping)


def test_what_is_left_open_comes_from_the_model() -> None:
    settings = Request(prompt="a cat", seed=3).resolve(DEFAULTS, REGISTRY)
    assert settings == Settings(
        prompt="a cat",
        negative="",
        clip_skip=1,
        sampler="ddim",
        schedule="leading",
        steps=20,
        cfg_scale=5.0,
        width=128,
        height=96,
        batch=1,
        seed=3,
        options={"eta": 0.0},
    )


def test_what_is_asked_wins() -> None:
    asked = Request(
        prompt="a",
        negative="b",
        clip_skip=2,
        sampler="heun",
        schedule="trailing",
        steps=7,
        cfg_scale=0,
        width=64,
        height=72,
        batch=2,
        seed=0,
        options={"eta": 0.25},
    )
    assert asked.resolve(DEFAULTS, REGISTRY).to_dict() == asked.to_dict()


def test_a_samplers_own_schedule_wins_over_the_models_but_not_over_the_asked() -> None:
    assert Request(sampler="heun").resolve(DEFAULTS, REGISTRY).schedule == "karras"
    assert Request(sampler="heun", schedule="trailing").resolve(DEFAULTS, REGISTRY).schedule == "trailing"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"sampler": "dim"}, "ddim"),
        ({"schedule": "karas"}, "karras"),
        ({"options": {"eat": 0.5}}, "eta"),
        ({"options": {"eta": 2}}, "from 0 to 1"),
    ],
)
def test_what_the_registry_does_not_have_is_refused(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Request(**asked).resolve(DEFAULTS, REGISTRY)


def test_options_as_typed_become_what_the_sampler_takes() -> None:
    request = Request(options=parse_options(["eta=0.5"]))
    assert request.resolve(DEFAULTS, REGISTRY).options == {"eta": 0.5}


def test_an_open_seed_is_drawn_anew_each_time() -> None:
    seeds = {Request().resolve(DEFAULTS, REGISTRY).seed for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_each_image_of_a_batch_has_settings_of_its_own() -> None:
    settings = Request(seed=max_seed(3), batch=3).resolve(DEFAULTS, REGISTRY)
    assert [settings.for_image(i).seed for i in range(3)] == [max_seed(3) + i for i in range(3)]
    assert settings.for_image(2).batch == 1
    with pytest.raises(IndexError):
        settings.for_image(3)


@patient
@given(any_settings())
def test_settings_survive_json(settings: Settings) -> None:
    again = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert {name: type(value) for name, value in again.options.items()} == {
        name: type(value) for name, value in settings.options.items()
    }


@patient
@given(any_settings())
def test_settings_are_a_request_too(settings: Settings) -> None:
    request = Request.from_settings(settings)
    assert request.to_dict() == settings.to_dict()
    assert Request.from_mapping(json.loads(json.dumps(request.to_dict()))) == request


def test_settings_leave_nothing_open() -> None:
    values = Request().resolve(DEFAULTS, REGISTRY).to_dict()
    with pytest.raises(UserError, match=r"^steps: must be given$"):
        Settings.from_dict({**values, "steps": None})
    with pytest.raises(UserError, match=r"^settings: seed is missing$"):
        Settings.from_dict({name: value for name, value in values.items() if name != "seed"})


def test_settings_of_an_earlier_version_used_the_last_layer() -> None:
    values = Request().resolve(DEFAULTS, REGISTRY).to_dict()
    old = {name: value for name, value in values.items() if name != "clip_skip"}
    assert Settings.from_dict(old) == Settings.from_dict(values)


def test_bad_defaults_are_refused() -> None:
    with pytest.raises(UserError, match=r"^size 100x128: width must be"):
        Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=100, height=128)


@pytest.mark.parametrize(
    ("text", "seed"),
    [("7", 7), (" 12 ", 12), ("", None), ("random", None), ("-1", None), (str(2**63 - 2), 2**63 - 2)],
)
def test_a_seed_as_typed(text: str, seed: int | None) -> None:
    assert parse_seed(text) == seed


@pytest.mark.parametrize("text", ["abc", "1.5", "-2", "1e3", "1_000", "٣", str(2**63), "9" * 5000])
def test_a_seed_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^seed '.*': must be a whole number between 0 and \d+, or random"):
        parse_seed(text)


@pytest.mark.parametrize("text", ["128x96", "128X96", " 128 × 96 "])
def test_a_size_as_typed(text: str) -> None:
    assert parse_size(text) == (128, 96)


@pytest.mark.parametrize(
    "text", ["", "128", "128x", "axb", "128x96x3", "-128x96", "128.0x96", "9" * 30 + "x64"]
)
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^size '.*': write it as WIDTHxHEIGHT"):
        parse_size(text)


def test_a_size_out_of_range() -> None:
    with pytest.raises(UserError, match=r"^size 128x4096: height must be a whole number between 1 and 2048$"):
        parse_size("128x4096")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 130, "height": 128}, "size 130x128: width must be a multiple of 8 between 64 and 2048"),
        ({"width": 56}, "width 56: must be a multiple of 8 between 64 and 2048"),
    ],
)
def test_a_size_that_the_model_cannot_make(size: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        Request(**size).resolve(DEFAULTS, REGISTRY)


def test_a_model_of_pixels_has_a_size_rule_of_its_own() -> None:
    small = dataclasses.replace(DEFAULTS, width=28, height=28, multiple=1, smallest=8)
    assert Request(width=29).resolve(small, REGISTRY).width == 29
    picture = InputInfo(31, 17, "0" * 64)
    settings = Request().resolve(small, REGISTRY, picture)
    assert (settings.width, settings.height) == (31, 17)
    with pytest.raises(UserError, match=r"^height 7: must be a whole number between 8 and 2048$"):
        Request(height=7).resolve(small, REGISTRY)


def test_an_interval_and_sides_as_typed() -> None:
    assert parse_interval("0.1:0.8") == (0.1, 0.8)
    assert parse_outpaint("left=64, down=8") == (64, 0, 0, 8)
    assert parse_outpaint("up=1024") == (0, 0, 1024, 0)


@pytest.mark.parametrize("text", ["", "0.1", "0.1-0.8", "a:b", "0:0.5:1"])
def test_an_interval_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^cfg interval '.*': write it as FROM:TO, for example 0.1:0.8$"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write it as SIDE=PIXELS"),
        ("64", "write it as SIDE=PIXELS"),
        ("left=-8", "write it as SIDE=PIXELS"),
        ("left=8.5", "write it as SIDE=PIXELS"),
        ("left=" + "9" * 5000, "write it as SIDE=PIXELS"),
        ("lft=8", "did you mean 'left'"),
        ("left=8,left=9", "left is given twice"),
        ("left=1025", "outpaint left 1025: must be a whole number between 0 and 1024"),
    ],
)
def test_sides_that_are_none(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_outpaint(text)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("eta=0.5", ("eta", "0.5")),
        (" mode = fast ", ("mode", "fast")),
        ("mode=a=b", ("mode", "a=b")),
    ],
)
def test_an_option_as_typed(text: str, option: tuple[str, str]) -> None:
    assert parse_option(text) == option


@pytest.mark.parametrize("text", ["eta", "=0.5", "eta=", "my eta=1", ""])
def test_an_option_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^option '.*': write it as NAME=VALUE, for example eta=0.5$"):
        parse_option(text)


def test_options_together() -> None:
    assert parse_options(["eta=0.5", "order=2"]) == {"eta": "0.5", "order": "2"}
    with pytest.raises(UserError, match="option eta: is given twice"):
        parse_options(["eta=0.5", "eta=1"])


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, core.request.request; print({'torch', 'numpy', 'PIL', 'gradio'} & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
