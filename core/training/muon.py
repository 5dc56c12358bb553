"""Muon: an optimizer whose steps turn every direction of a weight matrix by the same amount.

The momentum of a matrix is replaced by the nearest orthogonal one, found by a few products (Newton-Schulz),
so that rare directions learn as fast as common ones: Jordan 2024, https://kellerjordan.github.io/posts/muon/.
The size of the step is that of Liu et al. 2025, arXiv:2502.16982, so AdamW's learning rates serve here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from core.device import has_bfloat16

# Coefficients of a polynomial that brings singular values near 1 in few steps, but not exactly to 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_SIDE = 16  # narrower matrices do not gain from Muon


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, whose kernels are flattened; Adam for biases, gains and what is
    narrow. Weight decay is decoupled from the gradient, and of matrices alone.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.momentum, self.betas = momentum, betas

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        """One step with the current gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if _is_matrix(weight):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    self._turn(weight, group["lr"])
                else:
                    self._adam(weight, group["lr"])

    def _turn(self, weight: Tensor, lr: float) -> None:
        state = self.state[weight]
        if not state:
            state["m"] = torch.zeros_like(weight)
        state["m"].lerp_(weight.grad, 1 - self.momentum)
        ahead = weight.grad.lerp(state["m"], self.momentum).flatten(1)  # pyrefly: ignore[missing-attribute]
        turn = orthogonal(ahead) * (0.2 * math.sqrt(max(ahead.shape)))
        weight.sub_(turn.view_as(weight), alpha=lr)

    def _adam(self, weight: Tensor, lr: float) -> None:
        state, (first, second) = self.state[weight], self.betas
        if not state:
            state["m"], state["v"] = torch.zeros_like(weight), torch.zeros_like(weight)
            state["t"] = torch.zeros(())
        state["t"] += 1
        state["m"].lerp_(weight.grad, 1 - first)
        state["v"].lerp_(weight.grad.square(), 1 - second)  # pyrefly: ignore[missing-attribute]
        mean = state["m"] / (1 - first ** float(state["t"]))
        spread = (state["v"] / (1 - second ** float(state["t"]))).sqrt() + 1e-8
        weight.addcdiv_(mean, spread, value=-lr)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the orthogonal matrix nearest to `matrix` (M, N): singular values between 0.7 and 1.2,
    the vectors the same. The products are taken in bfloat16 where the hardware has it.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.bfloat16() if has_bfloat16(x.device) else x.float()
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim >= 2 and min(len(weight), weight[0].numel()) >= _LEAST_SIDE
