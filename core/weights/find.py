"""Where models are: the embedded one, and the folders that a user puts into `data/models`."""

from __future__ import annotations

from pathlib import Path

from core.errors import UserError

DATA = Path(__file__).resolve().parents[2] / "data"
EMBEDDED = DATA / "tiny"
MODELS = DATA / "models"


def installed() -> list[Path]:
    """The folders of the models that can be named without a path, the embedded one first."""
    found = [path for path in (EMBEDDED, *sorted(MODELS.glob("*"))) if not path.name.startswith(".")]
    return [folder for folder in found if folder.is_dir()]


def find_model(source: str | Path) -> Path:
    """The folder of a model, by its name or its path. Raises UserError when there is none."""
    for folder in installed():
        if str(source) == folder.name:
            return folder
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    what = "is a file, and only model folders can be loaded" if folder.is_file() else "is not there"
    known = ", ".join(path.name for path in installed()) or f"none in {DATA}"
    raise UserError(f"Model {str(source)!r} {what}: name a model folder, or one of those here: {known}.")
