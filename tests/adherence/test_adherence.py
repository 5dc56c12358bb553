"""The embedded model draws what is asked: background, colours, shapes, who is where, sky; seen pairs or not.

Seeds are fixed, so one machine gives the same pictures every time; on another a few of them may come out
differently, by rounding. The bars leave room for that and for no more.
"""

from __future__ import annotations

import math
import random
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch

from core.images.tensors import to_images
from core.inference.pipeline import Pipeline
from core.scenes.drawing import draw
from core.scenes.pool import to_tensor
from core.scenes.scene import Split, sample
from tools.adherence.detector import judge
from tools.adherence.measure import SPLITS, VARIETY_PROMPT, Figures, Model, Share, measure, variety
from tools.adherence.prompts import prompts

BARS: dict[str, dict[Split, float]] = {
    # A point under what 512 prompts gave, in percent, of DDIM's 20 steps at the model's own settings,
    # and, behind it, what is wanted. `measure` says what the rows count.
    "background": {"seen": 98.0, "held_out": 97.0},  # 98
    "color": {"seen": 86.0, "held_out": 85.0},  # 97
    "shape": {"seen": 77.5, "held_out": 77.5},  # 93
    "relation": {"seen": 72.0, "held_out": 76.0},  # 85
    "sky": {"seen": 99.0, "held_out": 99.0},  # 90
    "scene_object": {"seen": 90.0, "held_out": 73.0},  # 90
}
HELD_OUT_COST = 5.0
"""Points by which held-out pairs may be worse than seen ones."""
BEHIND = ("scene_object",)
"""Rows in which they are worse by more: 512 prompts gave 17 points."""
OTHER_MACHINE = 1.5
"""Points by which another processor's rounding may change a figure of the full measurement."""
CLOSEST = 8.0
"""RMS distance (0..255) that two pictures of one prompt have at least."""
FULL, QUICK = 512, 64


@cache
def model() -> Model:
    return cast(Model, Pipeline.load("tiny", device="cpu"))


@cache
def measured(count: int, split: Split, cfg_scale: float | None = None) -> Figures:
    return measure(model(), prompts(count, split), cfg_scale=cfg_scale)


def room(bar: float, count: int) -> float:
    """Points that a sample of `count` may fall under `bar` by chance: three standard errors.

    A model as good as the bar falls further less than once in a hundred times. At 120 counts and a bar of 97
    the room is 4.7 points, and a model that is right in 85 of 100 is found out 99 times in 100; at 48 counts
    and a bar of 85 it is 15.5 points, and one that is right in 60 of 100 is found out 9 times in 10.
    """
    share = min(bar, 98.0) / 100
    return 300 * math.sqrt(share * (1 - share) / count)


def pooled(row: str) -> tuple[float, Share]:
    """The bar and the figure of the quick measurement, both splits together."""
    shares = [measured(QUICK, split)[row] for split in SPLITS]
    count = sum(share.count for share in shares)
    bar = sum(BARS[row][split] * share.count for split, share in zip(SPLITS, shares, strict=True)) / count
    return bar, Share(sum(share.right for share in shares), count)


# ---------------------------------------------------------------- in every test run


@torch.no_grad()
def test_the_detector_reads_what_the_vae_makes_of_drawn_pictures() -> None:
    """So what it finds wrong in generated pictures is hardly ever the VAE's softness."""
    vae = Pipeline.load("tiny", device="cpu", dtype="float32").vae
    right = []
    for number in range(64):
        rng = random.Random(number)
        spec = sample(rng, "held_out" if number % 2 else "seen")
        restored = vae.decode(vae.encode(to_tensor(np.asarray(draw(spec, rng))[None])))
        right.append(judge(to_images(restored)[0], spec).right)
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", BARS)
def test_a_sample_of_prompts_is_obeyed(row: str) -> None:
    bar, figure = pooled(row)
    assert figure.percent >= bar - room(bar, figure.count), f"{figure.right} of {figure.count}, asked {bar}%"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_seeds_differ() -> None:
    assert variety(model(), VARIETY_PROMPT, steps=20, sampler="ddim").closest >= CLOSEST


# ---------------------------------------------------------------- with -m slow only


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("row", BARS)
def test_prompts_are_obeyed(row: str, split: Split) -> None:
    assert measured(FULL, split)[row].percent >= BARS[row][split] - OTHER_MACHINE


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.xfail(row in BEHIND, reason="see the model's card"))
        for row in BARS
    ],
)
def test_pairs_never_seen_in_training_are_drawn_nearly_as_well(row: str) -> None:
    seen, held_out = (measured(FULL, split)[row].percent for split in SPLITS)
    assert held_out >= seen - HELD_OUT_COST


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_guidance_makes_the_model_obey() -> None:
    """More pictures are all right at the model's own scale than without guidance."""
    assert measured(FULL, "seen")["right"].percent > measured(FULL, "seen", 1.0)["right"].percent
