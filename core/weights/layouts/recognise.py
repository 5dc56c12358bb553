"""Recognises a checkpoint by the names and shapes of its tensors.

Users often try to load a valid file of another kind as a model: each kind gets its own message.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from core.weights.layouts.compvis import CLIP, EMA, OPEN_CLIP, UNET, VAE
from core.weights.readers.checkpoint import Checkpoint

Architecture = Literal["SD1", "SD2", "inpainting", "SDXL", "LoRA", "VAE", "embedding", "unknown"]

_LORA = (
    "lora_up",
    "lora_down",
    "lora_A",
    "lora_B",
    "lora.up",
    "lora.down",
    "hada_w1_a",
    "lokr_w1",
    "oft_blocks",
)
# Models other than Stable Diffusion 1.x and 2.x, by a prefix of one of their tensors.
_OTHER_MODELS = {
    "model.diffusion_model.double_blocks.": "a Flux model",
    "double_blocks.": "a Flux model",
    "model.diffusion_model.joint_blocks.": "a Stable Diffusion 3 model",
    "joint_blocks.": "a Stable Diffusion 3 model",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
    "adapter.": "a T2I adapter",
    "image_proj.": "an IP-Adapter",
    "concept_embeds": "a safety checker",
}
_CHANNELS = {5: "a depth-to-image model", 7: "an upscaler", 8: "an InstructPix2Pix model"}


@dataclass(frozen=True)
class Kind:
    """A recognised checkpoint. `base` is "SD1" or "SD2" for a model that can be loaded, also for inpainting.

    words: a description to follow "is"; problem: why it cannot be loaded as a model, None where it can.
    """

    architecture: Architecture
    words: str
    base: Literal["SD1", "SD2"] | None = None
    problem: str | None = None

    @property
    def lacks_vae(self) -> bool:
        """Whether it can only be loaded with a VAE of another file."""
        return self.base is not None and self.problem is not None

    @property
    def loads(self) -> bool:
        """Whether `Pipeline.load` can load it."""
        return self.problem is None


def recognise(checkpoint: Checkpoint) -> Kind:
    """Recognise the checkpoint. Never raises: the fallback is "unknown"."""
    names = checkpoint.entries
    if f"{UNET}input_blocks.0.0.weight" in names:
        return _model(checkpoint)
    if any(part in name for name in names for part in _LORA):
        return _other("LoRA", "a LoRA", "it is not a model: give --model the model it was made for")
    if any(name.startswith(("conditioner.embedders.", "add_embedding.")) for name in names):
        return _sdxl()
    if _is_vae(checkpoint):
        return _other("VAE", "only a VAE", "give it as --vae, with a --model")
    if _is_embedding(checkpoint):
        return _other("embedding", "a textual-inversion embedding", "it is not a model")
    return _other_model(checkpoint)


def _model(checkpoint: Checkpoint) -> Kind:
    """A file with CompVis' UNet."""
    names = checkpoint.entries
    if any(name.startswith("conditioner.") for name in names):
        return _sdxl()
    for start, words in _OTHER_MODELS.items():
        if any(name.startswith(start) for name in names):
            return _other("unknown", words, "only Stable Diffusion 1.x and 2.x are supported")
    channels = _channels(checkpoint)
    special = _CHANNELS.get(channels or 0)
    if special is None and any(name.startswith(f"{UNET}label_emb.") for name in names):
        if not any(name.startswith((CLIP, OPEN_CLIP)) for name in names):
            return _sdxl()
        special = "an unCLIP model"
    if special is not None:
        return _other("unknown", special, "only text-to-image and inpainting models are supported")
    open_clip = any(name.startswith(OPEN_CLIP) for name in names)
    if not open_clip and not any(name.startswith(CLIP) for name in names):
        vae = "" if any(name.startswith(VAE) for name in names) else " and the VAE"
        words = f"a UNet without the text encoder{vae}"
        return _other("unknown", words, "a model needs all three parts: get the whole checkpoint")
    base: Literal["SD1", "SD2"] = "SD2" if open_clip else "SD1"
    version = "2.x" if open_clip else "1.x"
    architecture: Architecture = "inpainting" if channels == 9 else base
    words = f"a Stable Diffusion {version} {'inpainting ' if channels == 9 else ''}model"
    if not any(name.startswith(VAE) for name in names):
        words += " without a VAE"
        return Kind(architecture, words, base, f"is {words}: give one as --vae")
    return Kind(architecture, words, base)


def _channels(checkpoint: Checkpoint) -> int | None:
    shape = checkpoint.entries[f"{UNET}input_blocks.0.0.weight"].shape
    return shape[1] if len(shape) > 1 else None


def _is_vae(checkpoint: Checkpoint) -> bool:
    if any(name.startswith((UNET, CLIP, OPEN_CLIP)) for name in checkpoint.entries):
        return False
    names = {name.removeprefix(VAE) for name in checkpoint.entries}
    return {"decoder.conv_in.weight", "post_quant_conv.weight"} <= names


def _is_embedding(checkpoint: Checkpoint) -> bool:
    """A1111's `string_to_param.*`, the newer `emb_params`, or diffusers' single named vector."""
    names = list(checkpoint.entries)
    if any(name.startswith(("string_to_param.", "emb_params")) for name in names):
        return True
    return 1 <= len(names) <= 2 and all(
        len(entry.shape) in (1, 2) and entry.shape[-1] in (768, 1024, 1280) and prod(entry.shape[:-1]) <= 128
        for entry in checkpoint.entries.values()
    )


def _other_model(checkpoint: Checkpoint) -> Kind:
    names = list(checkpoint.entries)
    for start, words in _OTHER_MODELS.items():
        if any(name.startswith(start) for name in names):
            return _other("unknown", words, "only Stable Diffusion 1.x and 2.x are supported")
    if any(name.startswith(("down_blocks.", "text_model.", "embeddings.token_embedding")) for name in names):
        return _other("unknown", "one part of a diffusers folder", "give --model the whole folder")
    if any(name.startswith(EMA) for name in names):
        return _other("unknown", "an averaged (EMA) copy without its model", "get the whole checkpoint")
    if not names:
        return _other("unknown", "a file without weights", "get the model again")
    words = f"a file of {len(names)} tensors of an unknown architecture ({names[0][:60]}, ...)"
    return _other("unknown", words, "only Stable Diffusion 1.x and 2.x are supported")


def _sdxl() -> Kind:
    return _other("SDXL", "an SDXL model", "only Stable Diffusion 1.x and 2.x are supported")


def _other(architecture: Architecture, words: str, advice: str) -> Kind:
    return Kind(architecture, words, problem=f"is {words}: {advice}")
