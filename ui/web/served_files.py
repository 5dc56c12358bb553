"""Files between the page and its users: uploads and downloads.

Both are in Gradio's temporary folder, the only one whose files are served; a download gets a path there that
cannot be guessed.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import plain_errors

TEMPORARY = "GRADIO_TEMP_DIR"  # the environment variable that Gradio reads
MOST_KEPT = 2000  # downloads; the oldest are deleted
_META = {"_type": "gradio.FileData"}


def temporary_folder() -> Path:
    """Gradio's temporary folder."""
    return Path(os.environ.get(TEMPORARY) or Path(tempfile.gettempdir()) / "gradio").resolve()


class Handing:
    """Offers files for download; the newest `MOST_KEPT` are available. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: deque[Path] = deque()

    def out(self, data: bytes, name: str) -> dict[str, Any]:
        """Save these bytes as a file of this name; its Gradio FileData. Raises UserError."""
        folder = temporary_folder() / "handed" / secrets.token_urlsafe(24)
        with plain_errors(folder):
            folder.mkdir(parents=True)
            (folder / name).write_bytes(data)
        with self._lock:
            self._folders.append(folder)
            old = [self._folders.popleft() for _ in range(len(self._folders) - MOST_KEPT)]
        for one in old:
            shutil.rmtree(one, ignore_errors=True)
        kind, _ = mimetypes.guess_type(name)
        path = str(folder / name)
        return {"path": path, "orig_name": name, "size": len(data), "mime_type": kind, "meta": _META}


def uploaded(value: object, what: str) -> Path | None:
    """The uploaded file that a client's value refers to; None for None.

    Raises UserError for anything else: a path of the client's choice could open any file of this machine.
    """
    if value is None:
        return None
    named = value.get("path") if isinstance(value, dict) else getattr(value, "path", None)
    if isinstance(named, str) and "\0" not in named:
        path = Path(named).resolve()
        if path.is_relative_to(temporary_folder()) and path.is_file():
            return path
    raise UserError(f"{what}: is not an uploaded file; send it with handle_file of gradio_client")
