"""A recipe so small that a training takes moments, in place of those that come with the project."""

from __future__ import annotations

from pathlib import Path

from ui.service.trainings import recipe_path

SMALLER = {
    "size = 256 ": "size = 64 ",
    "unet = 65536": "unet = 512",
    "block_out_channels = [64]": "block_out_channels = [16]",
    "batch = 512": "batch = 16",
    "steps = 20\n": "steps = 3\n",
    "width = 256": "width = 64",
    "height = 256": "height = 64",
}


def small_points(folder: Path, **changed: str) -> Path:
    """The recipe of points, made smaller. changed: of `SMALLER`, by the first word of what is replaced."""
    recipe = recipe_path("points").read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        assert old in recipe
        recipe = recipe.replace(old, changed.get(old.split()[0], new))
    path = folder / "small-points.toml"
    path.write_text(recipe, encoding="utf-8")
    return path
