"""`models`: what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ui.commands import options
from ui.commands.tables import console, table


def models(as_json: options.Json = False) -> None:
    """List the models: the embedded one, and the folders in data/models."""
    from core.weights import find

    found: list[dict[str, Any]] = [
        {
            "name": folder.name,
            "path": str(folder),
            "embedded": folder == find.EMBEDDED,
            "bytes": _size(folder),
        }
        for folder in find.installed()
    ]
    if as_json:
        print(json.dumps({"models": found}, indent=2))
        return
    rows = [
        (model["name"], f"{model['bytes'] / 1e6:.1f} MB", "embedded" if model["embedded"] else model["path"])
        for model in found
    ]
    table(console(), "Models", ("name", "size", "where"), rows)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
