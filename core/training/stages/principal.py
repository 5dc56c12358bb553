"""An encoder that need not be trained: the principal components of blocks of pixels.

Of all linear maps to that many numbers a block, this one keeps the most of the pictures (Pearson 1901;
Jolliffe 2002, section 3.2). Its first channels are a small picture in colours, the rest are finer and finer
detail, each at its natural size, so that a diffusion model on them decides what is where before it draws
edges, as it does on pixels. What is lost between the blocks' numbers and the pixels, the decoder learns to
put back.

The map is written into the weights of a plain AutoencoderKL: its residual and attention branches give zero,
its strided convolutions gather 2x2 cells, and each keeps as many components as it has channels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.models.layers import Downsample, ResnetBlock
from core.models.vae import AutoencoderKL, DownEncoderBlock

_ANCHOR = 100.0
"""Constants among the channels before the last norm, in the standard deviations of the widest component: what
the norm divides by is then the same for every picture to about 1 in 10,000."""


@torch.no_grad()
def set_principal_encoder(
    vae: AutoencoderKL, pictures: Tensor, spread: float, *, averaged: int = 0, whiten: float = 0.0
) -> None:
    """Make `vae.encoder` the principal components of `pictures`, (N, 3, H, W) in [-1, 1].

    spread: the standard deviation of q(z | picture), as a part of the latents' own; the same everywhere.
    averaged: how many of the first halvings keep the mean of four pixels alone. whiten: each component is
    divided by this power of its standard deviation, so that 1 would make all of them equally wide.
    Raises UserError when the VAE's widths leave no room for it.
    """
    encoder, channels, kept = vae.encoder, vae.config.latent_channels, vae.config.in_channels
    _check(vae)
    for module in (*encoder.modules(), vae.quant_conv):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    _pass_on(encoder.conv_in, kept)
    x = _through(encoder.conv_in, pictures, kept)
    *gathering, last = cast("list[DownEncoderBlock]", list(encoder.down_blocks))
    for level, block in enumerate(gathering):
        for resnet in cast("list[ResnetBlock]", list(block.resnets)):
            if resnet.changes_width:
                _pass_on(resnet.conv_shortcut, kept)
        down = cast(Downsample, block.downsamplers[0])
        wanted = channels if level == len(gathering) - 1 else min(4 * kept, down.conv.out_channels)
        if level < averaged:
            wanted = kept
            _average(down.conv, kept)
        else:
            _gather(down.conv, x, wanted)
        x, kept = _through(down, x, wanted), wanted
    _read_out(vae, cast(ResnetBlock, last.resnets[0]), x.std(dim=(0, 2, 3)), spread, whiten)


def _check(vae: AutoencoderKL) -> None:
    config = vae.config
    size = config.block_out_channels[-1] // config.norm_num_groups
    if size % 2 or 2 * _components_a_group(vae) + 2 > size:
        raise UserError(
            f"{config.norm_num_groups} groups of {size} channels cannot hold {config.latent_channels}"
            " principal components: widen the last of vae.block_out_channels."
        )
    if config.block_out_channels[-1] == config.block_out_channels[-2]:
        raise UserError("the last two of vae.block_out_channels must differ for a principal encoder.")
    if config.block_out_channels[-2] < config.latent_channels:
        raise UserError("vae.block_out_channels are too narrow for that many vae.latent_channels.")


def _components_a_group(vae: AutoencoderKL) -> int:
    return -(-vae.config.latent_channels // vae.config.norm_num_groups)


def _pass_on(convolution: nn.Conv2d, count: int) -> None:
    """The first `count` channels as they are, the rest zero."""
    middle = convolution.kernel_size[0] // 2
    for k in range(count):
        convolution.weight[k, k, middle, middle] = 1.0


def _through(layer: nn.Module, x: Tensor, kept: int) -> Tensor:
    """The first `kept` channels of what a layer makes of `x`, whose further channels are zero, by parts."""
    width = next(layer.parameters()).shape[1]
    parts = [layer(F.pad(part, (0, 0, 0, 0, 0, width - part.shape[1])))[:, :kept] for part in x.split(64)]
    return torch.cat(parts)


def _average(convolution: nn.Conv2d, count: int) -> None:
    """Weights that give the mean of 2x2 cells of each of the first `count` channels."""
    for k in range(count):
        convolution.weight[k, k, :2, :2] = 0.25


def _gather(convolution: nn.Conv2d, x: Tensor, wanted: int) -> None:
    """Weights that turn 2x2 cells of `x` (N, C, H, W) into their first `wanted` principal components."""
    count, bias = x.shape[1], cast(Tensor, convolution.bias)
    cells = F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1).reshape(-1, 4 * count).double()
    mean = cells.mean(0)
    _, vectors = torch.linalg.eigh((cells - mean).T @ (cells - mean))
    basis = vectors.flip(1)[:, :wanted].T  # (wanted, 4C), the widest first
    basis = basis * basis.sum(1, keepdim=True).sign()  # its own sign, not the solver's
    convolution.weight[:wanted, :count, :2, :2] = basis.view(wanted, count, 2, 2).float()
    bias[:wanted] = (-basis @ mean).float()


def _read_out(
    vae: AutoencoderKL, entry: ResnetBlock, deviations: Tensor, spread: float, whiten: float
) -> None:
    """The rest of the encoder: components (with these deviations) past the last norm and SiLU, unchanged but
    for whitening.

    Each stands there as +z and -z next to constants, so that the mean of its group is 0 and the variance the
    constants'; and silu(z) - silu(-z) = z.
    """
    encoder, count, groups = vae.encoder, len(deviations), vae.config.norm_num_groups
    size, each = encoder.conv_norm_out.num_channels // groups, _components_a_group(vae)
    anchor = _ANCHOR * float(deviations.max())
    gain = anchor * ((size - 2 * each) / size) ** 0.5  # the deviation of a group
    weight, bias = entry.conv_shortcut.weight, cast(Tensor, entry.conv_shortcut.bias)
    for start in range(0, groups * size, size):
        for k in range(2 * each, size):
            bias[start + k] = anchor if k % 2 else -anchor
    nn.init.zeros_(encoder.conv_norm_out.weight)
    nn.init.zeros_(encoder.conv_norm_out.bias)
    for k in range(count):
        for side, sign in enumerate((1.0, -1.0)):
            place = k // each * size + 2 * (k % each) + side
            weight[place, k] = sign
            encoder.conv_norm_out.weight[place] = gain
            encoder.conv_out.weight[k, place, 1, 1] = sign * float(deviations[k]) ** -whiten
    log_variance = cast(Tensor, encoder.conv_out.bias)
    widths = deviations ** (1 - whiten)
    log_variance[count:] = 2 * torch.log(spread * widths.square().mean().sqrt())
    _pass_on(vae.quant_conv, 2 * count)


class BlockEncoder:
    """What a principal encoder computes, as one product: pictures to the moments of their latents."""

    @torch.no_grad()
    def __init__(self, vae: AutoencoderKL, averaged: int) -> None:
        scale, cell = vae.config.scaling_factor, vae.config.reduction
        self.step, self.side = 2**averaged, cell >> averaged
        weights, offset = block_map(vae, averaged)
        self.weights, self.offset = weights / scale, (offset / scale).view(-1, 1, 1)
        nothing = next(vae.parameters()).new_zeros(1, vae.config.in_channels, cell, cell)
        self.log_variance = vae.moments(nothing)[1]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, unscaled: (B, 3, H, W) -> twice (B, C, H/f, W/f)."""
        blocks = F.pixel_unshuffle(F.avg_pool2d(pictures, self.step), self.side)
        mean = torch.einsum("bdhw,dc->bchw", blocks, self.weights) + self.offset
        return mean, self.log_variance.expand_as(mean)


@torch.no_grad()
def block_map(vae: AutoencoderKL, averaged: int) -> tuple[Tensor, Tensor]:
    """What a principal encoder computes, found by asking it: latents = blocks @ map + offset, scaled.

    blocks: (..., 3 * side * side), the pixels in [-1, 1] of a cell in the order (colour, row, column), where
    2**averaged pixels a side are one, their mean. The map is (3 * side * side, C), the offset (C,). So
    pictures that are drawn at that size need no encoder.
    """
    cell, step = vae.config.reduction, 2**averaged
    side = cell // step
    count = 3 * side * side
    like = next(vae.parameters())
    offset = vae.encode(like.new_zeros(1, 3, cell, cell))[0, :, 0, 0]
    rows = []
    for first in range(0, count, 64):
        asked = like.new_zeros(min(64, count - first), count)
        asked[torch.arange(len(asked)), first + torch.arange(len(asked))] = 1.0
        pictures = asked.view(-1, 3, side, side).repeat_interleave(step, 2).repeat_interleave(step, 3)
        rows.append(vae.encode(pictures)[:, :, 0, 0] - offset)
    return torch.cat(rows), offset
