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
PICTURE, STEPS = ".png", ".steps.safetensors"  # how the names of files end
_LATEST, _MOST = 1e11, 2**53
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
        """What stands in the database, by column."""
        searched = {name: getattr(self.settings, name) for name in SEARCHED}
        return {
            **{name: getattr(self, name) for name in COLUMNS},
            **searched,
            "settings": settings_text(self.settings),
        }

    @classmethod
    def of(cls, row: sqlite3.Row, names: tuple[str, ...]) -> RunRow:
        """The run in a row of the database, which anyone may have made. Raises UserError for one that is not
        sound, or of settings that this program does not know.
        """
        values = {name: row[name] for name in COLUMNS}
        try:
            values["settings"] = Settings.from_dict(json.loads(values["settings"]))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError("its settings are damaged") from error
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


def check_name(name: object) -> str:
    """The name of a picture or a file of steps in the folder itself, on any system. Raises UserError.

    Whatever a database or a recipe says, nothing else is ever opened, handed out or deleted.
    """
    named = isinstance(name, str) and name.endswith((PICTURE, STEPS)) and not name.startswith(".")
    if not named or re.search(r"[/\\:\0]", str(name)):
        raise UserError(f"{name!r}: is not a file of the history's folder")
    return str(name)
