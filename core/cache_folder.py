"""What this machine's measurements and readings gave, kept between processes in the user's cache as JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from core.errors import UserError
from core.files import cache_folder, write_whole


def read(file: str) -> dict[str, Any]:
    """By name, in the order in which they were kept; nothing of a file that is not there or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        known = json.loads((cache_folder() / file).read_bytes())
        if isinstance(known, dict):
            return known
    return {}


def keep(file: str, known: dict[str, Any]) -> None:
    """Write all of it. Where that cannot be done, the next process finds it out again."""
    path = cache_folder() / file
    with suppress(UserError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
