"""Finds models: the embedded one, and the user's folders and files in `data/models`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from core.errors import UserError

DATA = Path(__file__).resolve().parents[2] / "data"
EMBEDDED = DATA / "tiny"
MODELS = DATA / "models"
CLIP = DATA / "clip"  # CLIP's merges, for models without a tokenizer
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# The tokenizer's two files, and other names that some tools give them.
_VOCABULARY, _MERGES = ("vocab.json", "vocab"), ("merges.txt", "merges")


def installed() -> list[Path]:
    """The models that can be named without a path, the embedded one first: folders and checkpoints."""
    found = [path for path in (EMBEDDED, *sorted(MODELS.glob("*"))) if not path.name.startswith(".")]
    return [path for path in found if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES)]


def model_name(path: Path) -> str:
    """A model's name: its folder's, or its file's without the suffix."""
    return path.name if path.is_dir() else path.stem


def installed_model(model: str | None) -> str | None:
    """The name of the installed model that another program calls `model`; None when there is none."""
    wanted = None if model is None else bare_name(model).casefold()
    return next((name for name in map(model_name, installed()) if name.casefold() == wanted), None)


def bare_name(model: str) -> str:
    """A model's name without its folders and the suffix of its file."""
    name = PurePosixPath(model.replace("\\", "/")).name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def find_model(source: str | Path) -> Path:
    """The folder or file of a model, by its name or its path. Raises UserError when there is none."""
    known = installed()
    for path in known:
        if str(source) in (model_name(path), path.name):
            return path
    path = Path(source).expanduser()
    if path.exists():
        return path
    there = ", ".join(dict.fromkeys(map(model_name, known))) or f"none in {DATA}"
    raise UserError(
        f"Model {str(source)!r} was not found: give a model's folder or file, or one of: {there}."
    )


def find_tokenizer(model: Path) -> Path:
    """The folder with the tokenizer's vocabulary and merges for a model, given its folder or file.

    That is the folder's own `tokenizer`; without one, the two files are looked for next to the model, in
    `data/` and in `data/models/`, or in a folder `tokenizer` there. Without these it is CLIP's own.
    """
    if (model / "tokenizer").is_dir():
        return model / "tokenizer"
    homes = [model] if model.is_dir() else [model.parent, model.with_suffix("")]
    for home in (*homes, DATA, MODELS):
        for folder in (home / "tokenizer", home):
            if all(any((folder / name).is_file() for name in names) for names in (_VOCABULARY, _MERGES)):
                return folder
    return CLIP


def model_names(loaded: str = "") -> list[str]:
    """The models to choose from: the installed ones, and the loaded one, which may be elsewhere."""
    names = [*map(model_name, installed()), loaded]
    return list(dict.fromkeys(filter(None, names)))
