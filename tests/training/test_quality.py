"""The recipes from nothing to good samples: minutes of training, so all of it is slow.

How good is measured by what is exact: distances to fresh data, and a classifier trained on the digits that
the project draws. Where a run's folder is named in LATENTCANVAS_RUNS, as `runs`, its models are measured
instead of new ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.pipeline import Pipeline
from core.training.densities import DENSITIES
from core.training.trainer import train
from tests.training.measures import Classifier, digits, frechet, sliced_wasserstein, trained_classifier

RECIPES = Path(__file__).resolve().parents[2] / "data" / "recipes"
POINTS = 1024

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pipeline]:
    runs = os.environ.get("LATENTCANVAS_RUNS")

    def load(kind: str) -> Pipeline:
        folder = Path(runs) / kind / "model" if runs else None
        if folder is None or not folder.is_dir():
            folder = train(RECIPES / f"{kind}.toml", out=tmp_path_factory.mktemp(kind), device="cpu")
        return Pipeline.load(folder, device="cpu")

    return load


@lru_cache
def classifier(size: int) -> Classifier:
    net = trained_classifier(size)
    pictures, labels = digits(2002, 1000, size)
    right = float((chances(net, pictures).argmax(1) == labels).float().mean())
    assert right > 0.97, right
    return net


@torch.no_grad()
def chances(net: Classifier, pictures: Tensor) -> Tensor:
    """(B, 10)"""
    chance: Tensor = net(pictures).softmax(1)
    return chance


def made(pipe: Pipeline, count: int, **asked: Any) -> Tensor:
    """Samples as (count, 1, S, S) in [-1, 1]."""
    states = []
    for first in range(0, count, 16):
        run = pipe.stream(seed=1000 + first, batch=min(16, count - first), keep_steps=False, **asked)
        states.append(run.result().steps[-1].x)
    return torch.cat(states).clamp(-1, 1)


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
    chance = chances(classifier(28), made(model("toy"), 400))
    sure = float((chance.max(1).values > 0.9).float().mean())
    counts = torch.bincount(chance.argmax(1), minlength=10)
    print(f"confident {sure:.3f}, of each digit {counts.tolist()}")
    assert sure >= 0.9
    assert int(counts.min()) >= 20
    assert int(counts.max()) <= 80


def test_conditional_makes_the_digit_that_is_asked_for(model: Callable[[str], Pipeline]) -> None:
    pipe, net, right = model("conditional"), classifier(28), {}
    for scale in (1.0, 3.0):
        found = [
            (chances(net, made(pipe, 16, prompt=str(digit), cfg_scale=scale)).argmax(1) == digit).float()
            for digit in range(10)
        ]
        right[scale] = float(torch.cat(found).mean())
    print(f"right by scale: {right}")
    assert right[3.0] >= 0.95
    assert right[1.0] < right[3.0]


def test_fifty_steps_of_ddim_are_as_good_as_a_thousand_of_ddpm(model: Callable[[str], Pipeline]) -> None:
    pipe, net = model("ddpm"), classifier(32)
    with torch.no_grad():
        real = net.features(digits(3003, 1000, 32)[0])
        few = net.features(made(pipe, 256, sampler="ddim", steps=50))
        many = net.features(made(pipe, 256, sampler="ddpm", steps=1000))
    distances = frechet(real, few), frechet(real, many)
    print(f"Frechet distance to the data: DDIM 50 {distances[0]:.2f}, DDPM 1000 {distances[1]:.2f}")
    assert distances[0] < 1.2 * distances[1]
