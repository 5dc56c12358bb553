"""A user's styles (named parts of prompts) and presets (named values of the whole form), in one JSON file.

The file is read for each call and written whole, so several pages and processes may share it. A damaged file
is renamed at the next change, never overwritten; until then `trouble` says what is wrong with it, and there
are no styles.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from core.checks import check_text, hint, shown
from core.errors import UserError
from core.files import plain_errors, write_whole
from core.prompts.emphasis import check_prompt

FOLDER_VARIABLE = "LATENTCANVAS_CONFIG"  # a folder to use in place of the system's default
PLACE = "{prompt}"
MOST, LONGEST_NAME, LONGEST_PRESET, LARGEST_FILE = 2000, 100, 100_000, 20 * 2**20
FORMAT = 1
_PROMPTS, _NEGATIVES = ("prompt", "text"), ("negative_prompt", "negative prompt", "negative")

T = TypeVar("T")


@dataclass(frozen=True)
class Style:
    """A named part of a prompt. The prompt replaces `{prompt}` in it; without that, the style is appended."""

    name: str
    prompt: str = ""
    negative: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _checked_name("style", self.name))
        check_text(f"style {self.name}", self.prompt)
        check_text(f"style {self.name}", self.negative)
        if not self.prompt.strip() and not self.negative.strip():
            raise UserError(f"style {shown(self.name)}: is empty; write a prompt or a negative prompt")


@dataclass(frozen=True)
class Imported:
    """The result of importing a styles.csv: names added and replaced, and lines left out."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        said = [_count(self.added, "style") + " added", f"{len(self.changed)} replaced"]
        return ", ".join(said) + "".join(f"; {line}" for line in self.left_out)


def merge(words: str, style: str) -> str:
    """A prompt with one style applied."""
    if PLACE in style:
        return style.replace(PLACE, words.strip())
    return ", ".join(filter(None, (words.strip(), style.strip())))


def apply_styles(prompt: str, negative: str, styles: Iterable[Style]) -> tuple[str, str]:
    """Both prompts with all styles, one after the other. Raises UserError if the result is not valid."""
    for style in styles:
        prompt = merge(prompt, style.prompt) if style.prompt.strip() else prompt
        negative = merge(negative, style.negative) if style.negative.strip() else negative
    check_prompt("prompt", check_text("prompt", prompt))
    check_prompt("negative prompt", check_text("negative prompt", negative))
    return prompt, negative


def config_folder() -> Path:
    """The user's configuration folder on this system; LATENTCANVAS_CONFIG overrides it."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_config_path("latentcanvas", appauthor=False, roaming=True)


def styles_path(owner: str | None = None, folder: Path | None = None) -> Path:
    """The file of the user who runs the page, or of a guest on a shared page, identified by a token."""
    folder = config_folder() if folder is None else folder
    if owner is None:
        return folder / "styles.json"
    return folder / "guests" / f"{hashlib.sha256(owner.encode()).hexdigest()[:32]}.json"


@dataclass
class _Content:
    styles: dict[str, Style] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)


class Styles:
    """The store over one file, which need not exist yet. Every change raises UserError if it cannot be
    written, and then leaves the file unchanged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = styles_path() if path is None else path
        self._lock = threading.Lock()

    @property
    def trouble(self) -> str:
        """A message if the file cannot be read, else ""."""
        try:
            self._read()
        except UserError as error:
            return str(error)
        return ""

    # Styles.

    def styles(self) -> list[Style]:
        """All styles, by name."""
        found = self._read_or_empty().styles
        return [found[name] for name in sorted(found, key=str.casefold)]

    def style(self, name: str) -> Style:
        """A style by its name. Raises UserError if there is none."""
        return _known("style", name, self._read_or_empty().styles)

    def apply(self, prompt: str, negative: str, names: Iterable[str]) -> tuple[str, str]:
        """Both prompts with the named styles, in that order. Raises UserError."""
        found = self._read_or_empty().styles
        return apply_styles(prompt, negative, [_known("style", name, found) for name in names])

    def save_style(self, style: Style) -> None:
        """Add a style, or replace the one of that name."""
        with self._changing() as content:
            content.styles[style.name] = style

    def delete_style(self, name: str) -> None:
        """Raises UserError when there is none of that name."""
        with self._changing() as content:
            _known("style", name, content.styles)
            del content.styles[name]

    def import_csv(self, source: Path | str | bytes) -> Imported:
        """Import A1111's styles.csv (a path, its text or bytes), replacing equal names. Raises UserError."""
        found, left_out = read_csv(source)
        with self._changing() as content:
            added = [style.name for style in found if style.name not in content.styles]
            changed = [style.name for style in found if content.styles.get(style.name, style) != style]
            content.styles.update({style.name: style for style in found})
        return Imported(tuple(dict.fromkeys(added)), tuple(dict.fromkeys(changed)), tuple(left_out))

    # Presets.

    def presets(self) -> list[str]:
        """The names of all presets."""
        return sorted(self._read_or_empty().presets, key=str.casefold)

    def preset(self, name: str) -> dict[str, Any]:
        """A preset's values, as they were saved. Raises UserError if there is none."""
        return dict(_known("preset", name, self._read_or_empty().presets))

    def save_preset(self, name: str, values: Mapping[str, Any]) -> None:
        """Save a form's values (any JSON) under a name, replacing an earlier preset."""
        name, plain = _checked_name("preset", name), _as_json(name, values)
        with self._changing() as content:
            content.presets[name] = plain

    def delete_preset(self, name: str) -> None:
        """Raises UserError when there is none of that name."""
        with self._changing() as content:
            _known("preset", name, content.presets)
            del content.presets[name]

    # The file.

    def _read_or_empty(self) -> _Content:
        try:
            return self._read()
        except UserError:
            return _Content()

    def _read(self) -> _Content:
        if not self.path.exists():
            return _Content()
        with plain_errors(self.path):
            text = self.path.read_bytes()
        try:
            return _content(json.loads(text.decode("utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError, UserError, RecursionError) as error:
            raise UserError(
                f"{self.path}: is not a styles file ({error}); it is renamed when a style is next saved"
            ) from error

    @contextmanager
    def _changing(self) -> Generator[_Content]:
        """The content, written when the block ends without an error."""
        with self._lock:
            try:
                content = self._read()
            except UserError:
                self._rename_damaged()
                content = _Content()
            yield content
            for kind, things in (("styles", content.styles), ("presets", content.presets)):
                if len(things) > MOST:
                    raise UserError(
                        f"there are {len(things)} {kind}: at most {MOST} can be saved; delete some"
                    )
            with plain_errors(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, _bytes(content))

    def _rename_damaged(self) -> None:
        with plain_errors(self.path):
            self.path.replace(self.path.with_name(f"{self.path.stem}-damaged-{time.time_ns()}.json"))


def read_csv(source: Path | str | bytes) -> tuple[list[Style], list[str]]:
    """The styles of a styles.csv as A1111 writes it, and a message for each invalid line.

    Columns: name, prompt (in old files `text`) and negative_prompt. A line without prompts is a heading
    between styles, and "None" is A1111's empty style. Raises UserError for any other file.
    """
    rows = csv.DictReader(io.StringIO(_decoded(source), newline=""), skipinitialspace=True)
    styles, left_out = [], []
    try:
        columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
        if "name" not in columns or not any(name in columns for name in _PROMPTS):
            raise UserError("this is not a styles.csv: its first line must be name,prompt,negative_prompt")
        for row in rows:
            name, prompt, negative = (
                next((row[columns[key]] or "" for key in keys if key in columns), "").strip()
                for keys in (("name",), _PROMPTS, _NEGATIVES)
            )
            if name in ("", "None") or not (prompt or negative):
                continue
            try:
                styles.append(Style(name, prompt, negative))
            except UserError as error:
                left_out.append(f"line {rows.line_num} is left out: {error}")
    except csv.Error as error:
        raise UserError(
            f"line {rows.line_num} of the styles.csv cannot be read ({error}); correct it"
        ) from error
    return styles, left_out


def _decoded(source: Path | str | bytes) -> str:
    if isinstance(source, str):
        return source.removeprefix("\ufeff")
    data = _file(source) if isinstance(source, Path) else source
    for encoding in ("utf-8-sig", "cp1252"):  # old spreadsheets save the latter
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError("this is not a styles.csv: it is not text")


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path.name}: is too large for a styles.csv; choose another file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read ({error.strerror}); choose another file") from error


def _content(values: Any) -> _Content:
    styles = [Style(item["name"], item["prompt"], item["negative"]) for item in values["styles"]]
    presets = {item["name"]: dict(item["values"]) for item in values["presets"]}
    return _Content({style.name: style for style in styles}, presets)


def _bytes(content: _Content) -> bytes:
    values = {
        "format": FORMAT,
        "styles": [vars(style) for style in content.styles.values()],
        "presets": [{"name": name, "values": values} for name, values in content.presets.items()],
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _as_json(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON can hold. Raises UserError if it cannot."""
    try:
        text = json.dumps(dict(values), ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"preset {name}: has a value that cannot be saved ({error})") from error
    if len(text) > LONGEST_PRESET:
        raise UserError(f"preset {name}: is too long to be saved; shorten the prompt")
    plain: dict[str, Any] = json.loads(text)
    return plain


def _checked_name(kind: str, name: object) -> str:
    text = " ".join(check_text(f"the {kind}'s name", name).split())
    if not 1 <= len(text) <= LONGEST_NAME:
        raise UserError(f"the {kind} needs a name of 1 to {LONGEST_NAME} characters")
    return text


def _known(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise UserError(f"there is no {kind} {shown(name)}{hint(name, known)}")
    return known[name]


def _count(things: tuple[str, ...], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
