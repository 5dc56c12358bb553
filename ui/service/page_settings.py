"""The page's settings: `latentcanvas.toml`, overridden by the command line, and changed while the page runs.

Each setting is a field with a description, a range, and whether a change takes effect at once (`live`) or at
the next start. The file is in the current folder or named by `--config`; without it all settings have their
defaults. Nothing here imports torch or gradio.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.checks import MAX_SIDE, MIN_SIDE, check_flag, check_number, check_text, check_whole
from core.errors import UserError
from core.files import write_whole
from core.request.fields import MAX_BATCH, MAX_STEPS
from core.toml_records import build, read_toml
from ui.service.limits import Limits, OwnLimits

FILE_NAME = "latentcanvas.toml"
Given = Mapping[str, Mapping[str, Any]]
_HEAD = "# LatentCanvas's settings. Lines behind # show the default. The page also writes this file."


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, live: bool = False
) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "live": live})


class _Section:
    """Checks each field against the type of its default and its range."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # pyrefly: ignore[bad-argument-type]
            _check(item, getattr(self, item.name))


@dataclass(frozen=True, kw_only=True)
class PageSettings(_Section):
    """The table [page]: how the page starts, what it saves and shows."""

    port: int = _setting(7860, "Port of the page; the next free one if it is taken", low=1, high=65535)
    listen: bool = _setting(False, "Also accept connections from other machines of the network")
    share: bool = _setting(False, "Also create a public Gradio link, valid for a week")
    auth_file: str | None = _setting(None, "File with lines user:password; the page then requires a login")
    root_path: str | None = _setting(
        None, "Where a reverse proxy serves the page: a path such as /lc, or its whole address"
    )
    mcp: bool = _setting(False, "Also serve the page's actions to language models (MCP)")
    model: str = _setting(
        "tiny", "The model to start with: its name, or the path of its folder or checkpoint"
    )
    device: str | None = _setting(None, "cpu, cuda, cuda:1, mps, ...; the fastest available if left out")
    dtype: str | None = _setting(None, "float32, bfloat16 or float16; chosen for the device if left out")
    memory: str | None = _setting(None, "full, offload or sequential; the first that fits if left out")
    outputs: str = _setting("outputs", "Folder where images, their steps and the history are saved")
    keep_steps: bool = _setting(True, "Save the steps of each run next to its image", live=True)
    previews_per_second: float = _setting(4.0, "Live previews per second", low=0.2, high=4, live=True)
    shared_history: bool = _setting(False, "On a shared page, show all users all runs", live=True)


@dataclass(frozen=True, kw_only=True)
class GuestLimits(_Section):
    """The table [guests]: limits for users of a shared page."""

    queue: int = _setting(24, "Maximum number of queued jobs, of all users", low=1, high=10_000, live=True)
    queue_owner: int = _setting(4, "Maximum number of queued jobs of one user", low=1, high=10_000, live=True)
    side: int = _setting(
        1024,
        "Largest image: as many pixels as a square of this side",
        low=MIN_SIDE,
        high=MAX_SIDE,
        live=True,
    )
    steps: int = _setting(100, "Maximum number of steps of a run", low=1, high=MAX_STEPS, live=True)
    batch: int = _setting(4, "Maximum number of images of a run", low=1, high=MAX_BATCH, live=True)
    upload_mb: int = _setting(50, "Largest file that may be uploaded, in megabytes", low=1, high=1000)

    @property
    def pixels(self) -> int:
        """The largest image, in pixels."""
        return self.side**2

    @property
    def upload_bytes(self) -> int:
        """The largest file that may be uploaded, in bytes."""
        return self.upload_mb * 1024**2


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The whole file."""

    page: PageSettings = field(default_factory=PageSettings)
    guests: GuestLimits = field(default_factory=GuestLimits)

    @property
    def shared(self) -> bool:
        """Whether the page can be reached from other machines."""
        return self.page.listen or self.page.share or bool(self.page.root_path)

    @property
    def limits(self) -> Limits:
        """The limits in force: those of [guests] on a shared page, for all users."""
        return self.guests if self.shared else OwnLimits()

    @property
    def everybody_sees_all(self) -> bool:
        """Whether all users see all runs, not only their own."""
        return self.page.shared_history or not self.shared

    def with_values(self, given: Given) -> PageConfig:
        """A copy with these values, by section and name. Raises UserError."""
        return PageConfig(
            page=dataclasses.replace(self.page, **given.get("page", {})),
            guests=dataclasses.replace(self.guests, **given.get("guests", {})),
        )


class SettingsStore:
    """The settings of a running page: `current` is in force, the file holds those of the next start.

    given: the options of the command line, by section and name; they override the file and are never written
    to it. Thread-safe.
    """

    def __init__(self, path: Path | None = None, given: Given | None = None) -> None:
        """Read the file: `path`, which must exist, or the one in the current folder, which need not.

        Raises UserError for a file that cannot be read and for invalid values.
        """
        if path is not None and not path.exists():
            raise UserError(f"--config {path}: there is no such file; leave it out to use latentcanvas.toml")
        self.path = path or Path(FILE_NAME)
        self._lock = threading.Lock()
        self._current = read(self.path).with_values(given or {})

    @property
    def current(self) -> PageConfig:
        """The settings in force."""
        return self._current

    def written(self) -> PageConfig:
        """The settings of the next start without options of the command line. Raises UserError."""
        return read(self.path)

    def change(self, given: Given) -> list[str]:
        """Write these values, by section and name, and apply those that are live; return the names of the
        changed ones that need a restart.

        Raises UserError for a bad value or a file that cannot be written; nothing has changed then.
        """
        live: dict[str, dict[str, Any]] = {}
        for section, values in given.items():
            live[section] = {name: value for name, value in values.items() if is_live(section, name)}
        with self._lock:
            written = self.written()  # it may have been edited since
            changed = written.with_values(given)
            current = self._current.with_values(live)
            if changed != written:
                write_whole(self.path, to_toml(changed).encode())
            self._current = current
        return [
            name
            for section, values in given.items()
            for name in values.keys() - live[section].keys()
            if getattr(getattr(written, section), name) != getattr(getattr(changed, section), name)
        ]


SECTIONS: dict[str, type[PageSettings] | type[GuestLimits]] = {"page": PageSettings, "guests": GuestLimits}


def read(path: Path) -> PageConfig:
    """The settings in a file; the defaults where there is none. Raises UserError."""
    if not path.exists():
        return PageConfig()
    return build(PageConfig, read_toml(path), str(path))


def is_live(section: str, name: str) -> bool:
    """Whether a change of this setting takes effect at once."""
    return bool(_fields(section)[name].metadata["live"])


def help_of(section: str, name: str) -> str:
    """The description of a setting."""
    return str(_fields(section)[name].metadata["help"])


def to_toml(config: PageConfig) -> str:
    """The whole file: each setting below its description, commented out if it has its default."""
    lines = [_HEAD]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        values = getattr(config, section)
        for item in _fields(section).values():
            value = getattr(values, item.name)
            shown = "" if value is None else value
            assigned = f"{item.name} = {_toml(shown)}"
            lines += [f"# {item.metadata['help']}", f"# {assigned}" if value == item.default else assigned]
    return "\n".join(lines) + "\n"


def _fields(section: str) -> dict[str, dataclasses.Field[Any]]:
    return {item.name: item for item in dataclasses.fields(SECTIONS[section])}


def _check(item: dataclasses.Field[Any], value: object) -> None:
    default, low, high = item.default, item.metadata["low"], item.metadata["high"]
    if isinstance(default, bool):
        check_flag(item.name, value)
    elif isinstance(default, int):
        check_whole(item.name, value, low, high)
    elif isinstance(default, float):
        check_number(item.name, value, low, high)
    elif value is not None or default is not None:
        check_text(item.name, value, empty=False)


def _toml(value: object) -> str:
    """A value as TOML, whose strings are as in JSON, except that DEL must be escaped."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
