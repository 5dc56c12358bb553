"""A single-file model under CompVis' names: its configuration and its three parts.

Also separate VAEs (`--vae`), in a file under CompVis' or diffusers' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from core.errors import UserError
from core.models.config import CoderConfig, ModelConfig, NoiseConfig, TextConfig, UNetConfig, VAEConfig
from core.weights.layouts import compvis
from core.weights.layouts.compvis import CLIP, EMA, OPEN_CLIP, UNET, VAE
from core.weights.layouts.model_folder import diffusers_vae
from core.weights.layouts.prediction import has_zero_snr, read_prediction
from core.weights.layouts.recognise import recognise
from core.weights.parts import Part, TensorSource
from core.weights.readers.checkpoint import Checkpoint, open_checkpoint
from core.weights.readers.mapped_file import TensorEntry

T = TypeVar("T")

# Tensors in checkpoints that are not loaded, and why.
_NOT_LOADED = {
    r".*\.position_ids": "only counts positions from 0",
    r"cond_stage_model\..*(attn_mask|logit_scale|text_projection(\.weight)?)": "is not used by the UNet",
    r"cond_stage_model\.(.*\.)?(vision_model|visual(_projection)?)\..*": "belongs to CLIP's image encoder",
    r"first_stage_model\.(loss|model_ema)\..*": "was only used to train the VAE",
    r"\w*(alphas|betas|posterior|lvlb|logvar|scale_factor)\w*": "is the noise schedule, computed here",
    r"(model\.diffusion_model\.)?(v_pred|ztsnr)": "tells how the network was trained",
    r"model_ema\.(decay|num_updates)": "tells how the average was made",
}


@dataclass(frozen=True)
class SingleFile:
    """The parts of a model file. `ignored`: by tensor name, why it is not loaded."""

    config: ModelConfig
    text: Part
    vae: Part
    unet: Part
    ignored: Mapping[str, str] = field(default_factory=dict)


def read_single(
    checkpoint: Checkpoint, *, ema: bool = False, vae: tuple[CoderConfig, Part] | None = None
) -> SingleFile:
    """The model in a `canonical` checkpoint; with `ema` the averaged (EMA) copy of its UNet.

    vae: used if the checkpoint has none of its own. Raises UserError.
    """
    kind = recognise(checkpoint)
    lent = vae if kind.lacks_vae else None
    if kind.problem is not None and lent is None:
        raise UserError(f"{checkpoint.path} {kind.problem}.")
    entries, ignored = _sorted(checkpoint)
    if ema and not any(name.startswith(EMA) for name in checkpoint.entries):
        raise UserError(f"{checkpoint.path} has no averaged (EMA) weights: omit --ema.")
    unet_config, unet = _unet(checkpoint, entries, ema=ema)
    vae_config, vae_part = lent or _vae(checkpoint, _under(VAE, entries))
    text_config, text, unread = _text(checkpoint, entries)
    prediction, _ = read_prediction(checkpoint, kind)
    zero_snr = prediction != "epsilon" and has_zero_snr(checkpoint)
    noise = NoiseConfig(prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    try:
        config = ModelConfig(text=text_config, vae=vae_config, unet=unet_config, noise=noise)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from None
    return SingleFile(config, text, vae_part, unet, ignored | unread)


def read_vae_file(path: Path) -> tuple[VAEConfig, Part]:
    """The VAE in a whole model, or in a VAE file under CompVis' or diffusers' names. Raises UserError."""
    checkpoint = open_checkpoint(path)
    kind = recognise(checkpoint)
    if kind.problem is not None and kind.architecture != "VAE":
        raise UserError(f"{path} is {kind.words}, not a VAE.")
    found = _under(VAE, checkpoint.entries) or dict(checkpoint.entries)
    found = {name: entry for name, entry in found.items() if not name.startswith(("loss.", "model_ema."))}
    if any(name.startswith("encoder.down_blocks.") for name in found):
        config = _config(checkpoint, lambda shapes: compvis.read_vae(shapes, diffusers=True), found)
        return config, Part(path, diffusers_vae(found))
    return _vae(checkpoint, found)


def _sorted(checkpoint: Checkpoint) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors of the three networks and the averaged copy, and why each other one is not loaded."""
    entries, ignored = {}, {}
    for name, entry in checkpoint.entries.items():
        reason = next((why for pattern, why in _NOT_LOADED.items() if re.fullmatch(pattern, name)), None)
        if reason is None and not name.startswith((UNET, EMA, VAE, CLIP, OPEN_CLIP)):
            reason = "belongs to none of the three networks"
        if reason is None:
            entries[name] = entry
        else:
            ignored[name] = reason
    return entries, ignored


def _unet(
    checkpoint: Checkpoint, entries: Mapping[str, TensorEntry], *, ema: bool
) -> tuple[UNetConfig, Part]:
    found = _under(UNET, entries)
    config = _config(checkpoint, compvis.read_unet, found)
    if ema:
        copies = {name: entries.get(compvis.averaged(name)) for name in found}
        found = {name: entry for name, entry in copies.items() if entry is not None}
    return config, _part(checkpoint, found, compvis.unet_names(config))


def _vae(checkpoint: Checkpoint, found: Mapping[str, TensorEntry]) -> tuple[VAEConfig, Part]:
    config = _config(checkpoint, compvis.read_vae, found)
    return config, _part(checkpoint, found, compvis.vae_names(config))


def _text(
    checkpoint: Checkpoint, entries: Mapping[str, TensorEntry]
) -> tuple[TextConfig, Part, dict[str, str]]:
    """The text tower, and why some tensors of it are not loaded."""
    found = _under(OPEN_CLIP, entries)
    if found:
        return _open_clip(checkpoint, found)
    # Some early fine-tunes omit a level of the name.
    found = {
        name if name.startswith("text_model.") else f"text_model.{name}": entry
        for name, entry in _under(CLIP, entries).items()
    }
    config = _config(checkpoint, compvis.read_clip, found)
    return config, Part(checkpoint.path, {name: TensorSource(entry) for name, entry in found.items()}), {}


def _open_clip(
    checkpoint: Checkpoint, found: dict[str, TensorEntry]
) -> tuple[TextConfig, Part, dict[str, str]]:
    config = _config(checkpoint, compvis.read_open_clip, found)
    last = f"transformer.resblocks.{config.num_hidden_layers}."
    unread = {
        OPEN_CLIP + name: "is in the last layer, which SD 2.x does not use"
        for name in found
        if name.startswith(last)
    }
    found = {name: entry for name, entry in found.items() if not name.startswith(last)}
    sources: dict[str, TensorSource] = {}
    for i in range(config.num_hidden_layers):
        for kind in ("weight", "bias"):
            entry = found.pop(f"transformer.resblocks.{i}.attn.in_proj_{kind}", None)
            if entry is not None and entry.shape and entry.shape[0] == 3 * config.hidden_size:
                sources |= _split(entry, f"text_model.encoder.layers.{i}.self_attn", kind)
    part = _part(checkpoint, found, compvis.open_clip_names(config))
    return config, replace(part, sources={**part.sources, **sources}), unread


def _split(entry: TensorEntry, layer: str, kind: str) -> dict[str, TensorSource]:
    """q, k and v from OpenCLIP's one tensor."""
    width = entry.shape[0] // 3
    return {
        f"{layer}.{name}.{kind}": TensorSource(entry, (i * width, (i + 1) * width))
        for i, name in enumerate(compvis.QKV)
    }


def _part(checkpoint: Checkpoint, found: Mapping[str, TensorEntry], names: Mapping[str, str]) -> Part:
    """The weights by our names, with the map of prefixes `names` from ours to theirs."""
    ours = {theirs: our for our, theirs in names.items()}
    keys = {name: compvis.translated(name, ours) for name in found}
    sources = {key: TensorSource(found[name]) for name, key in keys.items() if key is not None}
    return Part(checkpoint.path, sources, tuple(name for name, key in keys.items() if key is None))


def _config(
    checkpoint: Checkpoint, read: Callable[[compvis.Shapes], T], found: Mapping[str, TensorEntry]
) -> T:
    """A configuration read from the shapes. Raises UserError where they are incomplete."""
    shapes = {name: entry.shape for name, entry in found.items()}
    try:
        if any(0 in shape for shape in shapes.values()):
            raise ValueError("an empty tensor")
        return read(shapes)
    except KeyError as error:
        raise UserError(f"{checkpoint.path} lacks {error.args[0]}: it is incomplete.") from None
    except (IndexError, ValueError):
        raise UserError(f"{checkpoint.path} holds tensors of impossible shapes: download it again.") from None


def _under(prefix: str, entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {name[len(prefix) :]: entry for name, entry in entries.items() if name.startswith(prefix)}
