"""The layers that the VAE and the UNet share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.fast import winograd


def silu(x: Tensor) -> Tensor:
    """SiLU of x, of any shape, in place when x is not needed for gradients. Nothing else may use x."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, own: Tensor) -> Tensor:
    """X + own, of the same shape or x broadcast. In place in `own`, which nothing else may use, unless
    gradients are needed or x has another memory layout; the sum then has the layout of x.
    """
    if torch.is_grad_enabled() or (x.shape == own.shape and x.stride() != own.stride()):
        return x + own
    return own.add_(x)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size. On a map of one cell the rest of the kernel only sees padding,
    so only its centre is used: a ninth of the work.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        if input.shape[2:] == (1, 1):
            return F.linear(input.flatten(1), self.weight[:, :, 1, 1], self.bias)[:, :, None, None]
        if self.bias is not None and winograd.suits(input, self.weight):
            return winograd.convolve(input, self.weight, self.bias)
        return super().forward(input)


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with a residual connection; the timestep is added in between.

    (B, in, H, W) -> (B, out, H, W), `time` (B, time_channels) or None where there is no time (the VAE).
    """

    def __init__(
        self, channels_in: int, channels_out: int, groups: int, eps: float, time_channels: int | None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=eps)
        self.conv1 = Conv3x3(channels_in, channels_out)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, channels_out)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=eps)
        self.conv2 = Conv3x3(channels_out, channels_out)
        if channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        self.changes_width = channels_in != channels_out

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))  # (B, out, H, W)
        if time is not None:
            h = add(self.time_emb_proj(F.silu(time))[:, :, None, None], h)  # (B, out, 1, 1) + h
        h = self.conv2(silu(self.norm2(h)))
        return add(h, self.conv_shortcut(x)) if self.changes_width else add(x, h)


class Upsample(nn.Module):
    """Nearest neighbour to `size` (twice the side when None), then a convolution.

    (B, C, H, W) -> (B, C, 2H, 2W), or one row or column less if halving had rounded up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        height, width = size or (2 * x.shape[2], 2 * x.shape[3])
        out: Tensor = self.conv(F.interpolate(x, (height, width), mode="nearest"))
        return out


class Downsample(nn.Module):
    """A convolution of stride 2: (B, C, H, W) -> (B, C, H/2, W/2).

    The UNet pads all sides; the VAE's encoder pads only right and bottom (`one_sided`), as its weights
    expect.
    """

    def __init__(self, channels: int, *, one_sided: bool) -> None:
        super().__init__()
        self.one_sided = one_sided
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if one_sided else 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)
        return out
