"""A model's files on disk, of any format, from which `Pipeline.load` builds the networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from core.errors import UserError
from core.models.config import CoderConfig, ModelConfig, VAEConfig
from core.weights.find import find_tokenizer, model_name
from core.weights.hashes import hash_files
from core.weights.layouts.canonical import canonical
from core.weights.layouts.model_folder import (
    ModelNotes,
    plain_notes,
    read_config,
    read_notes,
    read_part,
    read_vae_config,
    read_vae_part,
)
from core.weights.layouts.prediction import SIZES
from core.weights.layouts.recognise import recognise
from core.weights.layouts.single import read_single, read_vae_file
from core.weights.parts import Part
from core.weights.readers.checkpoint import INDEX, open_checkpoint


@dataclass(frozen=True)
class ModelFiles:
    """Everything read from a model's files before a network is built.

    about: one line for people; hashed: the files of the model's own weights; vae_path: of a replacement VAE,
    None for its own; ema: whether the UNet is the averaged (EMA) copy.
    """

    path: Path
    about: str
    config: ModelConfig
    notes: ModelNotes
    text: Part
    vae: Part
    unet: Part
    hashed: tuple[Path, ...]
    vae_path: Path | None = None
    ema: bool = False

    @property
    def tokenizer(self) -> Path:
        """The folder with its tokenizer."""
        return find_tokenizer(self.path)

    @cached_property
    def sha256(self) -> str:
        """Over the model's weight files in order: text encoder, VAE, UNet. For a single file it is the file's
        own hash, whose first ten digits A1111 calls the model hash.
        """
        return hash_files(self.hashed)

    @cached_property
    def vae_sha256(self) -> str:
        """The same for a replacement VAE; empty without one."""
        return "" if self.vae_path is None else hash_files(self.vae.files)


def open_model(path: Path, *, ema: bool = False, vae: Path | None = None) -> ModelFiles:
    """A model folder or a single file, with another VAE when `vae` names one. Raises UserError."""
    path_of_vae = None if vae is None else vae.expanduser()
    other = None if path_of_vae is None else (path_of_vae, *_read_vae(path_of_vae))
    if not path.is_dir():
        model = _file(path, ema=ema, vae=other and other[1:])
    elif ema:
        raise UserError(f"{path} is a folder, which has no averaged (EMA) weights: omit --ema.")
    else:
        model = _folder(path)
    return model if other is None else _with_vae(model, *other)


def _folder(path: Path) -> ModelFiles:
    config = read_config(path)
    notes = read_notes(path, config)
    text, vae, unet = (read_part(path / name) for name in ("text_encoder", "vae", "unet"))
    files = tuple(file for part in (text, vae, unet) for file in part.files)
    about = f"a model folder, {_dtypes(text, vae, unet)}, {_trained(config)}"
    return ModelFiles(path, about, config, notes, text, vae, unet, files)


def _file(path: Path, *, ema: bool, vae: tuple[CoderConfig, Part] | None) -> ModelFiles:
    checkpoint = canonical(open_checkpoint(path))
    model = read_single(checkpoint, ema=ema, vae=vae)
    noise = model.config.noise
    prediction = noise.prediction_type
    base = recognise(checkpoint)
    cells = SIZES.get((base.base, prediction), 64)
    about = (
        f"{base.words} ({checkpoint.format}), {_dtypes(model.text, model.vae, model.unet)}, "
        f"{_trained(model.config)}{', averaged weights' if ema else ''}"
    )
    name = path.name.removesuffix(INDEX).removesuffix(".safetensors") if path.name.endswith(INDEX) else ""
    return ModelFiles(
        path,
        about,
        model.config,
        plain_notes(
            name or model_name(path),
            model.config,
            cells=cells,
            schedule="trailing" if noise.rescale_betas_zero_snr else "leading",
        ),
        model.text,
        model.vae,
        model.unet,
        tuple(dict.fromkeys(entry.file.path for entry in checkpoint.entries.values())),
        ema=ema,
    )


def _with_vae(model: ModelFiles, path: Path, config: CoderConfig, part: Part) -> ModelFiles:
    """The model with another VAE, which must have the same latent shape."""
    own = model.config.vae
    if (config.latent_channels, config.reduction) != (own.latent_channels, own.reduction):
        raise UserError(
            f"{path} is a VAE of {config.latent_channels} channels at 1/{config.reduction} of an image's "
            f"side, but {model.notes.name} needs {own.latent_channels} at 1/{own.reduction}."
        )
    if (
        isinstance(config, VAEConfig) and not path.is_dir()
    ):  # files do not hold the scaling factor: use the model's
        config = replace(config, scaling_factor=own.scaling_factor)
    notes = replace(model.notes, preview=None)  # it was fitted to the other one
    about = f"{model.about}, with the VAE {path.name}"
    return replace(
        model,
        about=about,
        config=replace(model.config, vae=config),
        notes=notes,
        vae=part,
        vae_path=path,
    )


def _read_vae(path: Path) -> tuple[CoderConfig, Part]:
    if not path.exists():
        raise UserError(f"The VAE {str(path)!r} was not found: give --vae a file or a folder.")
    if not path.is_dir():
        return read_vae_file(path)
    folder = path / "vae" if (path / "vae").is_dir() else path
    return read_vae_config(folder), read_vae_part(folder)


def _trained(config: ModelConfig) -> str:
    """What the UNet was trained for."""
    words = f"predicts {config.noise.prediction_type}"
    if config.noise.rescale_betas_zero_snr:
        words += " with zero-terminal SNR"
    if config.unet.guides_itself:
        words += ", reads the cfg scale itself (negative prompts have no effect)"
    return words


def _dtypes(*parts: Part) -> str:
    return " and ".join(sorted(set().union(*(part.dtypes for part in parts))))
