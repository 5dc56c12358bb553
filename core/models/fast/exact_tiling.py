"""Exact tiling: the VAE of a large image in tiles of full rows, with the same result in less memory.

Tiles computed independently differ in tone, because a group norm needs the whole map. Here each norm's mean
and variance are gathered over all tiles first, so there are no seams and only rounding differs. Of the large
maps only one is in memory at a time, which a residual block's result overwrites; another one that is needed
twice is computed twice. The small maps, and with them the attention, are computed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.layers import Downsample, ResnetBlock, Upsample, silu

# Numbers in a map of one image. A residual block on a map of at most WHOLE is computed at once (SD 1.5's
# levels up to 256x256). A tile has about TILE.
WHOLE = 512 * 256 * 256
TILE = 256 * 1024 * 32

Shape = tuple[int, int, int, int]
Affine = Callable[[Tensor], Tensor]


class _Half(Protocol):
    """What the VAE's encoder and decoder (core/models/vae.py) share."""

    conv_in: nn.Conv2d
    conv_norm_out: nn.GroupNorm
    conv_out: nn.Conv2d

    @property
    def mid_block(self) -> nn.Module: ...


class TiledEncoder(_Half, Protocol):
    """The parts of an encoder that are used here."""

    down_blocks: nn.ModuleList


class TiledDecoder(_Half, Protocol):
    """The parts of a decoder that are used here."""

    up_blocks: nn.ModuleList


@dataclass(frozen=True, eq=False)
class Rows:
    """A map (1, C, H, W) whose rows are computed on demand.

    take: the rows from a start to before an end. tile: the rows of one tile. held: how many numbers are in
    memory for it. map: the whole map, if it is in memory.
    """

    shape: Shape
    take: Callable[[int, int], Tensor]
    tile: int
    held: int
    map: Tensor | None = None

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Start and end row of each tile, from top to bottom."""
        height = self.shape[2]
        return ((start, min(start + self.tile, height)) for start in range(0, height, self.tile))


@torch.no_grad()
def decode(decoder: TiledDecoder, z: Tensor, largest: int) -> Tensor:
    """`decoder(z)` of z (1, C, h, w): (1, 3, H, W). largest: the numbers in its largest map."""
    x = _held(decoder.mid_block(decoder.conv_in(z)))  # (1, 512, h, w)
    most = 3 * largest // 4  # SD 1.5: the image's map of 128 channels, and that of 256 at half its side
    for layer in decoder.up_blocks.modules():
        if isinstance(layer, ResnetBlock):
            x = _residual(layer, x, most)
        elif isinstance(layer, Upsample):
            x = _kept(_upsampled(x, layer), most)
    return _filled(_convolved(x, decoder.conv_out, _normalised(x, decoder.conv_norm_out)))  # (1, 3, H, W)


@torch.no_grad()
def encode(encoder: TiledEncoder, picture: Tensor) -> Tensor:
    """`encoder(picture)` of an image (1, 3, H, W): (1, 2C, h, w)."""
    x = _held(_filled(_convolved(_held(picture), encoder.conv_in)))  # (1, 128, H, W)
    most = x.held
    for layer in encoder.down_blocks.modules():
        if isinstance(layer, ResnetBlock):
            x = _residual(layer, x, most)
        elif isinstance(layer, Downsample):
            x = _held(_filled(_downsampled(x, layer)))
    h = encoder.mid_block(x.take(0, x.shape[2]))  # (1, 512, h, w)
    out: Tensor = encoder.conv_out(silu(encoder.conv_norm_out(h)))
    return out


def _residual(block: ResnetBlock, x: Rows, most: int) -> Rows:
    """The residual block's result, in memory: written over x's map, or the inner one if the width changes."""
    if prod(x.shape) <= WHOLE:
        return _held(block(x.take(0, x.shape[2])))
    h = _kept(_convolved(x, block.conv1, _normalised(x, block.norm1)), most)
    h2 = _convolved(h, block.conv2, _normalised(h, block.norm2))

    def take(start: int, end: int) -> Tensor:
        left = x.take(start, end)
        return h2.take(start, end).add_(block.conv_shortcut(left) if block.changes_width else left)

    out = Rows(h2.shape, take, min(x.tile, h2.tile), h2.held)
    return _held(_filled(out, h.map if block.changes_width else x.map))


def _kept(x: Rows, most: int) -> Rows:
    """The same map, brought into memory if no more than `most` numbers are then there."""
    return _held(_filled(x)) if x.held + prod(x.shape) <= most else x


def _held(x: Tensor) -> Rows:
    """A map that is in memory."""
    shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
    return Rows(shape, lambda start, end: x[:, :, start:end], _tile(shape), prod(shape), x)


def _convolved(x: Rows, conv: nn.Conv2d, norm: Affine | None = None) -> Rows:
    """A 3x3 convolution of x, after norm and SiLU if a norm is given."""
    height = x.shape[2]

    def take(start: int, end: int) -> Tensor:
        first, last = max(start - 1, 0), min(end + 1, height)
        h = x.take(first, last)
        out: Tensor = conv(h if norm is None else F.silu(norm(h), inplace=True))
        # The padding is only right at the map's own edges; elsewhere its rows are cut off.
        return out[:, :, start - first : end - first]

    shape = (1, conv.out_channels, *x.shape[2:])
    return Rows(shape, take, min(x.tile, _tile(shape)), x.held)


def _upsampled(x: Rows, layer: Upsample) -> Rows:
    height = x.shape[2]

    def take(start: int, end: int) -> Tensor:
        first, last = max((start - 1) // 2, 0), min(end // 2 + 1, height)
        out: Tensor = layer(x.take(first, last))
        return out[:, :, start - 2 * first : end - 2 * first]

    shape = (1, x.shape[1], 2 * height, 2 * x.shape[3])
    return Rows(shape, take, _tile(shape), x.held)


def _downsampled(x: Rows, layer: Downsample) -> Rows:
    height = x.shape[2]

    def take(start: int, end: int) -> Tensor:
        out: Tensor = layer(x.take(2 * start, min(2 * end + 1, height)))
        return out

    shape = (1, x.shape[1], height // 2, x.shape[3] // 2)
    return Rows(shape, take, max(x.tile // 2, 1), x.held)


def _normalised(x: Rows, norm: nn.GroupNorm) -> Affine:
    """The group norm of x as a function of its rows, with the mean and the variance of the whole map.

    The statistics of the tiles are merged as in Chan et al. 1983, which needs no large sum of squares.
    """
    groups, shares, means, variances = norm.num_groups, [], [], []
    for start, end in x.tiles():
        # In float32, by the kernel of the norm itself, the fastest for these sums.
        rows = x.take(start, end).float()  # (1, C, end - start, W)
        rows = rows.contiguous(memory_format=_layout(rows))
        _, mean, rstd = torch.native_group_norm(
            rows, None, None, 1, norm.num_channels, rows[0, 0].numel(), groups, norm.eps
        )
        shares.append((end - start) / x.shape[2])
        means.append(mean[0])  # (G,)
        variances.append(rstd[0].pow(-2) - norm.eps)
        del rows
    share = torch.tensor(shares, device=means[0].device)[:, None]
    mean = (share * torch.stack(means)).sum(0)  # (G,)
    variance = (share * (torch.stack(variances) + (torch.stack(means) - mean).square())).sum(0)
    each_channel = norm.num_channels // groups
    mean, variance = mean.repeat_interleave(each_channel), variance.repeat_interleave(each_channel)  # (C,)
    weight, bias = norm.weight.float(), norm.bias.float()
    return lambda h: F.batch_norm(h, mean, variance, weight, bias, eps=norm.eps)


def _filled(x: Rows, room: Tensor | None = None) -> Tensor:
    """All rows of x, in `room`, which x may be computed from: a tile is written only after the next one,
    which still needs the rows above it, is computed.
    """
    waiting: tuple[int, int, Tensor] | None = None
    for start, end in x.tiles():
        rows = x.take(start, end)
        if room is None:
            room = torch.empty(x.shape, dtype=rows.dtype, device=rows.device, memory_format=_layout(rows))
        if waiting is not None:
            room[:, :, waiting[0] : waiting[1]] = waiting[2]
        waiting = start, end, rows
    assert room is not None
    assert waiting is not None
    room[:, :, waiting[0] : waiting[1]] = waiting[2]
    return room


def _tile(shape: Shape) -> int:
    """The rows of a tile of such a map: at least as many as a residual block reads beyond its own."""
    return min(max(TILE // (shape[1] * shape[3]), 4), shape[2])


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
