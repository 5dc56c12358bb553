"""What the images of the embedded model show: specifications, and how they are chosen at random.

A specification says everything that a caption may name and nothing else; the exact position, size and shade
are left to `drawing.draw`, so that one specification gives many images.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

Split: TypeAlias = Literal["seen", "held_out"]
RGB: TypeAlias = tuple[int, int, int]
_T = TypeVar("_T")

COLORS: dict[str, RGB] = {
    "red": (216, 38, 42),
    "orange": (246, 128, 28),
    "yellow": (252, 214, 44),
    "green": (40, 146, 66),
    "cyan": (52, 200, 210),
    "blue": (36, 82, 206),
    "purple": (126, 52, 168),
    "pink": (248, 142, 186),
    "brown": (122, 72, 38),
    "black": (24, 24, 28),
    "white": (247, 247, 244),
    "gray": (142, 142, 147),
}
SHAPE_KINDS = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
SCENE_KINDS = ("house", "tree", "boat", "lighthouse", "balloon", "castle", "windmill", "kite")
SKY_KINDS = frozenset({"balloon", "kite"})
KINDS = SHAPE_KINDS + SCENE_KINDS
SIZES = ("small", "medium", "large")
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
SCENE_PLACES = ("left", "middle", "right")
PATTERNS = ("plain", "striped", "dotted")
RELATIONS = ("none", "left of", "above", "inside")
SKIES = ("dawn", "day", "sunset", "night", "storm")
LIGHTS = ("none", "sun", "full moon", "crescent moon", "lightning")
WEATHERS = ("none", "clouds", "rain", "snow")
LANDS = ("hills", "mountains", "sea", "desert", "forest", "meadow")


@dataclass(frozen=True)
class Thing:
    """One object. `place` is one of PLACES among shapes and one of SCENE_PLACES in a scene."""

    kind: str
    color: str
    size: str = "medium"
    place: str = "center"


@dataclass(frozen=True)
class Shapes:
    """One to three shapes on a background.

    `things` are in the order in which a person reads them: from left to right, those in one column from top
    to bottom, the inner one first. So three relations are enough: "right of" is "left of" turned round.
    `pattern_color` is None when the pattern is a near shade of the background.
    """

    background: str
    pattern: str
    pattern_color: str | None
    things: tuple[Thing, ...]
    relation: str = "none"


@dataclass(frozen=True)
class Scene:
    """A landscape; `things` from left to right, those at one place from top to bottom."""

    sky: str
    light: str
    stars: bool
    weather: str
    land: str
    things: tuple[Thing, ...] = ()


Spec: TypeAlias = Shapes | Scene


def held_out(color: str, kind: str) -> bool:
    """Whether training never shows this colour on this kind of object: about one pair in eleven, by rule."""
    group = SHAPE_KINDS if kind in SHAPE_KINDS else SCENE_KINDS
    return (list(COLORS).index(color) * 7 + group.index(kind) * 3 + 4) % 11 == 0


HELD_OUT = frozenset((color, kind) for color in COLORS for kind in KINDS if held_out(color, kind))


def split_of(spec: Spec) -> Split:
    """The split an image belongs to: held out as soon as one of its things is."""
    return "held_out" if any((t.color, t.kind) in HELD_OUT for t in spec.things) else "seen"


# ---------------------------------------------------------------- sampling


def sample(rng: random.Random, split: Split | None = None) -> Spec:
    """A random image: six in ten are shapes, four in ten scenes."""
    return sample_shapes(rng, split) if rng.random() < 0.6 else sample_scene(rng, split)


def sample_shapes(rng: random.Random, split: Split | None = None) -> Shapes:
    """Random shapes: 35% with one thing, 55% with two, 10% with three."""
    count = pick(rng, (1, 2, 3), (35, 55, 10))
    while True:
        spec = (_one, _two, _three)[count - 1](rng)
        if split is None or split_of(spec) == split:
            return spec


def sample_scene(rng: random.Random, split: Split | None = None) -> Scene:
    """A random landscape with 0 to 2 things (at least one when `split` is held_out)."""
    while True:
        spec = _scene(rng)
        if split is None or split_of(spec) == split:
            return spec


def pick(rng: random.Random, values: Sequence[_T], weights: Sequence[float]) -> _T:
    """One of `values`, with these relative weights."""
    return rng.choices(values, weights)[0]


def _one(rng: random.Random) -> Shapes:
    place = "center" if rng.random() < 0.4 else rng.choice(PLACES)
    color = rng.choice(tuple(COLORS))
    thing = Thing(rng.choice(SHAPE_KINDS), color, rng.choice(SIZES), place)
    return _on_background(rng, (thing,))


def _two(rng: random.Random) -> Shapes:
    relation = pick(rng, RELATIONS, (15, 42, 30, 13))
    if relation == "inside":
        return _inside(rng)
    places = _two_places(rng, relation)
    return _on_background(rng, _things(rng, places, SIZES), relation)


def _three(rng: random.Random) -> Shapes:
    relation = pick(rng, ("left of", "above", "none"), (60, 20, 20))
    line = rng.randrange(3) if rng.random() < 0.3 else 1
    cells = rng.sample(range(9), 3)
    if relation == "left of":
        cells = [3 * line, 3 * line + 1, 3 * line + 2]
    elif relation == "above":
        cells = [line, 3 + line, 6 + line]
    elif len({c % 3 for c in cells}) == 1:
        relation = "above"
    elif len({c // 3 for c in cells}) == 1:
        relation = "left of"
    cells.sort(key=_reading_order)
    return _on_background(rng, _things(rng, [PLACES[c] for c in cells], SIZES[:2]), relation)


def _inside(rng: random.Random) -> Shapes:
    inner_color, outer_color = rng.sample(tuple(COLORS), 2)
    outer = Thing(rng.choice(SHAPE_KINDS[:7]), outer_color, "large", "center")
    inner = Thing(rng.choice(SHAPE_KINDS), inner_color, "small", "center")
    return _on_background(rng, (inner, outer), "inside")


def _two_places(rng: random.Random, relation: str) -> list[str]:
    """Two places far enough from each other for two large things."""
    line = pick(rng, (0, 1, 2), (20, 60, 20))
    if relation == "left of":
        return [PLACES[3 * line], PLACES[3 * line + 2]]
    if relation == "above":
        return [PLACES[line], PLACES[6 + line]]
    left, right = rng.choice(((0, 8), (6, 2), (0, 5), (3, 2), (3, 8), (6, 5), (0, 7), (1, 8), (6, 1), (7, 2)))
    return [PLACES[left], PLACES[right]]


def _things(rng: random.Random, places: Sequence[str], sizes: Sequence[str]) -> tuple[Thing, ...]:
    """Things of different kinds and colours most of the time, now and then all alike ("two red circles")."""
    count = len(places)
    kinds: Sequence[str] = rng.sample(SHAPE_KINDS, count)
    colors: Sequence[str] = rng.sample(tuple(COLORS), count)
    all_sizes: Sequence[str] = rng.choices(sizes, k=count)
    mood = rng.random()
    if mood < 0.12:
        kinds = [kinds[0]] * count
    elif mood < 0.18:
        colors = [colors[0]] * count
    elif mood < 0.23:
        kinds, colors, all_sizes = [kinds[0]] * count, [colors[0]] * count, [all_sizes[0]] * count
    return tuple(Thing(*fields) for fields in zip(kinds, colors, all_sizes, places, strict=True))


def _on_background(rng: random.Random, things: tuple[Thing, ...], relation: str = "none") -> Shapes:
    """Things on a background whose colours are none of theirs."""
    free = [name for name in COLORS if all(t.color != name for t in things)]
    background, second = rng.sample(free, 2)
    pattern = pick(rng, PATTERNS, (70, 15, 15))
    pattern_color = second if pattern != "plain" and rng.random() < 0.5 else None
    return Shapes(background, pattern, pattern_color, things, relation)


def _reading_order(cell: int) -> tuple[int, int]:
    return cell % 3, cell // 3


def _scene(rng: random.Random) -> Scene:
    sky = pick(rng, SKIES, (16, 30, 20, 24, 10))
    land = rng.choice(LANDS)
    weather = _weather(rng, sky, land)
    light = _light(rng, sky, weather)
    stars = sky == "night" and weather in ("none", "clouds") and rng.random() < 0.65
    return Scene(sky, light, stars, weather, land, _scene_things(rng, land))


def _weather(rng: random.Random, sky: str, land: str) -> str:
    if sky == "storm":
        weights = (15, 25, 45, 15)
    elif sky in ("day", "night"):
        weights = (42, 26, 12, 20)
    else:
        weights = (60, 26, 0, 14)
    weather = pick(rng, WEATHERS, weights)
    return "none" if land == "desert" and weather in ("rain", "snow") else weather


def _light(rng: random.Random, sky: str, weather: str) -> str:
    if sky == "storm":
        return "lightning" if rng.random() < 0.5 else "none"
    if weather == "rain" or rng.random() < 0.3:
        return "none"
    return rng.choice(LIGHTS[2:4]) if sky == "night" else "sun"


def _scene_things(rng: random.Random, land: str) -> tuple[Thing, ...]:
    """Up to two things, of two kinds; boats only on the sea; two at one place only when one of them flies."""
    kinds = [kind for kind in SCENE_KINDS if kind != "boat" or land == "sea"]
    weights = [4 if kind == "boat" else 1 for kind in kinds]
    count = pick(rng, (0, 1, 2), (10, 52, 38))
    things: dict[str, Thing] = {}
    while len(things) < count:
        kind = pick(rng, kinds, weights)
        taken = {t.place for t in things.values() if (t.kind in SKY_KINDS) == (kind in SKY_KINDS)}
        place = rng.choice([p for p in SCENE_PLACES if p not in taken])
        things[kind] = Thing(kind, rng.choice(tuple(COLORS)), "medium", place)
        if len(things) == 2 and len({t.place for t in things.values()}) == 1 and not _one_flies(things):
            del things[kind]
    return tuple(
        sorted(things.values(), key=lambda t: (SCENE_PLACES.index(t.place), t.kind not in SKY_KINDS))
    )


def _one_flies(things: dict[str, Thing]) -> bool:
    return len(SKY_KINDS & things.keys()) == 1


# ---------------------------------------------------------------- attributes

_BACKGROUNDS = ("none", *COLORS)
_ALL_PLACES = ("none", *PLACES, "middle")

FIELDS: dict[str, tuple[str, ...]] = {
    "background": _BACKGROUNDS,
    "pattern": ("none", *PATTERNS),
    "pattern_color": _BACKGROUNDS,
    "relation": RELATIONS,
    "sky": ("none", *SKIES),
    "light": ("none", "sun", "moon", "lightning"),
    "phase": ("none", "full", "crescent"),
    "stars": ("none", "stars"),
    "weather": WEATHERS,
    "land": ("none", *LANDS),
    **{
        f"{field}_{k}": classes
        for k in (1, 2, 3)
        for field, classes in (
            ("kind", ("none", *KINDS)),
            ("color", _BACKGROUNDS),
            ("size", ("none", *SIZES)),
            ("place", _ALL_PLACES),
        )
    },
}
"""The questions that a caption answers, each with its classes; class 0 is 'not there'."""


def attributes(spec: Spec) -> dict[str, int]:
    """The class of every field of FIELDS; things are numbered 1.. in the specification's order."""
    names = _shape_names(spec) if isinstance(spec, Shapes) else _scene_names(spec)
    for k, thing in enumerate(spec.things, 1):
        names |= {f"kind_{k}": thing.kind, f"color_{k}": thing.color, f"place_{k}": thing.place}
        if isinstance(spec, Shapes):
            names[f"size_{k}"] = thing.size
    return {field: classes.index(names.get(field, "none")) for field, classes in FIELDS.items()}


def _shape_names(spec: Shapes) -> dict[str, str]:
    return {
        "background": spec.background,
        "pattern": spec.pattern,
        "pattern_color": spec.pattern_color or "none",
        "relation": spec.relation,
    }


def _scene_names(spec: Scene) -> dict[str, str]:
    phase, _, moon = spec.light.partition(" ")
    return {
        "sky": spec.sky,
        "light": moon or spec.light,
        "phase": phase if moon else "none",
        "stars": "stars" if spec.stars else "none",
        "weather": spec.weather,
        "land": spec.land,
    }
