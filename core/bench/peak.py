"""How close a step comes to the hardware's peak: its FLOP against the speed of a matrix product."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from core.models.build import unet_class
from core.models.config import CoderConfig, UNetConfig

SIDE = 2048


def peak_percent(
    unet: UNetConfig, coder: CoderConfig, size: tuple[int, int], dtype: torch.dtype, seconds: float
) -> float:
    """The speed of a guided step of `seconds`, in percent of a matrix product's. size: latent (h, w)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return 100 * step_flop(unet, coder, size) / seconds / product_speed(device, dtype)


def step_flop(unet: UNetConfig, coder: CoderConfig, size: tuple[int, int]) -> int:
    """Floating-point operations of a step with guidance: convolutions, linear layers, attention's products.

    They are counted on the meta device, without computing anything.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counted:
        network = unet_class(coder)(unet)
        text = torch.empty(2, 77, unet.cross_attention_dim)
        network(torch.empty(2, unet.in_channels, *size), torch.empty(2), text)
    return int(counted.get_total_flops())


def product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two SIDE x SIDE matrices, the best of six."""
    a = torch.randn(SIDE, SIDE, device=device).to(dtype)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for an accelerator
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best
