"""Model folders as diffusers writes them: a sub-folder a part, each with `config.json` and safetensors.

What this project adds is one optional file, `latentcanvas.json`: what the model is good at (`ModelNotes`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.errors import UserError
from core.models.config import ModelConfig, NoiseConfig, TextConfig, UNetConfig, VAEConfig
from core.request import Defaults
from core.settings import build

NOTES = "latentcanvas.json"
TEXT, VAE, UNET = (
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
)
WEIGHTS = (TEXT, VAE, UNET)
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelNotes:
    """What a model says about itself: its best settings, prompts to try, the words it learned, its preview
    map.

    preview: (C + 1) rows of red, green, blue in [-1, 1] a unit of each latent channel; the last row is the
    constant.
    """

    name: str
    defaults: Defaults
    examples: tuple[str, ...] = ()
    words: tuple[str, ...] | None = None
    preview: tuple[tuple[float, ...], ...] | None = None


def read_config(folder: Path) -> ModelConfig:
    """The configuration of all parts. Raises UserError when a file is missing or is not of this
    architecture.
    """
    text = _config(TextConfig, folder / "text_encoder" / "config.json")
    vae = _config(VAEConfig, folder / "vae" / "config.json")
    unet = _config(UNetConfig, folder / "unet" / "config.json")
    noise = _config(NoiseConfig, folder / "scheduler" / "scheduler_config.json")
    try:
        noise.schedule()
        return ModelConfig(text=text, vae=vae, unet=unet, noise=noise)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def read_notes(folder: Path, config: ModelConfig) -> ModelNotes:
    """The model's notes, or sensible ones where the folder has none. Raises UserError for damaged ones."""
    path = folder / NOTES
    if not path.exists():
        side = 64 * config.vae.reduction
        defaults = Defaults(
            sampler="ddim", schedule="leading", steps=20, cfg_scale=7.5, width=side, height=side
        )
        return ModelNotes(name=folder.resolve().name, defaults=defaults)
    values = _json(path)
    try:
        words, preview = values.get("words"), values.get("preview")
        return ModelNotes(
            name=str(values["name"]),
            defaults=Defaults(**values["defaults"]),
            examples=tuple(values.get("examples", ())),
            words=None if words is None else tuple(words),
            preview=None if preview is None else tuple(tuple(map(float, row)) for row in preview),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): copy the model again."
        ) from None


def load_weights(build: type[M], config: Any, path: Path, device: torch.device, dtype: torch.dtype) -> M:
    """A module with the weights of one safetensors file, in evaluation mode.

    Built without memory of its own; tensors are mapped from the file and converted only where device or dtype
    differ. Raises UserError when the file is damaged or a key or shape is not what the architecture expects.
    """
    with torch.device("meta"):
        module = build(config)
    tensors = {key: value.to(device, dtype) for key, value in read_tensors(path).items()}
    check_shapes(module.state_dict(), tensors, path)
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped from disk. Raises UserError when it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError(f"{path} is missing: copy the model again.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}): copy the model again."
        ) from None


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError unless both have the same keys and shapes."""
    for what, keys in (
        ("lacks", expected.keys() - found.keys()),
        ("has unexpected", found.keys() - expected.keys()),
    ):
        if keys:
            raise UserError(f"{path} {what} {_some(sorted(keys))}: it does not belong to this model.")
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            shapes = f"{tuple(found[key].shape)}, not {tuple(tensor.shape)}"
            raise UserError(f"{path}: {key} has shape {shapes}: it does not belong to this model.")


def sha256(paths: Iterable[Path]) -> str:
    """One hash over the contents of several files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _config(kind: type[T], path: Path) -> T:
    # A file describes more than this architecture needs, such as names of classes.
    return build(kind, _json(path), str(path), unknown="ignore")


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: this is no model folder, or the copy is not complete.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the model again.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no object.")
    return values


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
