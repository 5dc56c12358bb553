"""The Brownian source: a pure function of seed and interval, with the law of Brownian motion in log sigma."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from core.sampling.noise import BrownianNoise, SeededNoise, noise_source

SHAPE = (4, 32, 32)
LEVELS = [14.6, 9.0, 5.5, 2.0, 1.1, 0.3, 0.029]


def test_a_draw_depends_on_seed_and_interval_alone() -> None:
    """Not on what was drawn before, so a run may start anywhere; not on the batch."""
    whole = BrownianNoise(7, 1, SHAPE)
    draws = [whole(*interval) for interval in pairwise(LEVELS)]
    later, batch = BrownianNoise(7, 1, SHAPE), BrownianNoise(5, 4, SHAPE)
    for interval, draw in reversed(list(zip(pairwise(LEVELS), draws, strict=True))):
        assert torch.equal(later(*interval), draw)
        assert torch.equal(batch(*interval)[2:3], draw)
    assert not torch.equal(BrownianNoise(8, 1, SHAPE)(*LEVELS[:2]), draws[0])
    assert draws[0].dtype == torch.float32


def test_draws_are_standard_normal_and_independent_where_they_do_not_overlap() -> None:
    """Six standard errors of 4096 numbers."""
    noise = BrownianNoise(3, 1, SHAPE)
    draws = [noise(*interval).flatten() for interval in pairwise(LEVELS)]
    error = 6 / math.sqrt(draws[0].numel())
    for draw in draws:
        assert abs(float(draw.mean())) < error
        assert abs(float(draw.var()) - 1) < error * math.sqrt(2)
    products = torch.stack(draws) @ torch.stack(draws).T / draws[0].numel()
    assert float((products - torch.diag(products.diag())).abs().max()) < error


def test_small_steps_add_up_to_the_large_one() -> None:
    noise = BrownianNoise(1, 2, SHAPE)
    lengths = [math.log(a / b) for a, b in pairwise(LEVELS)]
    parts = [math.sqrt(n) * noise(*interval) for n, interval in zip(lengths, pairwise(LEVELS), strict=True)]
    total = sum(parts) / math.sqrt(sum(lengths))
    assert float((total - noise(LEVELS[0], LEVELS[-1])).abs().max()) < 0.001


@pytest.mark.parametrize(
    "interval", [(14.6, 0.0), (1e9, 4000.0), (1e-9, 1e-12), (2.0, 2.0 * (1 - 1e-9)), (2.0, 9.0)]
)
def test_no_interval_is_too_long_too_short_or_upside_down(interval: tuple[float, float]) -> None:
    draw = BrownianNoise(1, 1, SHAPE)(*interval)
    assert bool(draw.isfinite().all())
    assert float(draw.var()) == pytest.approx(1, abs=6 * math.sqrt(2 / draw.numel()))


def test_up_and_down_again_is_nowhere() -> None:
    noise = BrownianNoise(1, 1, SHAPE)
    assert torch.equal(noise(2.0, 9.0), -noise(9.0, 2.0))


def test_the_kinds_of_noise() -> None:
    assert isinstance(noise_source("brownian", 1, 1, SHAPE), BrownianNoise)
    assert isinstance(noise_source("fresh", 1, 1, SHAPE), SeededNoise)
