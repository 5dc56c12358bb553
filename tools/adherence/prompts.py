"""The prompts that adherence is measured with: a fixed number of each kind, from a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from core.scenes.captions import describe
from core.scenes.scene import Scene, Shapes, Spec, Split, sample_scene, sample_shapes
from tools.adherence.detector import relation_asked

GROUPS = {"one": 4, "two": 6, "inside": 1, "scene": 5}
"""Sixteenths of the prompts: one shape; two, side by side or stacked; one in another; a scene with things."""


@dataclass(frozen=True)
class Prompt:
    """What to type, what it means, and which of the FIELDS of that it says."""

    text: str
    spec: Spec
    stated: frozenset[str]


def prompts(count: int, split: Split, seed: int = 0) -> list[Prompt]:
    """`count` prompts of a split, shared out as GROUPS says; a larger count keeps each group's first ones."""
    chosen: list[Prompt] = []
    for group, share in GROUPS.items():
        rng = random.Random(f"adherence/{seed}/{split}/{group}")
        chosen += [_prompt(group, split, rng) for _ in range(round(count * share / 16))]
    return chosen


def _prompt(group: str, split: Split, rng: random.Random) -> Prompt:
    while True:
        spec = sample_scene(rng, split) if group == "scene" else sample_shapes(rng, split)
        text, stated = describe(spec, rng)
        if _BELONGS[group](spec, stated):
            return Prompt(text, spec, stated)


def _is_one(spec: Spec, stated: frozenset[str]) -> bool:
    return len(spec.things) == 1


def _is_two(spec: Spec, stated: frozenset[str]) -> bool:
    """Two that differ in kind or colour: alike, none could take the other's."""
    return (
        isinstance(spec, Shapes)
        and spec.relation in ("left of", "above")
        and relation_asked(spec, stated)
        and (spec.things[0].kind, spec.things[0].color) != (spec.things[1].kind, spec.things[1].color)
    )


def _is_inside(spec: Spec, stated: frozenset[str]) -> bool:
    return isinstance(spec, Shapes) and spec.relation == "inside"


def _is_scene(spec: Spec, stated: frozenset[str]) -> bool:
    return isinstance(spec, Scene) and bool(spec.things)


_BELONGS: dict[str, Callable[[Spec, frozenset[str]], bool]] = {
    "one": _is_one,
    "two": _is_two,
    "inside": _is_inside,
    "scene": _is_scene,
}
