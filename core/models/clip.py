"""CLIP's text encoder: token ids to one vector per token (Radford et al. 2021, arXiv:2103.00020, section
2.4).

A pre-norm transformer with causal attention. The module names are those of the transformers files. Shapes are
for SD 1.5: T = 77 tokens, D = 768.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.attention import attention
from core.models.config import TextConfig


class SelfAttention(nn.Module):
    """Causal multi-head attention: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            layer(x).view(b, t, self.heads, d // self.heads).transpose(1, 2)  # (B, heads, T, D/heads)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        h = attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(h.transpose(1, 2).reshape(b, t, d))
        return out


class MLP(nn.Module):
    """Two linear layers around CLIP's quick GELU, x * sigmoid(1.702 x), or the exact one (OpenCLIP)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.quick = config.hidden_act == "quick_gelu"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)  # (B, T, 4D)
        out: Tensor = self.fc2(h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h))
        return out


class Layer(nn.Module):
    """Attention and MLP, each pre-norm and residual."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Embeddings(nn.Module):
    """Token plus position embeddings: ids (B, T) -> (B, T, D)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        out: Tensor = self.token_embedding(ids) + self.position_embedding(positions)
        return out


class Layers(nn.Module):
    """The stack; its own module because the files say `encoder.layers.0`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, skip: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D), without the last `skip` layers."""
        for layer in self.layers[: len(self.layers) - skip]:
            x = layer(x)
        return x


class TextTransformer(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, skip: int = 0) -> Tensor:
        """Token ids (B, T) -> hidden states (B, T, D), without the last `skip` layers."""
        x = self.embeddings(ids)  # (B, 77, 768)
        out: Tensor = self.final_layer_norm(self.encoder(x, skip))
        return out


class CLIPTextEncoder(nn.Module):
    """Token ids (B, T) -> hidden states (B, T, D), the context that the UNet attends to.

    `skip` leaves out that many of the last layers; the final norm is still applied. It is diffusers'
    `clip_skip`, and one less than A1111's and a request's clip skip, which is the layer to stop at.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)

    def forward(self, ids: Tensor, skip: int = 0) -> Tensor:
        out: Tensor = self.text_model(ids, skip)
        return out


def weigh(states: Tensor, weights: Tensor, emphasis: str = "a1111", empty: Tensor | None = None) -> Tensor:
    """Prompt embeddings (B, T, D) of B chunks with the weight (B, T) of each token.

    `comfy`, ComfyUI's: the weight moves an embedding along the line from that of the empty prompt, `empty`
    (1, T, D), at the same place. `no_norm` and `a1111`, A1111's: it multiplies the embedding, and in `a1111`
    each chunk keeps the mean over all its numbers: the weighted embeddings are scaled by old mean / new mean.
    A factor outside 0.1 to 10 is not applied (the mean of some models is close to 0), which A1111 calls "No
    norm". Weights of 1 change no bit.
    """
    whole, factors = states.float(), weights.to(states.device, torch.float32).unsqueeze(-1)
    if emphasis == "comfy":
        if empty is None:
            raise ValueError("comfy needs the embeddings of the empty prompt")
        nothing = empty.float()
        return torch.where(factors == 1, whole, (whole - nothing) * factors + nothing).to(states)
    weighted = whole * factors
    if emphasis == "no_norm":
        return weighted.to(states)
    factor = whole.mean(dim=(1, 2), keepdim=True) / weighted.mean(dim=(1, 2), keepdim=True)
    factor = torch.where((factor >= 0.1) & (factor <= 10), factor, 1.0)
    return (weighted * factor).to(states)
