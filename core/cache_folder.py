"""Measurements of this machine, stored as JSON in the user's cache folder."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from core.errors import UserError
from core.files import cache_folder, write_whole


def read(file: str) -> dict[str, Any]:
    """The stored values by name, oldest first; empty if the file is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        known = json.loads((cache_folder() / file).read_bytes())
        if isinstance(known, dict):
            return known
    return {}


def keep(file: str, known: dict[str, Any]) -> None:
    """Write all values. If that fails, the next process measures again."""
    path = cache_folder() / file
    with suppress(UserError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
