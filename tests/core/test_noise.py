"""Noise is a pure function of the image's seed, the level and the number of the draw."""

from __future__ import annotations

import pytest
import torch

from core.sampling.noise import SeededNoise, start_noise

SHAPE = (4, 6, 5)


def test_start_noise_of_image_i_is_that_of_its_seed_alone() -> None:
    batch = start_noise(7, 3, SHAPE)
    assert batch.shape == (3, *SHAPE)
    assert batch.dtype == torch.float32
    for i in range(3):
        assert torch.equal(batch[i : i + 1], start_noise(7 + i, 1, SHAPE))


def test_start_noise_is_what_a_seeded_cpu_generator_gives() -> None:
    expected = torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(11))
    assert torch.equal(start_noise(11, 1, SHAPE), expected)


def test_a_batch_draws_what_its_images_draw_alone() -> None:
    batch, alone = SeededNoise(3, 4, SHAPE), [SeededNoise(3 + i, 1, SHAPE) for i in range(4)]
    for sigma, target in ((9.0, 4.0), (4.0, 1.0), (4.0, 1.0)):
        together = batch(sigma, target)
        assert torch.equal(together, torch.cat([source(sigma, target) for source in alone]))


def test_a_resumed_run_meets_the_same_noise() -> None:
    whole = SeededNoise(5, 2, SHAPE)
    draws = [whole(sigma, 0.0) for sigma in (9.0, 4.0, 1.0)]
    resumed = SeededNoise(5, 2, SHAPE)
    assert torch.equal(resumed(4.0, 0.0), draws[1])
    assert torch.equal(resumed(1.0, 0.0), draws[2])


def test_a_level_that_was_kept_in_single_precision_still_matches() -> None:
    sigma = 3.14159265358979
    kept = float(torch.tensor(sigma, dtype=torch.float32))
    assert torch.equal(SeededNoise(1, 1, SHAPE)(sigma, 0.0), SeededNoise(1, 1, SHAPE)(kept, 0.0))


def test_draws_differ_by_seed_level_and_number() -> None:
    source = SeededNoise(5, 1, (64, 8, 8))
    draws = [source(4.0, 1.0), source(4.0, 1.0), source(3.0, 1.0), SeededNoise(6, 1, (64, 8, 8))(4.0, 1.0)]
    draws.append(start_noise(5, 1, (64, 8, 8)))
    flat = torch.stack([draw.flatten() for draw in draws])
    # 4096 values: a correlation of two independent draws has a standard deviation of 1/64
    assert (torch.corrcoef(flat) - torch.eye(5)).abs().max() < 6 / 64


def test_unit_variance() -> None:
    values = torch.cat([SeededNoise(0, 8, (4, 32, 32))(sigma, 0.0) for sigma in (0.1, 1.0, 10.0)])
    assert abs(values.mean()) < 6 / values.numel() ** 0.5
    assert values.var().item() == pytest.approx(1, abs=6 * (2 / values.numel()) ** 0.5)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    start_noise(1, 2, SHAPE)
    SeededNoise(1, 2, SHAPE)(1.0, 0.0)
    assert torch.equal(before, torch.get_rng_state())
