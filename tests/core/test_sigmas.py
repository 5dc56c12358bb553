"""Noise levels that a person types."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from core.errors import UserError
from core.plugins.discovery import load_plugins
from core.recipes.infotext import infotext, parse_infotext
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.request.settings import Settings
from core.request.sigmas import check_sigmas, parse_sigmas
from tests.core.recipes import RECIPE

REGISTRY = load_plugins(enabled=False)
DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=96)


@pytest.mark.parametrize("text", ["14.6,7,3,0", "14.6, 7, 3", " 14.6 7 3 ", "14.6;7;3;0.0"])
def test_levels_are_read_and_end_with_zero(text: str) -> None:
    assert parse_sigmas(text) == (14.6, 7.0, 3.0, 0.0)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([3, 7], "7 after 3"),
        ([7, 7, 1], "7 after 7"),
        ([7, 0, 1], "1 after 0"),
        ([7, -1], "-1 must be a number from 0"),
        ([float("nan")], "nan must be"),
        ([float("inf"), 1], "inf must be"),
        ([True], "True must be"),
        (["x"], "x must be"),
        ([], "0 levels"),
        ([0], "0 levels"),
        (list(range(1001, 0, -1)), "1001 levels"),
        ("7,3", "list of falling numbers"),
        (7, "list of falling numbers"),
    ],
)
def test_other_levels_are_refused(levels: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_sigmas(levels)
    with pytest.raises(UserError, match=said):
        Request(sigmas=levels)


@pytest.mark.parametrize("text", ["7,x", "seven"])
def test_what_is_no_number_is_said(text: str) -> None:
    with pytest.raises(UserError, match=r"14\.6,7,3"):
        parse_sigmas(text)


def test_steps_follow_from_levels() -> None:
    settings = Request(sigmas=[9, 2]).resolve(DEFAULTS, REGISTRY)
    assert (settings.steps, settings.sigmas) == (2, (9.0, 2.0, 0.0))
    with pytest.raises(UserError, match="make 2 steps; leave steps out"):
        Request(sigmas=[9, 2], steps=7)
    again = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert Request.from_settings(again).resolve(DEFAULTS, REGISTRY) == settings
    assert Request().resolve(DEFAULTS, REGISTRY).sigmas is None


def test_an_infotext_says_the_levels_in_place_of_a_schedule() -> None:
    settings = replace(RECIPE.settings, sigmas=(14.6, 3.0, 0.0), steps=2)
    params = parse_infotext(infotext(replace(RECIPE, settings=settings))).params
    assert params["Sigmas"] == "14.6, 3, 0"
    assert "Schedule type" not in params


def test_a_sampler_that_chooses_its_steps_makes_one_picture_at_a_time() -> None:
    assert Request(sampler="dpm_adaptive").resolve(DEFAULTS, REGISTRY).batch == 1
    with pytest.raises(UserError, match="set batch to 1"):
        Request(sampler="dpm_adaptive", batch=2).resolve(DEFAULTS, REGISTRY)
