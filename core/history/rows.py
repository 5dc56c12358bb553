"""One run in the history, as a row of the database and as an object."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from dataclasses import dataclass
from typing import Any

from core.checks import check_number, check_text, check_whole
from core.errors import UserError
from core.request.settings import Settings

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
PICTURE, STEPS = ".png", ".steps.safetensors"  # file suffixes
_LATEST, _MOST = 1e11, 2**53
# Further columns, taken from the settings for searching.
SEARCHED = ("prompt", "negative", "sampler")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A saved run. `names` are its image files and `steps` its trajectory file, in the folder.

    `created` is in seconds since 1970, `evals` and `seconds` what the run took (0 where only its image was
    found). `owner` is the token of the client that asked for it, empty on this machine. `parent` is the
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
            raise UserError("a run without an image cannot be saved in the history")
        for name in (*self.names, *([self.steps] if self.steps else [])):
            check_name(name)
        for name in ("id", "model", "model_sha256", "owner", *([] if self.parent is None else ["parent"])):
            check_text(f"the run's {name}", getattr(self, name))
        check_number("the run's time", self.created, 0, _LATEST)
        check_number("the run's seconds", self.seconds, 0, _LATEST)
        for name in ("evals", *([] if self.parent_step is None else ["parent_step"])):
            check_whole(f"the run's {name}", getattr(self, name), 0, _MOST)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {**vars(self), "names": list(self.names), "settings": self.settings.to_dict()}

    def values(self) -> dict[str, Any]:
        """The row's values, by column."""
        searched = {name: getattr(self.settings, name) for name in SEARCHED}
        return {
            **{name: getattr(self, name) for name in COLUMNS},
            **searched,
            "settings": settings_text(self.settings),
        }

    @classmethod
    def of(cls, row: sqlite3.Row, names: tuple[str, ...]) -> RunRow:
        """The run in a row of the database, which is not trusted. Raises UserError for damaged or unknown
        settings.
        """
        values = {name: row[name] for name in COLUMNS}
        try:
            values["settings"] = Settings.from_dict(json.loads(values["settings"]))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError("its settings are damaged") from error
        values["stopped"], values["starred"] = bool(values["stopped"]), bool(values["starred"])
        return cls(names=names, **values)


def settings_text(settings: Settings) -> str:
    """Settings as canonical text, so that a run can be found by them."""
    return json.dumps(settings.to_dict(), sort_keys=True, separators=(",", ":"))


def run_id(name: str, content: bytes) -> str:
    """The id of the run whose first image this is.

    It depends only on the file, so that links and branches survive a rebuilt database, and it cannot be
    guessed without the image.
    """
    return hashlib.sha256(name.encode() + b"\0" + content).hexdigest()[:16]


def check_name(name: object) -> str:
    """The name of an image or a steps file directly in the folder, on any system. Raises UserError.

    Whatever a database or a recipe says, no other file is ever opened, served or deleted.
    """
    named = isinstance(name, str) and name.endswith((PICTURE, STEPS)) and not name.startswith(".")
    if not named or re.search(r"[/\\:\0]", str(name)):
        raise UserError(f"{name!r}: is not a file of the history's folder")
    return str(name)
