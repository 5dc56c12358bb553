"""The tensor names of the original latent-diffusion code, as in single files, and the configuration in them.

github.com/CompVis/latent-diffusion numbers its blocks; our modules, like the diffusers files, name them by
level. Each `*_names` function maps our names to theirs for a configuration; the configuration itself is read
from names and shapes. Only the number of attention heads is not in a shape: SD 1.x has 8 at every level, and
SD 2.x, recognised by its linear projections, heads of width 64. CLIP's towers have heads of width 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.models.config import DownKind, TextConfig, UNetConfig, UpKind, VAEConfig

Shapes = Mapping[str, tuple[int, ...]]

UNET, EMA = "model.diffusion_model.", "model_ema."
VAE = "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "conv_shortcut": "nin_shortcut",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
QKV = ("q_proj", "k_proj", "v_proj")  # the order of their rows in OpenCLIP's in_proj


_CONDITION = "time_embed.cond_proj.weight"  # of LCM's guidance scale
_OPEN_CLIP_WIDTH, _OPEN_CLIP_LAYERS = 1024, 23  # SD 2.x: all of ViT-H's layers but the last
_CLIP_TOKENS = 49408  # an enlarged vocabulary has its added tokens after them


def averaged(name: str) -> str:
    """The name of a UNet weight's averaged copy: without dots, which buffer names may not have."""
    return EMA + f"diffusion_model.{name}".replace(".", "")


def unet_names(config: UNetConfig) -> dict[str, str]:
    """Our prefixes to theirs, without `model.diffusion_model.`; a name is mapped by its longest prefix."""
    names = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "time_embedding.cond_proj": "time_embed.cond_proj",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
        **_inside("mid_block.resnets.0", "middle_block.0", _UNET_RESNET),
        **_inside("mid_block.resnets.1", "middle_block.2", _UNET_RESNET),
    }
    levels, layers, attends = len(config.block_out_channels), config.layers_per_block, config.attends
    n = 1
    for level in range(levels):
        for layer in range(layers):
            names |= _inside(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{n}.0", _UNET_RESNET)
            if attends[level]:
                names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{n}.1"
            n += 1
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
            n += 1
    n = 0
    for level, attending in enumerate(reversed(attends)):
        for layer in range(layers + 1):
            names |= _inside(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{n}.0", _UNET_RESNET)
            if attending:
                names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{n}.1"
            n += 1
        if level < levels - 1:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{n - 1}.{1 + attending}.conv"
    return names


def vae_names(config: VAEConfig) -> dict[str, str]:
    """The same for the VAE, without `first_stage_model.`; the decoder's levels count from the finest."""
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    levels = len(config.block_out_channels)
    for half in ("encoder", "decoder"):
        names |= {
            f"{half}.conv_in": f"{half}.conv_in",
            f"{half}.conv_norm_out": f"{half}.norm_out",
            f"{half}.conv_out": f"{half}.conv_out",
            **_inside(f"{half}.mid_block.resnets.0", f"{half}.mid.block_1", _VAE_RESNET),
            **_inside(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION),
            **_inside(f"{half}.mid_block.resnets.1", f"{half}.mid.block_2", _VAE_RESNET),
        }
    for i in range(levels):
        down, up = f"encoder.down_blocks.{i}", f"decoder.up_blocks.{i}"
        their_down, their_up = f"encoder.down.{i}", f"decoder.up.{levels - 1 - i}"
        for layer in range(config.layers_per_block):
            names |= _inside(f"{down}.resnets.{layer}", f"{their_down}.block.{layer}", _VAE_RESNET)
        for layer in range(config.layers_per_block + 1):
            names |= _inside(f"{up}.resnets.{layer}", f"{their_up}.block.{layer}", _VAE_RESNET)
        if i < levels - 1:
            names[f"{down}.downsamplers.0.conv"] = f"{their_down}.downsample.conv"
            names[f"{up}.upsamplers.0.conv"] = f"{their_up}.upsample.conv"
    return names


def open_clip_names(config: TextConfig) -> dict[str, str]:
    """The same for OpenCLIP's text tower, but for q, k and v, which are one tensor there (`QKV`)."""
    names = {
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
    }
    for i in range(config.num_hidden_layers):
        ours, theirs = f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
        names |= _inside(ours, theirs, _OPEN_CLIP_LAYER)
    return names


def translated(key: str, names: Mapping[str, str]) -> str | None:
    """Their name of our `key`; None when no prefix of it is known."""
    head, tail = key, ""
    while head:
        if head in names:
            return names[head] + tail
        head, _, last = head.rpartition(".")
        tail = f".{last}{tail}"
    return None


def read_unet(shapes: Shapes) -> UNetConfig:
    """The configuration of a UNet from its names (without prefix) and shapes. Raises KeyError."""
    levels, n = [(0, 0, False)], 1  # width, residual blocks, has attention
    while True:
        if f"input_blocks.{n}.0.op.weight" in shapes:
            levels.append((0, 0, False))
        elif (name := f"input_blocks.{n}.0.in_layers.2.weight") in shapes:
            attending = f"input_blocks.{n}.1.norm.weight" in shapes
            levels[-1] = (shapes[name][0], levels[-1][1] + 1, attending)
        else:
            break
        n += 1
    widths, layers, attends = zip(*levels, strict=True)
    down: tuple[DownKind, ...] = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends)
    up: tuple[UpKind, ...] = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends))
    linear = len(shapes["middle_block.1.proj_in.weight"]) == 2
    return UNetConfig(
        in_channels=shapes["input_blocks.0.0.weight"][1],
        out_channels=shapes["out.2.weight"][0],
        block_out_channels=widths,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=layers[0],
        cross_attention_dim=shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        attention_head_dim=tuple(max(width // 64, 1) for width in widths) if linear else 8,
        use_linear_projection=linear,
        time_cond_proj_dim=shapes[_CONDITION][1] if _CONDITION in shapes else None,
    )


def read_vae(shapes: Shapes, *, diffusers: bool = False) -> VAEConfig:
    """The same for a VAE, by CompVis' names or by those of diffusers."""
    level = "encoder.down_blocks.{}.resnets.{}" if diffusers else "encoder.down.{}.block.{}"
    widths: list[int] = []
    layers = 0
    while (name := f"{level.format(len(widths), 0)}.conv1.weight") in shapes:
        widths.append(shapes[name][0])
    while f"{level.format(0, layers)}.conv1.weight" in shapes:
        layers += 1
    return VAEConfig(
        in_channels=shapes["encoder.conv_in.weight"][1],
        out_channels=shapes["decoder.conv_out.weight"][0],
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        latent_channels=shapes["post_quant_conv.weight"][0],
    )


def read_clip(shapes: Shapes) -> TextConfig:
    """The same for CLIP's text tower, by transformers' names."""
    layer = "text_model.encoder.layers.{}.mlp.fc1.weight"
    return _text(
        shapes["text_model.embeddings.token_embedding.weight"],
        shapes["text_model.embeddings.position_embedding.weight"],
        shapes[layer.format(0)],
        layers=_count(layer, shapes),
        exact=False,
    )


def read_open_clip(shapes: Shapes) -> TextConfig:
    """The same for OpenCLIP's. SD 2.x uses the penultimate layer's output, so the last layer is left out.

    Files that were made from a diffusers folder may lack that layer.
    """
    layer = "transformer.resblocks.{}.mlp.c_fc.weight"
    layers, width = _count(layer, shapes), shapes["token_embedding.weight"][1]
    whole = width == _OPEN_CLIP_WIDTH and layers == _OPEN_CLIP_LAYERS
    return _text(
        shapes["token_embedding.weight"],
        shapes["positional_embedding"],
        shapes[layer.format(0)],
        layers=layers if whole else layers - 1,
        exact=True,
    )


def _text(
    tokens: tuple[int, ...], positions: tuple[int, ...], wide: tuple[int, ...], *, layers: int, exact: bool
) -> TextConfig:
    vocabulary, width = tokens
    return TextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=wide[0],
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        max_position_embeddings=positions[0],
        hidden_act="gelu" if exact else "quick_gelu",
        bos_token_id=min(vocabulary, _CLIP_TOKENS) - 2,
        eos_token_id=min(vocabulary, _CLIP_TOKENS) - 1,
    )


def _count(pattern: str, names: Iterable[str]) -> int:
    there, n = set(names), 0
    while pattern.format(n) in there:
        n += 1
    return n


def _inside(ours: str, theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{name}": f"{theirs}.{their}" for name, their in names.items()}
