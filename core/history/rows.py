"""One run in the history, as a row of the database and as an object."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import UserError
from core.request import Settings

COLUMNS = (
    "id",
    "created",
    "settings",
    "model",
    "model_sha256",
    "evals",
    "seconds",
    "stopped",
    "starred",
    "owner",
    "steps",
    "parent",
    "parent_step",
)
# What stands in a row apart from these, to be searched: taken from the settings.
SEARCHED = ("prompt", "negative", "sampler")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run that was kept. `names` are its picture files, `steps` is that of its trajectory, in the folder.

    `created` is in seconds since 1970, `evals` and `seconds` what the run took (0 where only its picture was
    found). `owner` is the token of whoever asked for it, empty for the one at this machine. `parent` is the
    id of the run that it branched from, after `parent_step` steps.
    """

    id: str
    created: float
    names: tuple[str, ...]
    settings: Settings
    model: str
    model_sha256: str
    steps: str | None = None
    evals: int = 0
    seconds: float = 0.0
    stopped: bool = False
    starred: bool = False
    owner: str = ""
    parent: str | None = None
    parent_step: int | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("a run without a picture cannot be kept in the history")
        for name in (*self.names, *([self.steps] if self.steps else [])):
            check_name(name)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {**vars(self), "names": list(self.names), "settings": self.settings.to_dict()}

    def values(self) -> dict[str, Any]:
        """What stands in the database, by column."""
        searched = {name: getattr(self.settings, name) for name in SEARCHED}
        return {
            **{name: getattr(self, name) for name in COLUMNS},
            **searched,
            "settings": settings_text(self.settings),
        }

    @classmethod
    def of(cls, row: sqlite3.Row, names: tuple[str, ...]) -> RunRow:
        """The run in a row of the database. Raises UserError for settings that this program does not know."""
        values = {name: row[name] for name in COLUMNS}
        values["settings"] = Settings.from_dict(json.loads(values["settings"]))
        values["stopped"], values["starred"] = bool(values["stopped"]), bool(values["starred"])
        return cls(names=names, **values)


def settings_text(settings: Settings) -> str:
    """The same settings give the same text, so that a run can be found by them."""
    return json.dumps(settings.to_dict(), sort_keys=True, separators=(",", ":"))


def run_id(name: str, content: bytes) -> str:
    """The id of the run whose first picture this is.

    It follows from the file alone, so that links and branches outlive a database that had to be made anew,
    and it cannot be guessed without the picture.
    """
    return hashlib.sha256(name.encode() + b"\0" + content).hexdigest()[:16]


def check_name(name: str) -> str:
    """A file's name inside the folder: relative, and not upwards. Raises UserError."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or Path(name).is_absolute() or ".." in path.parts or "\\" in name:
        raise UserError(f"{name!r}: is not a file of the history's folder")
    return name
