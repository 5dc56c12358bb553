"""Model folders as diffusers writes them: one sub-folder per part, with `config.json` and weights.

This project adds one optional file, `latentcanvas.json`: the model's defaults and examples (`ModelNotes`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from core.checks import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE
from core.errors import UserError
from core.files import plain_errors
from core.models.config import (
    CoderConfig,
    ModelConfig,
    NoiseConfig,
    PixelsConfig,
    PointsConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from core.request.model_defaults import Defaults
from core.toml_records import build
from core.weights.layouts.canonical import scaled
from core.weights.parts import Part, TensorSource
from core.weights.readers.checkpoint import INDEX, open_checkpoint
from core.weights.readers.mapped_file import TensorEntry

NOTES = "latentcanvas.json"
SUBJECTS = "subjects.png"  # square images of the notes' subjects, one below the other
TEXT, VAE, UNET = (
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
)
# Names of weight files, without suffix: for safetensors and for the older .bin.
_NAMES = {
    "text_encoder": ("model", "pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
}
_VARIANTS = ("", "fp16", "bf16")  # in the order of preference: full precision first
_PIPELINES = ("StableDiffusion", "StableDiffusionImg2Img", "StableDiffusionInpaint", "LatentConsistencyModel")
_SPACINGS = ("leading", "linspace", "trailing")
# Config values that are the same in all models of this architecture.
_FIXED: dict[str, dict[str, Any]] = {
    "unet": {
        "act_fn": "silu",
        "attention_type": "default",
        "center_input_sample": False,
        "class_embed_type": None,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": None,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "transformer_layers_per_block": 1,
    },
    "vae": {
        "act_fn": "silu",
        "down_block_types": "DownEncoderBlock2D",
        "latents_mean": None,
        "mid_block_add_attention": True,
        "shift_factor": None,
        "up_block_types": "UpDecoderBlock2D",
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    },
    "text_encoder": {},
    "scheduler": {"trained_betas": None},
}
# Replacements for the VAE, by the class in config.json; they have no weights.
PIXELS, POINTS = "LatentCanvasPixels", "LatentCanvasPoints"
# Tensors of a text encoder's file that the UNet does not need.
_UNUSED_TEXT = re.compile(
    r"(vision_model|visual_projection)\..*|embeddings\.position_ids|text_projection\.weight|logit_scale"
)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelNotes:
    """A model's notes about itself: default settings, example prompts, the words it learned, its preview map.

    nearest: for words that it was not trained on, those that it knows and that are nearest in meaning.
    subjects: phrases for prompts that show what the model can paint; SUBJECTS has an image of each.
    preview: (C + 1) rows of red, green, blue in [-1, 1] per unit of each latent channel, for one pixel or for
    a square of them; the last row is the constant.
    """

    name: str
    defaults: Defaults
    examples: tuple[str, ...] = ()
    words: tuple[str, ...] | None = None
    nearest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    preview: tuple[tuple[float, ...], ...] | None = None


def read_config(folder: Path) -> ModelConfig:
    """The configuration of all parts. Raises UserError when a file is missing or is not of this
    architecture.
    """
    _check_index(folder)
    text = _config(TextConfig, folder / "text_encoder" / "config.json")
    vae = read_vae_config(folder / "vae")
    unet = _config(UNetConfig, folder / "unet" / "config.json")
    noise = _config(NoiseConfig, folder / "scheduler" / "scheduler_config.json")
    try:
        noise.schedule()
        return ModelConfig(text=text, vae=vae, unet=unet, noise=noise)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def read_vae_config(folder: Path) -> CoderConfig:
    """The configuration of a VAE's folder, or of its replacement. Raises UserError."""
    path = folder / "config.json"
    kind = read_json(path).get("_class_name")
    if kind == PIXELS:
        return build(PixelsConfig, read_json(path), str(path), unknown="ignore")
    if kind == POINTS:
        return build(PointsConfig, read_json(path), str(path), unknown="ignore")
    return _config(VAEConfig, path, "vae")


def read_notes(folder: Path, config: ModelConfig) -> ModelNotes:
    """The model's notes, or default ones where the folder has none. Raises UserError for damaged ones."""
    path = folder / NOTES
    if not path.exists():
        cells = read_json(folder / "unet" / "config.json").get("sample_size")
        spacing = read_json(folder / "scheduler" / "scheduler_config.json").get("timestep_spacing")
        return plain_notes(
            folder.resolve().name,
            config,
            cells=cells if type(cells) is int else 64,
            schedule=spacing if spacing in _SPACINGS else "leading",
        )
    values = read_json(path)
    try:
        words, preview = values.get("words"), values.get("preview")
        return ModelNotes(
            name=str(values["name"]),
            defaults=Defaults(**values["defaults"]),
            examples=tuple(values.get("examples", ())),
            words=None if words is None else tuple(words),
            nearest={word: tuple(known) for word, known in values.get("nearest", {}).items()},
            subjects=tuple(map(str, values.get("subjects", ()))),
            preview=None if preview is None else tuple(tuple(map(float, row)) for row in preview),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): copy the model again."
        ) from None


def read_subjects(folder: Path) -> bytes:
    """The file SUBJECTS. Raises UserError when it cannot be read."""
    with plain_errors(folder / SUBJECTS):
        return (folder / SUBJECTS).read_bytes()


def plain_notes(name: str, config: ModelConfig, *, cells: int = 64, schedule: str = "leading") -> ModelNotes:
    """Notes for a model that has none: Stable Diffusion's usual settings, at `cells` latents a side."""
    multiple, smallest = side_rule(config.vae)
    side = min(max(cells * config.vae.reduction, smallest), MAX_SIDE) // multiple * multiple
    defaults = Defaults(
        sampler="ddim", schedule=schedule, steps=20, cfg_scale=7.5,
        width=side, height=side, multiple=multiple, smallest=smallest,
    )  # fmt: skip
    if config.unet.guides_itself:  # LCM, with the settings of its paper
        defaults = replace(defaults, sampler="lcm", schedule="trailing", steps=4, cfg_scale=8.5)
    return ModelNotes(name=name, defaults=defaults)


def side_rule(vae: CoderConfig) -> tuple[int, int]:
    """(multiple, smallest) of an image's sides."""
    multiple = max(SIDE_MULTIPLE, vae.reduction) if isinstance(vae, VAEConfig) else vae.reduction
    return (multiple, MIN_SIDE) if isinstance(vae, VAEConfig) else (multiple, 8)


def read_part(folder: Path) -> Part:
    """The weights in a part's folder, `text_encoder`, `vae` or `unet`, by our names. Raises UserError."""
    if folder.name == "vae":
        return read_vae_part(folder)
    checkpoint = open_checkpoint(_weights(folder))
    entries = scaled(checkpoint.entries)
    if folder.name == "text_encoder":
        return Part(checkpoint.path, _text(entries))
    return Part(checkpoint.path, _as_they_are(entries))


def read_vae_part(folder: Path) -> Part:
    """The weights of a VAE's folder, whatever the folder's name; empty where it is not a VAE. Raises
    UserError.
    """
    if not isinstance(read_vae_config(folder), VAEConfig):
        return Part(folder, {})
    checkpoint = open_checkpoint(_weights(folder, "vae"))
    return Part(checkpoint.path, diffusers_vae(checkpoint.entries))


def diffusers_vae(entries: Mapping[str, TensorEntry]) -> dict[str, TensorSource]:
    """Our names for those of a diffusers VAE; early files name its attention differently."""
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    found = {}
    for name, entry in entries.items():
        head, _, last = name.rpartition(".")
        layer, _, what = head.rpartition(".")
        attends = layer.endswith("mid_block.attentions.0") and what in old
        found[f"{layer}.{old[what]}.{last}" if attends else name] = TensorSource(entry)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: this is not a model folder, or the copy is incomplete."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the model again.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object.")
    return values


def _text(entries: Mapping[str, TensorEntry]) -> dict[str, TensorSource]:
    """Newer files omit `text_model.`; others also hold position ids, a projection, or all of CLIP."""
    short = {name.removeprefix("text_model."): entry for name, entry in entries.items()}
    return {
        f"text_model.{name}": TensorSource(entry)
        for name, entry in short.items()
        if not _UNUSED_TEXT.fullmatch(name)
    }


def _as_they_are(entries: Mapping[str, TensorEntry]) -> dict[str, TensorSource]:
    return {name: TensorSource(entry) for name, entry in entries.items()}


def _weights(folder: Path, part: str | None = None) -> Path:
    """The file with a part's weights, or the index of its files; safetensors are preferred to .bin."""
    stems = zip(_NAMES[part or folder.name], ("safetensors", "bin"), strict=True)
    tried: list[str] = []
    for stem, suffix in stems:
        for variant in _VARIANTS:
            dotted = f".{variant}" if variant else ""
            tried += [f"{stem}{dotted}.{suffix}", f"{stem}.{suffix}{INDEX.replace('.json', '')}{dotted}.json"]
    for name in tried:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder / tried[0]} is missing: copy the model again.")


def _check_index(folder: Path) -> None:
    """Check the pipeline class in `model_index.json`, if there is one."""
    path = folder / "model_index.json"
    if path.exists():
        kind = str(read_json(path).get("_class_name", "StableDiffusionPipeline"))
        if kind.removesuffix("Legacy").removesuffix("Pipeline") not in _PIPELINES:
            raise UserError(f"{folder} is a {kind}: only Stable Diffusion 1.x and 2.x are supported.")


def _config(kind: type[T], path: Path, part: str | None = None) -> T:
    values = read_json(path)
    for key, fixed in _FIXED[part or path.parent.name].items():
        said = values.get(key, fixed)
        if any(value != fixed for value in (said if isinstance(said, list) else [said])):
            raise UserError(f"{path}: {key} is {said!r}, but models of this architecture have {fixed!r}.")
    if kind is UNetConfig and values.get("num_attention_heads") is not None:
        values["attention_head_dim"] = values["num_attention_heads"]
    # Files hold more keys than this architecture needs, such as class names.
    return build(kind, values, str(path), unknown="ignore")
