"""The denoising UNet of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.3 and appendix E).

Down blocks, a middle block and up blocks of residual and transformer layers, with skip connections from the
down blocks to the up blocks. The text enters through cross-attention, the timestep through every residual
block. Module names are those of the diffusers files. Shapes are for SD 1.5 at 512x512.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import attention
from core.models.config import UNetConfig
from core.models.fast.token_merging import Merge
from core.models.layers import Conv3x3, Downsample, ResnetBlock, Upsample, add, silu

# The last layers of the finest up block, whose skip connections need only the first layer of the down blocks.
SHALLOW = 2


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Cosines then sines at `width / 2` frequencies from 1 to 1/10000 (arXiv:2006.11239).

    (B,) -> (B, width)
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=timesteps.device)
    )
    angles = timesteps.float()[:, None] * frequencies  # (B, width / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def guidance_embedding(guidance: Tensor, width: int) -> Tensor:
    """The guidance scale of a network that guides itself (Luo et al. 2023, arXiv:2310.04378): sines, then
    cosines.

    (B,), the scale minus 1 -> (B, width)
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=guidance.device)
    angles = 1000 * guidance.float()[:, None] * torch.exp(-math.log(10000) / (half - 1) * steps)
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width % 2))


class TimestepMLP(nn.Module):
    """(B, C) -> (B, 4C). A projection of `condition` (B, D), where there is one, is added to the input."""

    def __init__(self, channels_in: int, channels_out: int, condition: int | None = None) -> None:
        super().__init__()
        if condition is not None:
            self.cond_proj = nn.Linear(condition, channels_in, bias=False)
        self.linear_1 = nn.Linear(channels_in, channels_out)
        self.linear_2 = nn.Linear(channels_out, channels_out)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            x = x + self.cond_proj(condition)
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class TextPooling(nn.Module):
    """Text states (B, T, D) -> (B, D): their mean looks at all of them and at itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(1, width))
        nn.init.normal_(self.positional_embedding, std=width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        b, _, d = states.shape
        mean = states.mean(1, keepdim=True) + self.positional_embedding
        states = torch.cat([mean, states], dim=1)  # (B, 1 + T, D)
        q, k, v = (
            h.view(b, -1, self.heads, d // self.heads).transpose(1, 2)  # (B, heads, 1 or 1 + T, D/heads)
            for h in (self.q_proj(mean), self.k_proj(states), self.v_proj(states))
        )
        return attention(q, k, v).transpose(1, 2).reshape(b, d)


class TextEmbedding(nn.Module):
    """What is added to the time embedding: text states (B, T, D) -> (B, 4C)."""

    def __init__(self, width: int, channels_out: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.pool = TextPooling(width, heads)
        self.proj = nn.Linear(width, channels_out)
        self.norm2 = nn.LayerNorm(channels_out)

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.norm2(self.proj(self.pool(self.norm1(states))))
        return out


class Attention(nn.Module):
    """Multi-head attention of `x` (B, N, C) to `context` (B, T, D); self-attention when it is None."""

    def __init__(self, channels: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_width, channels, bias=False)
        self.to_v = nn.Linear(context_width, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        b, n, c = x.shape
        q, k, v = (
            h.view(b, -1, self.heads, c // self.heads).transpose(1, 2)  # (B, heads, N or T, C/heads)
            for h in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        h = attention(q, k, v)  # (B, heads, N, C/heads)
        out: Tensor = self.to_out[0](h.transpose(1, 2).reshape(b, n, c))
        return out


class GEGLU(nn.Module):
    """A linear layer gated by the GELU of another (arXiv:2002.05202): (B, N, C) -> (B, N, 4C)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels_in, 2 * channels_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)  # (B, N, 4C)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """C -> 4C -> C. Layer 1 is empty: the files have a dropout without weights there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward: (B, N, C) -> (B, N, C).

    size: the map (H, W) of the N positions. merging: the share of them that is merged in self-attention (see
    core/models/fast/token_merging.py).
    """

    def __init__(self, channels: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_width, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor, size: tuple[int, int], merging: float = 0.0) -> Tensor:
        if merging > 0:
            merge = Merge(x, size, merging)
            x = x + merge.undone(self.attn1(merge(self.norm1(x))))
        else:
            x = add(x, self.attn1(self.norm1(x)))
        x = add(x, self.attn2(self.norm2(x), context))
        return add(x, self.ff(self.norm3(x)))


class SpatialTransformer(nn.Module):
    """A transformer block over the positions of a map, with a residual connection: (B, C, H, W) -> same."""

    def __init__(self, channels: int, heads: int, config: UNetConfig) -> None:
        super().__init__()
        self.linear = config.use_linear_projection
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = self._projection(channels)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, config.cross_attention_dim, heads)]
        )
        self.proj_out = self._projection(channels)

    def _projection(self, channels: int) -> nn.Module:
        return nn.Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, merging: float = 0.0) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x)
        if not self.linear:
            tokens = self.proj_in(tokens)
        tokens = tokens.flatten(2).transpose(1, 2)  # (B, HW, C)
        if self.linear:
            tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context, (h, w), merging)
        if self.linear:
            tokens = self.proj_out(tokens)
        tokens = tokens.transpose(1, 2).reshape(b, c, h, w)  # (B, C, H, W)
        out: Tensor = tokens if self.linear else self.proj_out(tokens)
        return add(x, out)


class DownBlock(nn.Module):
    """One level down; returns its output and its skip connections."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        heads: int,
        config: UNetConfig,
        *,
        attends: bool,
        last: bool,
    ) -> None:
        super().__init__()
        time, groups, eps = 4 * config.block_out_channels[0], config.norm_num_groups, config.norm_eps
        widths = [channels_in] + [channels_out] * config.layers_per_block
        self.resnets = nn.ModuleList(ResnetBlock(a, channels_out, groups, eps, time) for a in widths[:-1])
        self.attentions = nn.ModuleList(
            SpatialTransformer(channels_out, heads, config) for _ in self.resnets if attends
        )
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels_out, one_sided=False)])

    def layer(self, i: int, x: Tensor, time: Tensor, context: Tensor, merging: float = 0.0) -> Tensor:
        """The output of layer `i`: (B, C, H, W)."""
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context, merging) if self.attentions else x

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, merging: float = 0.0
    ) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) with time (B, E) and context (B, T, D) -> the downsampled x, its skip connections."""
        left = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context, merging)
            left.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            left.append(x)
        return x, left


class MidBlock(nn.Module):
    """Residual block, transformer, residual block at the coarsest level; or the first one only."""

    def __init__(self, channels: int, heads: int, config: UNetConfig) -> None:
        super().__init__()
        time, groups, eps = 4 * config.block_out_channels[0], config.norm_num_groups, config.norm_eps
        count = 1 if config.mid_block_type == "UNetMidBlock2D" else 2
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups, eps, time) for _ in range(count))
        self.attentions = nn.ModuleList(SpatialTransformer(channels, heads, config) for _ in range(count - 1))

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W) with time (B, E) and context (B, T, D) -> (B, C, H, W)."""
        x = self.resnets[0](x, time)
        for transformer, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(transformer(x, context), time)
        return x


class UpBlock(nn.Module):
    """One level up: each residual block also reads a skip connection from the down blocks.

    layers: the layers to run; all when None.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        skips: list[int],
        heads: int,
        config: UNetConfig,
        *,
        attends: bool,
        last: bool,
    ) -> None:
        super().__init__()
        time, groups, eps = 4 * config.block_out_channels[0], config.norm_num_groups, config.norm_eps
        widths = [channels_in] + [channels_out] * (len(skips) - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock(a + skip, channels_out, groups, eps, time)
            for a, skip in zip(widths, skips, strict=True)
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(channels_out, heads, config) for _ in self.resnets if attends
        )
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels_out)])

    def forward(
        self,
        x: Tensor,
        left: list[Tensor],
        time: Tensor,
        context: Tensor,
        merging: float = 0.0,
        layers: range | None = None,
    ) -> Tensor:
        """(B, C, H, W) with time (B, E) and context (B, T, D) -> the upsampled x.

        Takes its skip connections from the end of `left`.
        """
        for i in range(len(self.resnets)) if layers is None else layers:
            x = self.resnets[i](torch.cat([x, left.pop()], dim=1), time)
            if self.attentions:
                x = self.attentions[i](x, context, merging)
        for upsample in self.upsamplers:
            x = upsample(x, left[-1].shape[2:])
        return x


class UNet(nn.Module):
    """Noisy latents (B, 4, 64, 64), timesteps (B,), text (B, 77, 768) -> prediction (B, 4, 64, 64)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, heads, attends = config.block_out_channels, config.heads, config.attends
        levels = len(widths)
        self.conv_in = Conv3x3(config.in_channels, widths[0])
        self.time_embedding = TimestepMLP(widths[0], 4 * widths[0], config.time_cond_proj_dim)
        self.add_embedding = (
            TextEmbedding(config.cross_attention_dim, 4 * widths[0], config.addition_embed_type_num_heads)
            if config.addition_embed_type == "text"
            else None
        )
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(i - 1, 0)], widths[i], heads[i], config, attends=attends[i], last=i == levels - 1
            )
            for i in range(levels)
        )
        self.mid_block = MidBlock(widths[-1], heads[-1], config)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[min(i + 1, levels - 1)], widths[i],
                [widths[i]] * config.layers_per_block + [widths[max(i - 1, 0)]],
                heads[i], config, attends=attends[i], last=i == 0,
            )
            for i in reversed(range(levels))
        )  # fmt: skip
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=config.norm_eps)
        self.conv_out = Conv3x3(widths[0], config.out_channels)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return self.evaluate(x, timesteps, context)[0]

    def evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        deep: Tensor | None = None,
        merging: float = 0.0,
        guidance: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The prediction and its deep features: the input of the last two layers of the up blocks.

        deep: features of another evaluation. Only the first layer of the down blocks and the last two of the
        up blocks are then run (DeepCache, Ma et al. 2023, arXiv:2312.00858, section 3.2). merging: the share
        of positions that is merged in self-attention at the finest level that has attention; see
        core/models/fast/token_merging.py. guidance: the cfg scale minus 1, for a network that guides itself.
        """
        condition = None
        if self.config.time_cond_proj_dim is not None:
            scales = torch.full_like(timesteps, guidance)
            condition = guidance_embedding(scales, self.config.time_cond_proj_dim).to(x.dtype)
        time = self.time_embedding(
            timestep_embedding(timesteps, self.config.block_out_channels[0]).to(x.dtype), condition
        )
        if self.add_embedding is not None:
            time = time + self.add_embedding(context)
        attends = self.config.attends
        finest = attends.index(True) if any(attends) else None
        merged = [merging if level == finest else 0.0 for level in range(len(attends))]
        h = self.conv_in(x)  # (B, 320, 64, 64)
        left = [h]
        last = self.up_blocks[-1]
        layers = range(self.config.layers_per_block + 1)
        if deep is None:
            for block, share in zip(self.down_blocks, merged, strict=True):
                h, skips = block(h, time, context, share)  # ... (B, 1280, 8, 8)
                left += skips
            h = self.mid_block(h, time, context)  # (B, 1280, 8, 8)
            for block, share in zip(self.up_blocks[:-1], merged[:0:-1], strict=True):
                h = block(h, left, time, context, share)  # ... (B, 640, 64, 64)
            deep = last(h, left, time, context, merged[0], layers[:-SHALLOW])
        else:
            first = self.down_blocks[0]
            assert isinstance(first, DownBlock)
            left.append(first.layer(0, h, time, context, merged[0]))
        h = last(deep, left, time, context, merged[0], layers[-SHALLOW:])  # (B, 320, 64, 64)
        return self.conv_out(silu(self.conv_norm_out(h))), deep
