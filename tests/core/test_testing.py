"""The exact denoisers are the posterior means that they claim to be."""

from __future__ import annotations

import pytest
import torch

from core.testing import gaussian, points, seeded_noise

SIGMA = 0.8


def posterior_mean(clean: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The mean of samples `clean` (N, D), weighted by how well each explains x (D,)."""
    weights = (-(x - clean).square().sum(-1) / (2 * SIGMA**2)).softmax(0)
    return weights @ clean


def test_gaussian_is_the_posterior_mean() -> None:
    samples = 0.3 + 0.6 * torch.randn(
        400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for value in (-1.0, 0.3, 2.0):
        x = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
        exact = gaussian(0.3, 0.6)(x, SIGMA).item()
        assert exact == pytest.approx(posterior_mean(samples, x.flatten()).item(), abs=0.01)


def test_points_are_weighted_by_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(5, 2, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    found = points(clean)(x, SIGMA)
    for row, given in zip(found, x, strict=True):
        torch.testing.assert_close(row.flatten(), posterior_mean(clean.flatten(1), given.flatten()))


def test_gaussian_limits() -> None:
    """Without noise x is the answer; under all noise it says nothing, and the mean is."""
    mean, x = torch.ones(2, 3, 3), torch.full((4, 2, 3, 3), 3.0)
    torch.testing.assert_close(gaussian(mean, 0.5)(x, 1e-4), x, rtol=1e-4, atol=0)
    torch.testing.assert_close(gaussian(mean, 0.5)(x, 1e4), torch.ones_like(x), rtol=1e-4, atol=0)


def test_points_are_found_without_noise() -> None:
    clean = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(points(clean)(clean + 1e-4, 1e-3), clean)
    far = points(clean)(torch.zeros(1, 2, 3, 3), 1e4)
    torch.testing.assert_close(far[0], clean.mean(0), rtol=1e-4, atol=1e-4)


def test_seeded_noise_is_what_a_run_has() -> None:
    from core.noise import SeededNoise

    assert torch.equal(seeded_noise(3, 2, (4, 2, 2))(1.0, 0.5), SeededNoise(3, 2, (4, 2, 2))(1.0, 0.5))
