"""Judges a picture against what was asked for, by its pixels alone: no network, nothing learned.

The readers see the picture and not the question (`shapes`), or look for what was asked in every colour and
take it for found only when no other colour fits better (`scenes`). What is missing or too many is wrong too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.scenes.scene import Scene, Shapes, Spec, Thing
from tools.adherence.regions import Pixels
from tools.adherence.scenes import read_sky, stands
from tools.adherence.shapes import Reading, Seen, read_shapes

APART = 12
"""Pixels between two centres from which on one is left of, or above, the other (as drawn: 61 and more)."""


@dataclass(frozen=True)
class Verdict:
    """What is right; None where nothing was asked.

    colors, kinds: for each asked thing. Among shapes a colour is right on whatever kind it is, and a kind in
    whatever colour: a pair that swapped its colours has all of both; each thing too many makes one wrong. In
    a scene a colour is right on its own kind only, and kinds are not judged apart.
    bound: every thing has its own colour and kind together, and there are no others.
    relation: that, and each where it was asked to be relative to the other.
    """

    background: bool | None = None
    pattern: bool | None = None
    colors: tuple[bool, ...] = ()
    kinds: tuple[bool, ...] = ()
    bound: bool | None = None
    relation: bool | None = None
    sky: bool | None = None

    @property
    def right(self) -> bool:
        """Whether everything is."""
        single = (self.background, self.pattern, self.bound, self.relation, self.sky)
        return all(self.colors) and all(self.kinds) and False not in single


def judge(
    picture: Image.Image | NDArray[np.uint8], spec: Spec, stated: frozenset[str] | None = None
) -> Verdict:
    """The verdict on a picture of 128 x 128. `stated` names the FIELDS that were said; None: all were.

    A pattern counts as asked when its background is; a relation also when both places are said.
    """
    pixels = np.asarray(picture, np.float32)
    if isinstance(spec, Shapes):
        return compare(read_shapes(pixels), spec, stated)
    return _judge_scene(pixels, spec, stated)


def relation_asked(spec: Spec, stated: frozenset[str]) -> bool:
    """Whether a caption says, in words or by both places, how two things lie to each other."""
    return (
        isinstance(spec, Shapes)
        and len(spec.things) == 2
        and spec.relation != "none"
        and ("relation" in stated or {"place_1", "place_2"} <= stated)
    )


def compare(reading: Reading, spec: Shapes, stated: frozenset[str] | None = None) -> Verdict:
    """The verdict on what was read of a picture of shapes."""
    paper, seen = reading.paper, reading.things
    said = stated is None or "background" in stated
    asked_relation = len(spec.things) == 2 and spec.relation != "none"
    if stated is not None:
        asked_relation = relation_asked(spec, stated)
    orders = _orders(seen, spec.things)
    if paper.either and paper.color == spec.pattern_color:
        paper = replace(paper, color=paper.ink or "", ink=paper.color)
    return Verdict(
        background=paper.color == spec.background if said else None,
        pattern=(paper.pattern, paper.ink) == (spec.pattern, spec.pattern_color) if said else None,
        colors=_matched((t.color for t in spec.things), (t.color for t in seen)),
        kinds=_matched((t.kind for t in spec.things), (t.kind for t in seen)),
        bound=bool(orders),
        relation=any(_lie(order, spec.relation) for order in orders) if asked_relation else None,
    )


def _matched(asked: Iterable[str], seen: Iterable[str]) -> tuple[bool, ...]:
    """For each asked name whether it is seen, none counted twice; each too many makes one of them wrong."""
    wanted, there = Counter(asked), Counter(seen)
    count = sum(wanted.values())
    right = sum((wanted & there).values()) - max(0, sum(there.values()) - count)
    return tuple(k < right for k in range(count))


def _orders(seen: Sequence[Seen], things: Sequence[Thing]) -> list[tuple[Seen, ...]]:
    """Every way to take what is seen, all of it, for the things asked for."""
    if len(seen) != len(things):
        return []
    wanted = [(thing.color, thing.kind) for thing in things]
    return [order for order in permutations(seen) if [(s.color, s.kind) for s in order] == wanted]


def _lie(order: tuple[Seen, ...], relation: str) -> bool:
    """Whether the first of two things lies left of, above or inside the second."""
    first, second = order
    right, down = second.x - first.x, second.y - first.y
    if relation == "inside":
        return max(abs(right), abs(down)) < 16 and first.area < second.area
    along, across = (right, down) if relation == "left of" else (down, right)
    return along > APART and along > abs(across)


def _judge_scene(pixels: Pixels, spec: Scene, stated: frozenset[str] | None) -> Verdict:
    said = stated is None or "sky" in stated
    found = [stands(pixels, thing.kind, thing.color) for thing in spec.things]
    return Verdict(sky=read_sky(pixels) == spec.sky if said else None, colors=tuple(found))
