"""AutoencoderKL: images to latents and back (Rombach et al. 2022, arXiv:2112.10752, section 3.1).

The module names are those of the diffusers files, so weights load without a map. Shapes below are for SD
1.5 and an image of 512x512; `f` is the reduction, 8.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from core.models.attention import attention
from core.models.config import VAEConfig
from core.models.fast import exact_tiling
from core.models.layers import Downsample, ResnetBlock, Upsample, silu

EPS = 1e-6
# An image whose largest map has more numbers than this is computed with exact tiling
# (core/models/fast/exact_tiling.py). For SD 1.5 that is any above 768x768, the largest size such models are
# made for.
LARGEST_WHOLE = 256 * 768 * 768


class Attention(nn.Module):
    """Self-attention with one head over all positions of the smallest map: (B, C, H, W) -> the same."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = (layer(tokens)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out[0](attention(q, k, v)[:, 0])  # (B, HW, C)
        return x + out.transpose(1, 2).reshape(b, c, h, w)


class MidBlock(nn.Module):
    """Residual block, attention, residual block, at the smallest size."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups, EPS, None) for _ in range(2)])
        self.attentions = nn.ModuleList([Attention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class DownEncoderBlock(nn.Module):
    """One level of the encoder: residual blocks, then downsampling (except at the last level)."""

    def __init__(self, channels_in: int, channels_out: int, config: VAEConfig, *, last: bool) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * config.layers_per_block
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, config.norm_num_groups, EPS, None) for a, b in pairwise(widths)
        )
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels_out, one_sided=True)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H/2, W/2), at the last level (B, O, H, W)."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpDecoderBlock(nn.Module):
    """One level of the decoder: one residual block more than the encoder's, then upsampling (except at the
    last level).
    """

    def __init__(self, channels_in: int, channels_out: int, config: VAEConfig, *, last: bool) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * (config.layers_per_block + 1)
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, config.norm_num_groups, EPS, None) for a, b in pairwise(widths)
        )
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels_out)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, 2H, 2W), at the last level (B, O, H, W)."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """(B, 3, 512, 512) -> mean and log-variance of the latent, (B, 8, 64, 64)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownEncoderBlock(widths[max(i - 1, 0)], width, config, last=i == len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)  # (B, 128, 512, 512)
        for block in self.down_blocks:
            h = block(h)  # ... (B, 512, 64, 64)
        h = self.mid_block(h)
        out: Tensor = self.conv_out(silu(self.conv_norm_out(h)))  # (B, 2 * 4, 64, 64)
        return out


class Decoder(nn.Module):
    """(B, 4, 64, 64) -> (B, 3, 512, 512)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = tuple(reversed(config.block_out_channels)), config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            UpDecoderBlock(widths[max(i - 1, 0)], width, config, last=i == len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(z))  # (B, 512, 64, 64)
        for block in self.up_blocks:
            h = block(h)  # ... (B, 128, 512, 512)
        out: Tensor = self.conv_out(silu(self.conv_norm_out(h)))
        return out


class AutoencoderKL(nn.Module):
    """The VAE. Images are in [-1, 1]; latents are scaled by `scaling_factor` to about unit variance."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def tiled(self, height: int, width: int) -> bool:
        """Whether images of this size use exact tiling: above LARGEST_WHOLE, never with gradients."""
        return self._largest_map(height, width) > LARGEST_WHOLE and not torch.is_grad_enabled()

    def _largest_map(self, height: int, width: int) -> int:
        """The size of the largest map of one image: its pixels times the channels of the level below."""
        return height * width * max(self.config.block_out_channels[:2])

    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | image), unscaled: (B, 3, H, W) -> twice (B, C, H/f, W/f)."""
        if self.tiled(*pictures.shape[2:]):
            h = torch.cat([exact_tiling.encode(self.encoder, one[None]) for one in pictures])
        else:
            h = self.encoder(pictures)
        mean, log_variance = self.quant_conv(h).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (B, C, H/f, W/f): the mean of q, or a draw from it with unit `noise`."""
        mean, log_variance = self.moments(pictures)
        z = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise
        return z * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, H/f, W/f) -> images (B, 3, H, W), about [-1, 1], not clamped."""
        z = self.post_quant_conv(latents / self.config.scaling_factor)
        height, width = (self.config.reduction * side for side in z.shape[2:])
        if self.tiled(height, width):
            largest = self._largest_map(height, width)
            return torch.cat([exact_tiling.decode(self.decoder, one[None], largest) for one in z])
        out: Tensor = self.decoder(z)
        return out
