"""Exact denoisers, and the exact solutions of their probability-flow ODEs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Exact:
    """A `denoise` in closed form. Without guidance, `unconditional` is what the last call returned."""

    unconditional: Tensor  # (B, C, h, w) of the last call; not set before the first

    def __init__(
        self,
        estimate: Callable[[Tensor, float], Tensor],
        flow: Callable[[Tensor, float, float], Tensor] | None = None,
    ) -> None:
        self._estimate, self._flow = estimate, flow

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The posterior mean of the clean latents given x (B, C, h, w) at noise level `sigma`."""
        self.unconditional = self._estimate(x, sigma)
        return self.unconditional

    def flow(self, x: Tensor, sigma: float, target: float = 0.0) -> Tensor:
        """The solution at `target` of the probability-flow ODE through x (B, C, h, w) at `sigma`.

        The exact result of a deterministic sampler. Raises NotImplementedError if there is no formula.
        """
        if self._flow is None:
            raise NotImplementedError("there is no formula for this denoiser's flow")
        return self._flow(x, sigma, target)


def gaussian(mean: float | Tensor = 0.0, std: float = 1.0) -> Exact:
    """The exact denoiser for clean latents whose values are independent N(mean, std^2).

    `mean` is a number or a tensor that broadcasts to (B, C, h, w). Along the probability-flow ODE
    (x - mean) / sqrt(std^2 + sigma^2) is constant.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        share = std**2 / (std**2 + sigma**2)
        return share * x + (1 - share) * mean

    def flow(x: Tensor, sigma: float, target: float) -> Tensor:
        return mean + math.hypot(std, target) / math.hypot(std, sigma) * (x - mean)

    return Exact(denoise, flow)


def mixture(means: Sequence[float], std: float = 1.0) -> Exact:
    """The exact denoiser for independent values from a mixture of N(m, std^2), each m in `means` equally
    likely.

    Unlike for one Gaussian it is not linear in x. Along the probability-flow ODE the quantile of a value is
    constant (in one dimension no other map carries one density into the next); this is solved for x to
    float64's precision.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        import torch

        centres = torch.tensor(means, dtype=x.dtype, device=x.device)
        variance = std**2 + sigma**2
        weights = (-(x[..., None] - centres).square() / (2 * variance)).softmax(-1)  # (B, C, h, w, K)
        share = std**2 / variance
        return share * x + (1 - share) * (weights * centres).sum(-1)

    def smaller(x: Tensor, sigma: float) -> Tensor:
        import torch

        centres = torch.tensor(means, dtype=x.dtype, device=x.device)
        shares: Tensor = torch.special.ndtr((x[..., None] - centres) / math.hypot(std, sigma)).mean(-1)
        return shares

    def flow(x: Tensor, sigma: float, target: float) -> Tensor:
        import torch

        share = smaller(x, sigma)
        reach = 40 * math.hypot(std, target)
        low, high = torch.full_like(x, min(means) - reach), torch.full_like(x, max(means) + reach)
        for _ in range(100):  # halvings
            middle = (low + high) / 2
            below = smaller(middle, target) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    return Exact(denoise, flow)


def points(clean: Tensor) -> Exact:
    """The exact denoiser for latents that are one of `clean` (K, C, h, w), each equally likely.

    Their mean, weighted by the likelihood of x: Karras et al. 2022, arXiv:2206.00364, eq. 57.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        known = clean.to(x)
        gaps = x.flatten(1)[:, None] - known.flatten(1)[None]  # (B, K, C h w)
        weights = (-gaps.square().sum(-1) / (2 * sigma**2)).softmax(-1)  # (B, K)
        return (weights @ known.flatten(1)).reshape(x.shape)

    return Exact(denoise)


def consistency(exact: Exact) -> Exact:
    """The exact consistency model distilled from `exact`: it returns the end of the flow, not the mean.

    Song et al. 2023, arXiv:2303.01469. Samplers for such models, as LCM, are correct with this one only.
    """
    return Exact(lambda x, sigma: exact.flow(x, sigma, 0.0), exact.flow)
