"""The nouns of the storybook pictures: what they are called, and the vector drawing of each.

`data/nouns/nouns.toml` has the words, `data/nouns/icons.json` the drawings, in the form of an Iconify icon
set.
"""

from __future__ import annotations

import colorsys
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.toml_records import read_toml

FOLDER = Path(__file__).resolve().parents[2] / "data" / "nouns"
# Hue, saturation and value that a drawing's own colour is replaced by.
TINTS = {
    "red": (0.99, 0.82, 0.93),
    "orange": (0.075, 0.85, 0.98),
    "yellow": (0.135, 0.78, 1.0),
    "green": (0.38, 0.75, 0.68),
    "blue": (0.6, 0.8, 0.92),
    "purple": (0.77, 0.6, 0.75),
    "pink": (0.91, 0.48, 0.99),
}
_HUES_APART = 0.065  # of a drawing's own colour: its shades are changed with it, other hues are not
_LEAST_SATURATION = 0.3
_HEX = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


@dataclass(frozen=True)
class Noun:
    """name: one of it, without article; many: the plural; also: other words for one; flies: in a landscape
    it is in the sky; tint: the colour that a prompt may replace, if there is one.
    """

    name: str
    icon: str
    many: str
    also: tuple[str, ...] = ()
    flies: bool = False
    tint: str | None = None


@cache
def nouns() -> dict[str, Noun]:
    """All nouns by name, in the order of the file."""
    found = {}
    for name, values in read_toml(FOLDER / "nouns.toml").items():
        found[name] = Noun(
            name,
            values.get("icon", name.replace(" ", "-")),
            values.get("many", f"{name}s"),
            tuple(values.get("also", ())),
            values.get("flies", False),
            values.get("tint"),
        )
    return found


@cache
def _bodies() -> dict[str, dict[str, str]]:
    icons: dict[str, dict[str, str]] = json.loads((FOLDER / "icons.json").read_text(encoding="utf-8"))[
        "icons"
    ]
    return icons


def drawing(noun: Noun, color: str | None = None) -> str:
    """The noun as SVG elements in a square of 32x32, in its own colours or with `color` for its main one."""
    body = _bodies()[noun.icon]["body"]
    if color is None or noun.tint is None:
        return body
    own = _hsv(noun.tint.lstrip("#"))
    return _HEX.sub(lambda match: _tinted(match, own, TINTS[color]), body)


def _tinted(match: re.Match[str], own: tuple[float, ...], wanted: tuple[float, ...]) -> str:
    h, s, v = _hsv(match.group(1))
    away = (h - own[0] + 0.5) % 1 - 0.5
    if s < _LEAST_SATURATION or abs(away) > _HUES_APART:
        return match.group(0)
    hue = (wanted[0] + 0.3 * away) % 1
    saturation = min(1.0, s * wanted[1] / own[1])
    value = min(1.0, v * wanted[2] / own[2])
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb(hue, saturation, value))


def _hsv(text: str) -> tuple[float, float, float]:
    if len(text) == 3:
        text = "".join(2 * c for c in text)
    r, g, b = (int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return colorsys.rgb_to_hsv(r, g, b)
