"""`models`: list models, inspect a checkpoint, convert it to safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from core.weights import find
from core.weights.find import find_model
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from core.weights.inspect import Inspection

app = typer.Typer(rich_markup_mode=None)
File = Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint file, model folder, or model name.")]


@app.callback(invoke_without_command=True)
def listed(context: typer.Context, as_json: options.Json = False) -> None:
    """List the installed models: the embedded one, and the folders and checkpoints in data/models."""
    if context.invoked_subcommand:
        if as_json:
            raise UserError(f"write --json after {context.invoked_subcommand}.")
        return

    found: list[dict[str, Any]] = [
        {
            "name": find.model_name(path),
            "path": str(path),
            "embedded": path == find.EMBEDDED,
            "bytes": _size(path),
        }
        for path in find.installed()
    ]
    if as_json:
        print(json.dumps({"models": found}, indent=2))
        return
    rows = [
        (model["name"], f"{model['bytes'] / 1e6:.1f} MB", "embedded" if model["embedded"] else model["path"])
        for model in found
    ]
    table(console(), "Models", ("name", "size", "where"), rows)


@app.command()
def inspect(file: File, as_json: options.Json = False) -> int:
    """Show the format, architecture and contents of a checkpoint; runs no code in it."""
    from core.weights.inspect import inspect as look

    found = look(find_model(file))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        for name, value in _lines(found):
            print(f"{name:<13} {value}")
    return 2 if found.refused else 0  # a file that would run code is bad input for a script


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint file or model folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Convert to safetensors: a checkpoint keeps its keys, a folder becomes one file with CompVis keys."""
    from core.weights.convert import convert as write

    size = write(find_model(source), target)
    print(f"{target} ({size / 1e6:.1f} MB)")


def _lines(found: Inspection) -> list[tuple[str, str]]:
    """The findings as (name, value) lines."""
    parts = found.parameters.items()
    said = {
        "format": found.format,
        "architecture": _architecture(found),
        "prediction": found.prediction or "",
        "dtype": ", ".join(f"{name} ({count / 1e6:.1f} M)" for name, count in found.dtypes.items()),
        "parameters": ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in parts),
        "EMA weights": "yes: use them with --ema" if found.ema else "no",
        "pickle names": ", ".join(found.globals),
        "refused": ", ".join(found.refused),
        "not loaded": "; ".join(f"{count} ({reason})" for reason, count in found.ignored.items()),
        "verdict": found.verdict,
    }
    return [(name, value) for name, value in said.items() if value]


def _architecture(found: Inspection) -> str:
    return found.architecture + (f" of {found.base}" if found.base not in (None, found.architecture) else "")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
