"""Small models in Stable Diffusion's own proportions, as folders and as single files of every kind.

What no shape tells (heads of 8, groups of 32) is as in SD, so that single files can be read without a config.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.models.clip import CLIPTextEncoder
from core.models.config import DownKind, NoiseConfig, TextConfig, UNetConfig, UpKind, VAEConfig
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.prompts.tokenizer import Tokenizer
from core.scenes.vocabulary import learn_vocabulary, save_tokenizer
from core.weights.convert import convert
from tests.small import SENTENCES

Base = Literal["SD1", "SD2"]
LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint"


def configs(base: Base = "SD1", channels: int = 4) -> tuple[TextConfig, VAEConfig, UNetConfig]:
    """The three parts' configurations but for the vocabulary."""
    new = base == "SD2"
    width = 128 if new else 64
    text = TextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        max_position_embeddings=48,
        hidden_act="gelu" if new else "quick_gelu",
    )
    vae = VAEConfig(block_out_channels=(32, 32, 64, 64), layers_per_block=1)
    attending = 2 if new else 1  # levels with transformers, the finest ones
    down: list[DownKind] = ["CrossAttnDownBlock2D"] * attending
    up: list[UpKind] = ["CrossAttnUpBlock2D"] * attending
    unet = UNetConfig(
        in_channels=channels,
        block_out_channels=(32, 64, 128) if new else (32, 64),
        down_block_types=(*down, "DownBlock2D"),
        up_block_types=("UpBlock2D", *up),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=(1, 1, 2) if new else 8,
        use_linear_projection=new,
    )
    return text, vae, unet


@cache
def tokenizer() -> Tokenizer:
    """A small vocabulary, learned once."""
    return Tokenizer(*learn_vocabulary(SENTENCES * 3, 600), 48, None)


def write_folder(folder: Path, base: Base = "SD1", channels: int = 4, seed: int = 0) -> Path:
    """A diffusers folder with random weights in float16, without notes of its own."""
    text, vae, unet = configs(base, channels)
    size = len(tokenizer().vocab)
    text = dataclasses.replace(text, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)
    save_tokenizer(tokenizer(), folder / "tokenizer")
    torch.manual_seed(seed)
    for part, module, config in (
        ("text_encoder/model", CLIPTextEncoder(text), text),
        ("vae/diffusion_pytorch_model", AutoencoderKL(vae), vae),
        ("unet/diffusion_pytorch_model", UNet(unet), unet),
    ):
        path = folder / f"{part}.safetensors"
        path.parent.mkdir(parents=True)
        save_file({name: tensor.half() for name, tensor in module.state_dict().items()}, path)
        (path.parent / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (folder / "scheduler").mkdir()
    noise = json.dumps(dataclasses.asdict(NoiseConfig()))
    (folder / "scheduler" / "scheduler_config.json").write_text(noise)
    return folder


def write_safetensors(path: Path, folder: Path) -> Path:
    """The folder as a single file under CompVis' names."""
    convert(folder, path)
    return path


def state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by the library that others read it with."""
    loaded: dict[str, Tensor] = load_file(path)
    return loaded


def write_ckpt(path: Path, tensors: dict[str, Tensor], *, legacy: bool = False, **more: Any) -> Path:
    """What PyTorch-Lightning leaves: weights under `state_dict`, and a callback's class and state beside."""
    content = {
        "epoch": 3,
        "global_step": 470_000,
        "state_dict": collections.OrderedDict(tensors),
        "callbacks": {_model_checkpoint(): {"best_model_score": torch.tensor(0.5), "dirpath": "logs"}},
        **more,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def _model_checkpoint() -> type:
    """A class that pickles under Lightning's name, without Lightning: pickle looks it up in sys.modules."""
    import sys
    from types import ModuleType

    module = sys.modules.get(LIGHTNING)
    if module is None:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", LIGHTNING):
            sys.modules[name] = module = ModuleType(name)
        assert module is not None
        made = type("ModelCheckpoint", (), {"__module__": LIGHTNING})
        module.ModelCheckpoint = made  # pyrefly: ignore[missing-attribute]
    kind: type = module.ModelCheckpoint
    return kind


def lightning(state: object) -> object:
    """An object of Lightning's class with a state."""
    made = _model_checkpoint()()
    made.state = state
    return made
