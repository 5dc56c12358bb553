"""The recipes from nothing to good samples: minutes of training, so all of it is slow.

How good is measured by what is exact: distances to fresh data, and a classifier trained on the digits that
the project draws. Where a run's folder is named in LATENTCANVAS_RUNS, as `runs`, its models are measured
instead of new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.images.tensors import from_image
from core.inference.pipeline import Pipeline
from core.training.densities import DENSITIES
from core.training.samples import SampleRequest, draw_samples
from core.training.trainer import train
from tests.training.measures import (
    Classifier,
    digits,
    frechet,
    shapes,
    sliced_wasserstein,
    trained_classifier,
)

RECIPES = Path(__file__).resolve().parents[2] / "data" / "recipes"
POINTS = 1024
BATCH = 64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pipeline]:
    runs = os.environ.get("LATENTCANVAS_RUNS")

    def load(kind: str) -> Pipeline:
        folder = Path(runs) / kind / "model" if runs else None
        if folder is None or not folder.is_dir():
            folder = train(RECIPES / f"{kind}.toml", out=tmp_path_factory.mktemp(kind), device="cpu")
        return Pipeline.load(folder, device="cpu", dtype="float32")

    return load


@lru_cache
def classifier(size: int) -> Classifier:
    net = trained_classifier(*digits(1001, 6000, size))
    pictures, labels = digits(2002, 1000, size)
    right = float((chances(net, pictures).argmax(1) == labels).float().mean())
    assert right > 0.97, right
    return net


@torch.no_grad()
def chances(net: Classifier, pictures: Tensor) -> Tensor:
    """(B, 10)"""
    chance: Tensor = net(pictures).softmax(1)
    return chance


def made(pipe: Pipeline, count: int, prompt: str = "", **changed: Any) -> Tensor:
    """Samples (count, 3, S, S) in [-1, 1] by the model's defaults, changed. Many at a time, as in training:
    the pipeline takes one after the other, so that a batch changes none of them.
    """
    defaults, (words, empty) = replace(pipe.defaults, **changed), pipe.encode_prompts(prompt, "")
    pictures = []
    for first in range(0, count, BATCH):
        asked = SampleRequest(defaults, (), 1000 + first)
        each = words.expand(min(BATCH, count - first), -1, -1)
        pictures += draw_samples(pipe.unet, pipe.vae, pipe.model.config.noise, asked, each, empty)
    return torch.cat([from_image(picture) for picture in pictures])


def test_points_lie_where_the_data_do(model: Callable[[str], Pipeline]) -> None:
    state = model("points").generate(seed=5).steps[-1].x
    cloud = state[0].flatten(1).T.double().numpy()
    data = [DENSITIES["moons"](np.random.default_rng(100 + i), POINTS) for i in range(9)]
    between = np.mean([sliced_wasserstein(data[i], data[i + 1], seed=i) for i in range(8)])
    ours = np.mean([sliced_wasserstein(cloud, each, seed=i) for i, each in enumerate(data)])
    print(
        f"sliced Wasserstein: {ours:.4f}, between draws of the data {between:.4f}, {ours / between:.2f} times"
    )
    assert ours < 1.5 * between


def test_toy_makes_digits_of_all_kinds(model: Callable[[str], Pipeline]) -> None:
    chance = chances(classifier(28), made(model("toy"), 400)[:, :1])
    sure = float((chance.max(1).values > 0.9).float().mean())
    counts = torch.bincount(chance.argmax(1), minlength=10)
    print(f"confident {sure:.3f}, of each digit {counts.tolist()}")
    assert sure >= 0.9
    assert int(counts.min()) >= 20
    assert int(counts.max()) <= 80


def test_conditional_makes_the_digit_that_is_asked_for(model: Callable[[str], Pipeline]) -> None:
    pipe, net, right = model("conditional"), classifier(28), {}
    for scale in (0.0, 1.0, 2.0, 3.0, 5.0, 8.0):
        found = [
            chances(net, made(pipe, 32, prompt=str(digit), cfg_scale=scale)[:, :1]).argmax(1) == digit
            for digit in range(10)
        ]
        right[scale] = float(torch.cat(found).float().mean())
    print(f"right by scale: {right}")
    assert right[3.0] >= 0.95
    assert right[1.0] < right[3.0]


def test_latent_draws_the_shape_in_the_colour_that_is_asked_for(model: Callable[[str], Pipeline]) -> None:
    pictures, labels, names = shapes(1001, 12000, 32)
    net, pipe, right = trained_classifier(pictures, labels, 2500), model("latent"), {}
    pictures, labels, _ = shapes(2002, 1000, 32)
    known = float((chances(net, pictures).argmax(1) == labels).float().mean())
    for scale in (1.0, 3.0):
        found = [
            chances(net, made(pipe, 6, prompt=name, cfg_scale=scale)).argmax(1) == i
            for i, name in enumerate(names)
        ]
        right[scale] = float(torch.cat(found).float().mean())
    print(f"right by scale: {right}; of drawn pictures {known:.3f}")
    assert known > 0.95
    assert right[3.0] >= 0.95
    assert right[1.0] <= right[3.0]


def test_fifty_steps_of_ddim_are_as_good_as_a_thousand_of_ddpm(model: Callable[[str], Pipeline]) -> None:
    pipe, net = model("ddpm"), classifier(32)
    with torch.no_grad():
        real = net.features(digits(3003, 2000, 32)[0])
        other = net.features(digits(4004, 512, 32)[0])
        made_by = {
            (sampler, steps): net.features(made(pipe, 512, sampler=sampler, steps=steps)[:, :1])
            for sampler, steps in (("ddim", 10), ("ddim", 20), ("ddim", 50), ("ddpm", 50), ("ddpm", 1000))
        }
    apart = {ran: round(frechet(real, features), 2) for ran, features in made_by.items()}
    print(f"Frechet distance to the data: {apart}; between draws of the data {frechet(real, other):.2f}")
    assert apart["ddim", 50] < 1.2 * apart["ddpm", 1000]
