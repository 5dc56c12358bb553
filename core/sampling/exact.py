"""Denoisers that are known exactly, and where the probability-flow ODE leads when they are its denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Exact:
    """A `denoise` that is a formula. Its `unconditional` is what the call returned: there is no guidance."""

    unconditional: Tensor  # (B, C, h, w) of the last call; there is none before the first

    def __init__(
        self,
        estimate: Callable[[Tensor, float], Tensor],
        flow: Callable[[Tensor, float, float], Tensor] | None = None,
    ) -> None:
        self._estimate, self._flow = estimate, flow

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The mean of the clean latents that x (B, C, h, w) at noise level `sigma` may have come from."""
        self.unconditional = self._estimate(x, sigma)
        return self.unconditional

    def flow(self, x: Tensor, sigma: float, target: float = 0.0) -> Tensor:
        """Where the probability-flow ODE through x (B, C, h, w) at `sigma` is at `target`.

        A deterministic sampler's exact result. Raises NotImplementedError where there is no formula.
        """
        if self._flow is None:
            raise NotImplementedError("there is no formula for this denoiser's flow")
        return self._flow(x, sigma, target)


def gaussian(mean: float | Tensor = 0.0, std: float = 1.0) -> Exact:
    """The exact denoiser for clean latents that are N(mean, std^2), every number by itself.

    `mean` is a number or a tensor that broadcasts to (B, C, h, w). Along the probability-flow ODE
    (x - mean) / sqrt(std^2 + sigma^2) stays what it was.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        share = std**2 / (std**2 + sigma**2)
        return share * x + (1 - share) * mean

    def flow(x: Tensor, sigma: float, target: float) -> Tensor:
        return mean + math.hypot(std, target) / math.hypot(std, sigma) * (x - mean)

    return Exact(denoise, flow)


def mixture(means: Sequence[float], std: float = 1.0) -> Exact:
    """The exact denoiser for numbers that are each N(m, std^2), m one of `means`, as likely as the others.

    Unlike for one Gaussian it is not linear in x. Along the probability-flow ODE the share of all numbers
    that are smaller stays what it was (in one dimension there is no other way to carry one density into the
    next), and that is solved for x here, to float64's precision.
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
    """The exact denoiser for latents that are one of `clean` (K, C, h, w), each as likely as the others.

    It is their mean, weighted by how well each explains x: Karras et al. 2022, arXiv:2206.00364, eq. 57.
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        known = clean.to(x)
        gaps = x.flatten(1)[:, None] - known.flatten(1)[None]  # (B, K, C h w)
        weights = (-gaps.square().sum(-1) / (2 * sigma**2)).softmax(-1)  # (B, K)
        return (weights @ known.flatten(1)).reshape(x.shape)

    return Exact(denoise)


def consistency(exact: Exact) -> Exact:
    """What a model that was distilled from `exact` knows: not the mean, but where the flow ends.

    Song et al. 2023, arXiv:2303.01469. Samplers for such models, as LCM, are right with this denoiser alone.
    """
    return Exact(lambda x, sigma: exact.flow(x, sigma, 0.0), exact.flow)
