"""`recipe`: the settings in an image of any program, and how each of its keys is used here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError
from core.recipes.opened_recipe import PROGRAMS
from core.recipes.reader import read_any
from core.recipes.sources import MAX_TEXT_BYTES
from core.weights.find import installed_model
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from core.recipes.opened_recipe import OpenedRecipe, ReportLine

_LONGEST = 400  # characters of a value in the table; --json has them all


def recipe(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Image, text file or JSON file; - reads text from standard input."
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Read the settings in an image of LatentCanvas, A1111, ComfyUI, InvokeAI or Fooocus."""
    found = read_any(_standard_input() if source == "-" else Path(source))
    if as_json:
        print(json.dumps(found.to_dict(installed_model), indent=2))
        return
    to = console()
    rows = [(line.key, _shown(line.value), line.fate, _became(line)) for line in found.report]
    table(to, _title(found), ("key", "value", "result", "setting here, and why"), rows)
    for name in found.needs:
        print(f"To run it, give its {'init image (--image)' if name == 'picture' else 'mask (--mask)'}.")


def _standard_input() -> str:

    content = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("standard input is not text: give an image by its file name") from None


def _title(found: OpenedRecipe) -> str:
    """The program that wrote it, and its model."""
    here = installed_model(found.model)
    model = "no model is named" if found.model is None else f"model {found.model}"
    if found.model is not None:
        model += f", which is installed as {here}" if here else ", which is not installed"
    return f"{PROGRAMS[found.source]}; {model}"


def _became(line: ReportLine) -> str:
    return "; ".join(part for part in (_shown(line.to), line.note) if part)


def _shown(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
