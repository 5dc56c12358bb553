"""`train`: train a small model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError
from ui.commands import options


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.toml",
            help="Training recipe, such as data/recipes/tiny.toml; with --resume also a run's recipe.json.",
        ),
    ],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for checkpoints and the model. [default: the recipe's]"),
    ] = None,
    device: options.Device = None,
) -> None:
    """Train a model from scratch, from a fixed seed."""
    if not recipe.is_file():
        raise UserError(f"{recipe}: there is no such recipe.")
    from core.training.trainer import train as train_model

    train_model(recipe, override or [], resume, out, device)
