"""A1111's format: written exactly, and read by its own rules, quirks included."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.checks import OptionValue
from core.recipes.infotext import infotext, parse_infotext
from core.recipes.recipe import ModelRef, Recipe
from tests.core.recipes import RECIPE, any_recipe, patient, texts

FIRST = (
    "a red house under a full moon\n"
    "Negative prompt: blurry, grey\n"
    "Steps: 20, Sampler: DDIM, Schedule type: Leading, CFG scale: 5, Seed: 42, Size: 128x96, "
    "Model hash: 0123456789, Model: tiny, RNG: CPU, Eta DDIM: 0.5, Version: latentcanvas 0.1.0"
)


def changed(**settings: Any) -> Recipe:
    return replace(RECIPE, settings=replace(RECIPE.settings, **settings))


def test_a_recipe_is_written_as_a1111_writes_it() -> None:
    assert infotext(RECIPE) == FIRST


def test_the_negative_line_is_left_out_when_there_is_none() -> None:
    assert infotext(changed(negative="")).splitlines()[1].startswith("Steps: 20, ")


def test_clip_skip_is_written_where_it_is_not_the_last_layer() -> None:
    assert "Model: tiny, Clip skip: 2, RNG: CPU, " in infotext(changed(clip_skip=2))


def test_without_any_prompt_the_parameters_stand_alone() -> None:
    assert infotext(changed(prompt="", negative="")).startswith("Steps: 20, ")
    assert infotext(changed(prompt="")).startswith("Negative prompt: blurry, grey\nSteps: 20, ")


def test_without_titles_the_names_are_written() -> None:
    text = infotext(replace(RECIPE, sampler_title="", schedule_title=""))
    assert "Sampler: ddim, Schedule type: leading, " in text


@pytest.mark.parametrize(
    ("cfg_scale", "written"), [(7.0, "7"), (7.5, "7.5"), (0.1 + 0.2, "0.30000000000000004")]
)
def test_numbers_are_written_short_and_exact(cfg_scale: float, written: str) -> None:
    assert f"CFG scale: {written}, " in infotext(changed(cfg_scale=cfg_scale))


@pytest.mark.parametrize(
    ("title", "options", "written"),
    [
        ("DDIM", {"eta": 0.0}, "RNG: CPU, Eta DDIM: 0, Version"),
        ("Euler a", {"eta": 1.0}, "RNG: CPU, Eta: 1, Version"),
        ("Heun", {"s_noise": 1.003, "s_churn": 4}, "RNG: CPU, Sigma churn: 4, Sigma noise: 1.003, Version"),
        ("DDPM", {}, "RNG: CPU, Version"),
        ("DDPM", {"of_our_own": 3}, "RNG: CPU, Version"),
    ],
)
def test_options_have_a1111s_keys(title: str, options: dict[str, OptionValue], written: str) -> None:
    assert written in infotext(replace(changed(options=options), sampler_title=title))


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"strength": 0.75}, "Model: tiny, Denoising strength: 0.75, RNG: CPU, Eta DDIM: 0.5, Version"),
        ({"strength": 1.0, "mask_blur": 0}, "Denoising strength: 1, RNG: CPU, Eta DDIM"),
        (
            {"invert_mask": True, "mask_blur": 4, "only_masked": 0, "masked_content": "noise"},
            "RNG: CPU, Mask mode: Inpaint not masked, Mask blur: 4, Inpaint area: Only masked, "
            "Masked area padding: 0, Masked content: latent noise, Eta DDIM",
        ),
        ({"mask_blur": 8, "masked_content": "original"}, "RNG: CPU, Mask blur: 8, Eta DDIM"),
        ({"mask_blur": 8, "masked_content": "fill"}, "Mask blur: 8, Masked content: fill, Eta DDIM"),
        ({"token_merging": 0.5, "clip_skip": 2}, "Clip skip: 2, Token merging ratio: 0.5, RNG: CPU, "),
        ({"feature_reuse": 3, "cfg_from": 0.25}, "Skip Early CFG: 0.25, Feature reuse: 3, Version"),
        ({"cfg_from": 0.25}, "Eta DDIM: 0.5, Skip Early CFG: 0.25, Version"),
    ],
)
def test_what_pictures_add_has_a1111s_keys(settings: dict[str, Any], written: str) -> None:
    assert written in infotext(changed(**settings))


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("sd v1.5", "Model: sd v1.5, "),
        ("one, two", 'Model: "one, two", '),
        ("C: drive", 'Model: "C: drive", '),
        ("two\nlines", 'Model: "two\\nlines", '),
        ('a "quoted", name', 'Model: "a \\"quoted\\", name", '),
        ("maïs, 猫", 'Model: "maïs, 猫", '),
        ("Model", "Model hash: 0123456789, Model, RNG"),
    ],
)
def test_values_are_quoted_by_a1111s_rule(name: str, written: str) -> None:
    text = infotext(replace(RECIPE, model=ModelRef(name=name, sha256="0123456789abcdef" * 4)))
    assert written in text
    assert parse_infotext(text).params.get("Model") == (None if name == "Model" else name)


def test_an_unknown_version_is_left_out() -> None:
    assert infotext(replace(RECIPE, versions={})).endswith("Eta DDIM: 0.5")


def test_a_text_is_read() -> None:
    read = parse_infotext(FIRST)
    assert read.prompt == "a red house under a full moon"
    assert read.negative == "blurry, grey"
    assert list(read.params.items()) == [
        ("Steps", "20"),
        ("Sampler", "DDIM"),
        ("Schedule type", "Leading"),
        ("CFG scale", "5"),
        ("Seed", "42"),
        ("Size", "128x96"),
        ("Model hash", "0123456789"),
        ("Model", "tiny"),
        ("RNG", "CPU"),
        ("Eta DDIM", "0.5"),
        ("Version", "latentcanvas 0.1.0"),
    ]


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "params"),
    [
        ("", "", "", {}),
        ("a cat", "a cat", "", {}),
        ("a cat\nSteps: 20, Seed: 1", "a cat\nSteps: 20, Seed: 1", "", {}),
        ("a cat\nSteps: 1, Seed: 2, Size: 8x8", "a cat", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        ("Negative prompt: b\nc", "", "b\nc", {}),
        ("a\nNegative prompt:b\nNegative prompt: c", "a", "b\nc", {}),
        ("a\n\n  b  \n", "a\n\nb", "", {}),
        ("(a:1.2), {b|c}, <lora:d:1>", "(a:1.2), {b|c}, <lora:d:1>", "", {}),
        # Three pairs in the last line of a prompt: A1111 takes it for parameters as well.
        ("one\nred: 1, green: 2, blue: 3", "one", "", {"red": "1", "green": "2", "blue": "3"}),
        # A prompt of another pass, quoted; a key with a slash; an empty value; a key that is said twice.
        (
            'x\nSteps: 9, Hires prompt: "a, \\"b\\": c\\nd", Mask/pad: 4, VAE: , ENSD: 1, ENSD: 2',
            "x",
            "",
            {"Steps": "9", "Hires prompt": 'a, "b": c\nd', "Mask/pad": "4", "ENSD": "2"},
        ),
        # Broken quoting is kept as it stands, up to the comma.
        ('x\nA1: "half, B2: "a\\qb", C3: "', "x", "", {"A1": '"half', "B2": '"a\\qb"', "C3": '"'}),
    ],
)
def test_texts_are_read_by_a1111s_rules(
    text: str, prompt: str, negative: str, params: dict[str, str]
) -> None:
    assert parse_infotext(text) == (prompt, negative, params)


# The parser's pattern and rules as A1111 publishes them, against which ours is held.
A1111_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
odd = st.text(alphabet=st.sampled_from('ab 1:,"\\\n-/_é.='), max_size=120) | texts


@patient
@given(odd)
def test_the_same_line_counts_as_parameters(text: str) -> None:
    """Our pattern does without the white space before a key: that changes nothing."""
    last = text.strip().split("\n")[-1]
    pairs = A1111_PAIR.findall(last)
    expected = {key for key, value in pairs if value} if len(pairs) >= 3 else set()
    assert parse_infotext(text).params.keys() == expected


def is_carried(prompt: str) -> bool:
    """Whether the format can carry this prompt unchanged."""
    lines = prompt.split("\n")
    stripped = all(line == line.strip() and not line.startswith("Negative prompt:") for line in lines)
    return stripped and (prompt == "" or lines[0] != "")


lines = st.text(alphabet=st.sampled_from('ab:,"{}()\\ é猫'), max_size=12).map(str.strip)
prompts = st.lists(lines | texts, max_size=4).map("\n".join)


@patient
@given(any_recipe(prompts))
def test_what_the_format_can_carry_comes_back(recipe: Recipe) -> None:
    settings = recipe.settings
    assume(is_carried(settings.prompt) and is_carried(settings.negative))
    read = parse_infotext(infotext(recipe))
    assert (read.prompt, read.negative) == (settings.prompt, settings.negative)


@patient
@given(any_recipe(st.text(max_size=40).map(lambda s: s.encode("utf-8", "ignore").decode().replace("\0", ""))))
def test_the_numbers_come_back_whatever_the_prompts(recipe: Recipe) -> None:
    settings = recipe.settings
    title = recipe.sampler_title or settings.sampler
    assume(title == title.lstrip() and title != "Sampler" and title[0] != '"')
    assume(recipe.model.name.lower() not in ("steps", "sampler", "cfg scale", "seed", "size"))
    params = parse_infotext(infotext(recipe)).params
    assert params["Sampler"] == title
    assert int(params["Steps"]) == settings.steps
    assert float(params["CFG scale"]) == settings.cfg_scale
    assert int(params["Seed"]) == settings.seed
    assert params["Size"] == f"{settings.width}x{settings.height}"
    assert params["RNG"] == "CPU"
    assert params["Model hash"] == recipe.model.sha256[:10]


@pytest.mark.parametrize(
    "text", ["a" * 50_000, "a:" * 25_000, "\n" * 50_000 + "x", "a\n" * 50_000, 'a1:"' * 20_000]
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    begin = time.process_time()
    parse_infotext(text)
    assert time.process_time() - begin < 1.5
