"""Chooses the files of a hub's repository that make a loadable model."""

from __future__ import annotations

import re
from collections.abc import Collection

from core.errors import UserError

# The parts that are loaded, and the names of their weight files: safetensors first.
STEMS = {
    "text_encoder": (("model", "safetensors"), ("pytorch_model", "bin")),
    "unet": (("diffusion_pytorch_model", "safetensors"), ("diffusion_pytorch_model", "bin")),
    "vae": (("diffusion_pytorch_model", "safetensors"), ("diffusion_pytorch_model", "bin")),
}
NEEDED = (
    "model_index.json",
    *(f"{part}/config.json" for part in STEMS),
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
WELCOME = ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")
SINGLE_SUFFIXES = (".safetensors", ".ckpt")


def choose_folder(names: Collection[str], variant: str | None) -> list[str]:
    """The files of a model folder: configurations, tokenizer, and the weights of each part, in one form.

    A part without the variant uses its default weights. Raises UserError: not a folder of this family, a
    missing file, no such variant in any part.
    """
    if "model_index.json" not in names:
        raise UserError(_no_folder(names))
    if "unet/config.json" not in names or any(name.startswith("text_encoder_2/") for name in names):
        raise UserError("this is not Stable Diffusion 1.x or 2.x; other models are not supported")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UserError(f"its {missing[0]} is missing: the model folder is incomplete")
    weights = {part: _weights(names, part, variant) for part in STEMS}
    for part, found in weights.items():
        if not found:
            raise UserError(f"it has no weights for its {part}, as .safetensors or .bin")
    if variant and not any(_is_variant(name, variant) for found in weights.values() for name in found):
        there = ", ".join(sorted(_variants(names))) or "none"
        raise UserError(f"it has no variant {variant!r}; available: {there}")
    welcome = [name for name in WELCOME if name in names]
    return [*NEEDED, *welcome, *(name for found in weights.values() for name in found)]


def check_file(names: Collection[str], file: str) -> None:
    """Raises UserError unless `file` is one of these names and a file of weights."""
    if not file.endswith(SINGLE_SUFFIXES):
        raise UserError(f"{file} is not a weight file: those end in {' or '.join(SINGLE_SUFFIXES)}")
    if file not in names:
        raise UserError(f"it has no file {file}; {_singles(names)}")


def _weights(names: Collection[str], part: str, variant: str | None) -> list[str]:
    """The part's weights, whole or in shards with their index; empty when there are none."""
    for stem, suffix in STEMS[part]:
        for kind in (f".{variant}", "") if variant else ("",):
            whole = f"{part}/{stem}{kind}.{suffix}"
            if whole in names:
                return [whole]
            index = f"{part}/{stem}.{suffix}.index{kind}.json"
            number = r"-\d{5}-of-\d{5}"
            patterns = (f"{stem}{kind}#.{suffix}", f"{stem}#{kind}.{suffix}")  # newer and older spelling
            shard = "|".join(re.escape(pattern).replace(r"\#", number) for pattern in patterns)
            shards = [name for name in names if re.fullmatch(f"{part}/(?:{shard})", name)]
            if index in names and shards:
                return [index, *sorted(shards)]
    return []


def _is_variant(name: str, variant: str) -> bool:
    return variant in name.rpartition("/")[2].replace("-", ".").split(".")


def _variants(names: Collection[str]) -> set[str]:
    found = (
        re.fullmatch(r"unet/diffusion_pytorch_model\.([\w-]+?)(?:-\d.*)?\.(?:safetensors|bin)", n)
        for n in names
    )
    return {match[1] for match in found if match}


def _no_folder(names: Collection[str]) -> str:
    return f"it holds no model folder (no model_index.json); {_singles(names)}"


def _singles(names: Collection[str]) -> str:
    singles = [name for name in sorted(names) if name.endswith(SINGLE_SUFFIXES) and "/" not in name]
    if not singles:
        return "it has no single-file models either"
    more = f" and {len(singles) - 5} more" if len(singles) > 5 else ""
    return f"choose one of its single files with --file: {', '.join(singles[:5])}{more}"
