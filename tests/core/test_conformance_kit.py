"""The exact denoisers are the posterior means that they claim to be."""

from __future__ import annotations

import pytest
import torch

from core.conformance import Exact, consistency, gaussian, mixture, points, seeded_noise

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
    from core.sampling.noise import SeededNoise

    assert torch.equal(seeded_noise(3, 2, (4, 2, 2))(1.0, 0.5), SeededNoise(3, 2, (4, 2, 2))(1.0, 0.5))


def test_a_mixture_is_the_posterior_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    chosen = means[torch.randint(2, (400_000,), generator=generator)]
    samples = chosen + 0.4 * torch.randn(400_000, generator=generator, dtype=torch.float64)
    for value in (-1.5, 0.4, 2.5):
        x = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
        exact = mixture(means.tolist(), 0.4)(x, SIGMA).item()
        assert exact == pytest.approx(posterior_mean(samples[:, None], x.flatten()).item(), abs=0.01)


def test_a_mixture_of_one_is_a_gaussian() -> None:
    x = torch.linspace(-9, 9, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    one, plain = mixture([0.3], 0.6), gaussian(0.3, 0.6)
    torch.testing.assert_close(one(x, 4.0), plain(x, 4.0))
    torch.testing.assert_close(one.flow(x, 4.0, 0.5), plain.flow(x, 4.0, 0.5))


@pytest.mark.parametrize("exact", [gaussian(0.5, 0.7), mixture([-1.0, 0.5, 1.5], 0.5)])
def test_the_flow_solves_the_equation(exact: Exact) -> None:
    """dx/dsigma is (x - denoise(x)) / sigma, by central differences along the flow."""
    x = torch.linspace(-4, 4, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    for sigma in (0.4, 1.0, 3.0):
        there = exact.flow(x, 5.0, sigma)
        slope = (exact.flow(x, 5.0, sigma + 1e-4) - exact.flow(x, 5.0, sigma - 1e-4)) / 2e-4
        torch.testing.assert_close(slope, (there - exact(there, sigma)) / sigma, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(exact.flow(x, 5.0, 5.0), x)


def test_a_consistency_model_jumps_to_the_end() -> None:
    x = torch.linspace(-4, 4, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    exact = gaussian(0.5, 0.7)
    torch.testing.assert_close(consistency(exact)(x, 3.0), exact.flow(x, 3.0, 0.0))


def test_unconditional_is_the_last_estimate() -> None:
    x = torch.ones(1, 1, 2, 2)
    denoise = points(torch.zeros(1, 1, 2, 2))
    assert not hasattr(denoise, "unconditional")
    assert denoise(x, 1.0) is denoise.unconditional
    with pytest.raises(NotImplementedError):
        denoise.flow(x, 1.0)
