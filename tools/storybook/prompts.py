"""The prompts that the model is measured with: a fixed number of each kind, in a person's wording."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from core.scenes.backdrops import PLACES
from core.scenes.scene import SHAPE_KINDS
from core.scenes.storybook_captions import COLOR_WORDS, LIGHT, OVER, WHEN, WHERE, caption
from core.scenes.storybook_scene import StorybookSpec, sample


@dataclass(frozen=True)
class Prompt:
    """What to type, what it means, and whether it says the ground and the hour."""

    text: str
    spec: StorybookSpec
    ground: bool
    hour: bool
    sides: bool


_SIDES = ("left", "right", "above", "over", "below", "under", "on top of")


def _one(spec: StorybookSpec) -> bool:
    return len(spec.items) == 1 and spec.items[0].kind not in SHAPE_KINDS


def _two(spec: StorybookSpec) -> bool:
    return len(spec.items) == 2 and spec.relation in ("left of", "above") and not _with_shape(spec)


def _with_shape(spec: StorybookSpec) -> bool:
    return any(item.kind in SHAPE_KINDS for item in spec.items)


def _shape(spec: StorybookSpec) -> bool:
    return len(spec.items) == 1 and spec.items[0].kind in SHAPE_KINDS


GROUPS: dict[str, Callable[[StorybookSpec], bool]] = {
    "one": _one,
    "held_out": _one,
    "two": _two,
    "shape": _shape,
}


def prompts(group: str, count: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts of a group of GROUPS; a larger count keeps the first ones."""
    rng = random.Random(f"storybook/{seed}/{group}")
    chosen: list[Prompt] = []
    while len(chosen) < count:
        spec = sample(rng, "held_out" if group == "held_out" else "seen")
        if not GROUPS[group](spec) or any(item.color == spec.ground for item in spec.items):
            continue
        text = caption(spec, rng)
        ground = _says_ground(spec, text)
        if group == "held_out" and not ground:
            continue
        hour = spec.hour is not None and any(words in text for words in WHEN[spec.hour])
        hour = hour or any(light in text for light in LIGHT.values())
        chosen.append(Prompt(text, spec, ground, hour, any(word in text.split() for word in _SIDES)))
    return chosen


def _says_ground(spec: StorybookSpec, text: str) -> bool:
    if spec.ground in PLACES:
        return any(words in text for words in (*WHERE[spec.ground], *OVER.get(spec.ground, ())))
    colors = COLOR_WORDS.get(spec.ground, (spec.ground,))
    return any(f"{color} {behind}" in text for color in colors for behind in ("background", "wall", "paper"))
