"""What storybook images show: one specification per image, chosen at random.

A specification has all that is drawn, to the cell; what a caption says of it is chosen in
`storybook_captions`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from core.scenes.backdrops import INDOORS, PLACES
from core.scenes.nouns import TINTS, nouns
from core.scenes.scene import COLORS, SHAPE_KINDS, Split

CELLS = 8
# By what is asked, in cells: few, and mostly one, so that each thing looks the same to a model almost always.
SIZES = {None: 4, "small": 2, "big": 6}
# Things that the project draws itself, in any of the colours.
BUILT = ("lighthouse", "windmill")
CLOSE = (("white", "gray"), ("red", "orange"), ("blue", "purple"), ("orange", "yellow"), ("brown", "black"))
_T = TypeVar("_T")


@dataclass(frozen=True)
class Item:
    """One thing: a noun, one of BUILT or a shape. It fills `size` x `size` cells from (column, row) on.

    color: what the caption may say of it, None for a noun's own.
    """

    kind: str
    color: str | None
    size: int
    column: int = 0
    row: int = 0

    @property
    def is_shape(self) -> bool:
        return self.kind in SHAPE_KINDS


@dataclass(frozen=True)
class StorybookSpec:
    """What one image shows.

    ground: one of PLACES, or a colour; pattern: of a coloured ground; lights: what is in the sky, with the
    cell where it begins; relation: of two items, the first being "left of" or "above" the second; "many"
    where all are the same.
    """

    ground: str
    hour: str | None = None
    pattern: str = "plain"
    lights: tuple[tuple[str, int, int], ...] = ()
    items: tuple[Item, ...] = ()
    relation: str = "none"
    asked_size: str | None = None
    asked_place: str | None = None

    @property
    def is_scene(self) -> bool:
        return self.ground in PLACES


def held_out(kind: str, place: str) -> bool:
    """Whether this thing in this place never occurs in training: one pair in twelve."""
    return kind not in SHAPE_KINDS and zlib.crc32(f"{kind} {place}".encode()) % 12 == 0


def kinds() -> tuple[str, ...]:
    """All things but the shapes."""
    return (*nouns(), *BUILT)


def flies(kind: str) -> bool:
    """Whether it is in the sky of a landscape."""
    return kind in nouns() and nouns()[kind].flies


def colors_of(kind: str) -> tuple[str, ...]:
    """The colours in which it can be asked for."""
    if kind in SHAPE_KINDS or kind in BUILT:
        return tuple(COLORS)
    return tuple(TINTS) if nouns()[kind].tint else ()


def sample(rng: random.Random, split: Split = "seen") -> StorybookSpec:
    """What an image shows, at random. `held_out`: one noun in a place where it never is in training."""
    if split == "held_out":
        return _one(rng, place=True, held=True)
    choice = rng.random()
    if choice < 0.03:
        return _ground(rng, place=True)
    if choice < 0.13:
        return _shapes(rng)
    if choice < 0.68:
        return _one(rng, place=rng.random() < 0.5)
    if choice < 0.90:
        return _two(rng, place=rng.random() < 0.5)
    if choice < 0.97:
        return _many(rng, place=rng.random() < 0.5)
    return _three(rng, place=rng.random() < 0.5)


def _ground(rng: random.Random, *, place: bool) -> StorybookSpec:
    """What is behind everything, with the sky of the hour."""
    if not place:
        pattern = rng.choices(("plain", "striped", "dotted"), (0.88, 0.06, 0.06))[0]
        return StorybookSpec(rng.choice(list(COLORS)), pattern=pattern)
    where = PLACES[rng.choice(list(PLACES))]
    hour = rng.choices(where.hours, [_OFTEN[h] for h in where.hours])[0]
    if where.name in INDOORS:
        return StorybookSpec(where.name, hour if len(where.hours) > 1 else None)
    return StorybookSpec(where.name, hour, lights=_lights(rng, hour, 2 if where.open else 0))


_OFTEN = {"day": 3.0, "sunset": 2.0, "night": 2.0, "dawn": 1.0, "rain": 1.0}


def _lights(rng: random.Random, hour: str, low: int) -> tuple[tuple[str, int, int], ...]:
    if hour == "day" and rng.random() < 0.06:
        return (("rainbow", 0, 0),)
    columns = rng.sample((0, 2, 4, 6), 3)
    sources: dict[str, Sequence[tuple[str, float]]] = {
        "day": (("sun", 0.5),),
        "sunset": (("low sun", 0.4),),
        "night": (("full moon", 0.35), ("half moon", 0.25)),
        "dawn": (("low sun", 0.3),),
        "rain": (),
    }
    found = []
    for name, share in sources[hour]:
        if not found and rng.random() < share:
            found.append((name, columns.pop(), low if name == "low sun" else 0))
    clouds = {"day": 2, "dawn": 1, "sunset": 1, "night": 0, "rain": 2}[hour]
    found += [("cloud", columns.pop(), rng.choice((0, 1))) for _ in range(rng.randint(0, clouds))]
    if hour == "rain":
        found.append(("rain", 0, 0))
    return tuple(found)


def _kind(rng: random.Random, place: str | None, *, held: bool = False) -> str:
    """A noun that is allowed there."""
    allowed = kinds()
    while True:
        kind = rng.choice(allowed)
        if place is None or held_out(kind, place) == held:
            return kind


def _thing(rng: random.Random, kind: str, size: int, background: str | None = None) -> Item:
    colors = [color for color in colors_of(kind) if not _alike(color, background)]
    always = kind in SHAPE_KINDS or kind in BUILT
    color = rng.choice(colors) if colors and (always or rng.random() < 0.5) else None
    return Item(kind, color, size)


def _alike(color: str, other: str | None) -> bool:
    return color == other or (color, other) in CLOSE or (other, color) in CLOSE


def _place_of(spec: StorybookSpec) -> str | None:
    return spec.ground if spec.is_scene else None


def _background(spec: StorybookSpec) -> str | None:
    return None if spec.is_scene else spec.ground


def _row(rng: random.Random, spec: StorybookSpec, kind: str, size: int) -> int:
    """Where a thing begins from the top: on the floor, in the sky, or about the middle."""
    floor = PLACES[spec.ground].floor if spec.is_scene else None
    if floor is None:
        return rng.choice(sorted({(CELLS - size) // 2, (CELLS - size + 1) // 2}))
    if flies(kind) and spec.ground != "room":
        return 0
    return floor - size


def _one(rng: random.Random, *, place: bool, held: bool = False) -> StorybookSpec:
    spec = _ground(rng, place=place)
    kind = _kind(rng, _place_of(spec), held=held)
    asked_size = rng.choices((None, "small", "big"), (0.8, 0.1, 0.1))[0]
    size = SIZES[asked_size]
    item = _thing(rng, kind, size, _background(spec))
    free = CELLS - size
    asked_place = None
    if asked_size != "big" and rng.random() < 0.25:
        asked_place = rng.choice(("left", "right"))
    column = {"left": 0, "right": free}.get(asked_place or "", free // 2)
    if asked_place is None and place:
        column = min(free, max(0, column + rng.choice((-2, 0, 0, 2))))
    row = _row(rng, spec, kind, size)
    if not place and asked_size == "small" and asked_place is None and rng.random() < 0.2:
        asked_place = rng.choice(("top", "bottom"))
        row = 0 if asked_place == "top" else free
    item = replace(item, column=column, row=row)
    return replace(spec, items=(item,), asked_size=asked_size, asked_place=asked_place)


def _two(rng: random.Random, *, place: bool) -> StorybookSpec:
    spec = _ground(rng, place=place)
    first, second = _kind(rng, _place_of(spec)), _kind(rng, _place_of(spec))
    while second == first:
        second = _kind(rng, _place_of(spec))
    above = rng.random() < (0.3 if not flies(first) else 0.6)
    things = [_thing(rng, kind, 4, _background(spec)) for kind in (first, second)]
    if above:
        items = (replace(things[0], column=2), replace(things[1], column=2, row=4))
        return replace(spec, items=items, relation="above")
    items = tuple(
        replace(thing, column=column, row=_row(rng, spec, thing.kind, 4))
        for thing, column in zip(things, (0, 4), strict=True)
    )
    if not spec.is_scene:
        items = tuple(replace(item, row=items[0].row) for item in items)
    return replace(spec, items=items, relation="left of")


def _many(rng: random.Random, *, place: bool) -> StorybookSpec:
    spec = _ground(rng, place=place)
    kind = _kind(rng, _place_of(spec))
    count = rng.choice((2, 2, 3))
    item = _thing(rng, kind, 4 if count == 2 else 2, _background(spec))
    columns = (0, 4) if count == 2 else (0, 3, 6)
    row = _row(rng, spec, kind, item.size)
    items = tuple(replace(item, column=column, row=row) for column in columns)
    return replace(spec, items=items, relation="many")


def _three(rng: random.Random, *, place: bool) -> StorybookSpec:
    spec = _ground(rng, place=place)
    chosen: list[str] = []
    while len(chosen) < 3:
        kind = _kind(rng, _place_of(spec))
        if kind not in chosen:
            chosen.append(kind)
    items = []
    for kind, column in zip(chosen, (0, 3, 6), strict=True):
        item = _thing(rng, kind, 2, _background(spec))
        row = _row(rng, spec, kind, 2) if spec.is_scene else 3
        items.append(replace(item, column=column, row=row))
    return replace(spec, items=tuple(items), relation="left of")


def _shapes(rng: random.Random) -> StorybookSpec:
    """One or two shapes on a colour, at times with a noun."""
    spec = _ground(rng, place=False)
    if rng.random() < 0.6:
        asked = rng.choices((None, "small", "big"), (0.6, 0.2, 0.2))[0]
        size = SIZES[asked]
        item = _thing(rng, rng.choice(SHAPE_KINDS), size, spec.ground)
        free, place = CELLS - size, None
        if asked != "big" and rng.random() < 0.25:
            place = rng.choice(("left", "right", "top", "bottom"))
        column = {"left": 0, "right": free}.get(place or "", free // 2)
        row = {"top": 0, "bottom": free}.get(place or "", free // 2)
        item = replace(item, column=column, row=row)
        return replace(spec, items=(item,), asked_size=asked, asked_place=place)
    first = _thing(rng, rng.choice(SHAPE_KINDS), 4, spec.ground)
    second = _thing(rng, rng.choice(SHAPE_KINDS) if rng.random() < 0.7 else _kind(rng, None), 4, spec.ground)
    if rng.random() < 0.5:
        first, second = (
            (first, second) if first.kind == second.kind or rng.random() < 0.5 else (second, first)
        )
    if rng.random() < 0.35:
        items = (replace(first, column=2), replace(second, column=2, row=4))
        return replace(spec, items=items, relation="above")
    items = (replace(first, row=2), replace(second, column=4, row=2))
    return replace(spec, items=items, relation="left of")
