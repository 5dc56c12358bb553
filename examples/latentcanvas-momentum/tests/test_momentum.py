"""Both samplers keep the contract at their declared order, and are what they become without momentum."""

from itertools import pairwise

import pytest
import torch
from latentcanvas_momentum import ghvb, heavy_ball

from latentcanvas.testing import check_sampler, mixture, seeded_noise


@pytest.mark.parametrize("beta", [0.3, 0.8, 1])
@pytest.mark.parametrize(("sampler", "order"), [(heavy_ball, 1), (ghvb, 2)])
def test_they_keep_the_contract(sampler, order, beta):
    report = check_sampler(sampler, order=order, options={"beta": beta})
    assert report.passed, str(report)


def test_without_momentum_it_is_adams_bashforth():
    denoise, sigmas = mixture([-1, 1], 0.5), [10.0, 6.0, 3.0, 1.0, 0.0]
    noise = seeded_noise(0, 1, (4, 4, 4))
    start = x = 10 * noise(1.0, 0.0)
    slopes = []
    for (sigma, target), step in zip(
        pairwise(sigmas), ghvb(denoise, start, sigmas, noise, beta=1.0), strict=True
    ):
        slopes.append((x - denoise(x, sigma)) / sigma)
        mean = slopes[-1] if len(slopes) == 1 else 1.5 * slopes[-1] - 0.5 * slopes[-2]
        x = x + (target - sigma) * mean
        torch.testing.assert_close(step.x, x)
