"""From a specification to a natural caption, with the fields that it states.

Conventions that make short prompts clear: of two things joined by "and" the first is on the left (or above),
a background named without a pattern is plain, a scene whose hour is not named is mostly by day.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

from core.scenes import phrases as say
from core.scenes.scene import SKY_KINDS, Scene, Shapes, Spec, Thing

Stated = set[str]

EXAMPLES: tuple[str, ...] = (
    "a red house on a snowy hill under a full moon at night",
    "a white lighthouse and a red boat on the sea at sunset",
    "a yellow balloon over the mountains on a sunny day",
    "storybook landscape: a purple castle in a stormy meadow with lightning",
    "a pink tree and a blue windmill in a meadow at dawn",
    "a large red circle on a blue background",
    "a yellow star above a purple heart",
    "a green triangle to the left of an orange square, on a white background with blue dots",
)
"""Prompts that make attractive pictures, for the page."""


def caption(spec: Spec, rng: random.Random) -> str:
    """One of the many ways to say `spec`."""
    return describe(spec, rng)[0]


def describe(spec: Spec, rng: random.Random) -> tuple[str, frozenset[str]]:
    """A caption, and the names of the FIELDS whose class can be known from it."""
    stated: Stated = set()
    text = _shapes(spec, rng, stated) if isinstance(spec, Shapes) else _scene(spec, rng, stated)
    return _finish(text, rng), frozenset(stated)


@cache
def words() -> frozenset[str]:
    """Every word, in lower case, that a caption can have."""
    tables = [value for name, value in vars(say).items() if name.isupper()]
    return frozenset(_words_of(tables))


def _words_of(value: object) -> set[str]:
    if isinstance(value, str):
        return set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", value.lower())))
    if isinstance(value, dict):
        return _words_of(list(value.values()))
    assert isinstance(value, (list, tuple)), value
    return set().union(*(_words_of(item) for item in value))


def _finish(text: str, rng: random.Random) -> str:
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").replace(",,", ",").strip(" ,")
    if text.startswith(("a ", "an ", "two ", "three ")) and rng.random() < 0.12:
        text = f"{rng.choice(say.OPENINGS)} {text}"
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.2 else text


def _fill(rng: random.Random, templates: Sequence[str], **parts: str) -> str:
    return rng.choice(templates).format(**parts)


def _article(noun: str, article: str) -> str:
    if article == "a" and noun[0] in "aeiou":
        article = "an"
    return f"{article} {noun}" if article else noun


# ---------------------------------------------------------------- shapes


def _shapes(spec: Shapes, rng: random.Random, stated: Stated) -> str:
    stated |= {f"kind_{k}" for k in (1, 2, 3)} | {f"color_{k}" for k in (1, 2, 3)}
    stated |= {f"{field}_{k}" for field in ("size", "place") for k in range(len(spec.things) + 1, 4)}
    stated |= {"sky", "light", "phase", "stars", "weather", "land"}
    bare = rng.random() < 0.22
    article = "" if bare else "a"
    thing = _things(spec, rng, stated, article)
    if rng.random() > (0.65 if spec.pattern == "plain" else 0.92):
        return thing
    stated |= {"background", "pattern", "pattern_color"}
    if spec.pattern == "plain" and rng.random() < 0.15:
        return _fill(rng, say.ON_COLOR, t=thing, c=_color(spec.background, rng))
    background = _background(spec, rng, article)
    templates = say.ON_STRIPES if background.endswith(tuple(say.PATTERN_NOUNS)) else say.ON_BACKGROUND
    return _fill(rng, templates, t=thing, b=background)


def _background(spec: Shapes, rng: random.Random, article: str) -> str:
    color = _color(spec.background, rng)
    if spec.pattern == "plain":
        return _article(_fill(rng, say.PLAIN, c=color), article)
    if spec.pattern_color is None:
        return _article(_fill(rng, say.SHADED[spec.pattern], c=color), article)
    second = _color(spec.pattern_color, rng)
    text = _fill(rng, say.TWO_COLORED[spec.pattern], c=color, d=second)
    return _article(text, article) if "background" in text else text


def _things(spec: Shapes, rng: random.Random, stated: Stated, article: str) -> str:
    things = spec.things
    if len(things) == 1:
        return _lone(things[0], rng, stated, article)
    if (
        len({(t.kind, t.color, t.size) for t in things}) == 1
        and spec.relation != "inside"
        and rng.random() < 0.7
    ):
        return _alike(spec, rng, stated)
    sized = rng.random() < 0.5
    names = [_noun(t, k, rng, stated, article, sized) for k, t in enumerate(things, 1)]
    if len(things) == 3:
        return _three(spec, names, rng, stated)
    if spec.relation == "none" or (spec.relation != "inside" and rng.random() < 0.1):
        return _two_with_places(spec, names, rng, stated)
    if spec.relation != "inside" and rng.random() < 0.25:
        return _fill(rng, say.AND, a=names[0], b=names[1])
    stated.add("relation")
    return _fill(rng, say.RELATIONS[spec.relation], a=names[0], b=names[1])


def _lone(thing: Thing, rng: random.Random, stated: Stated, article: str) -> str:
    stated.add("relation")
    name = _noun(thing, 1, rng, stated, article, rng.random() < (0.35 if thing.size == "medium" else 0.8))
    if rng.random() < (0.25 if thing.place == "center" else 0.8):
        stated.add("place_1")
        return _fill(rng, say.AT_PLACE, t=name, p=rng.choice(say.PLACES[thing.place]))
    return name


def _noun(thing: Thing, k: int, rng: random.Random, stated: Stated, article: str, sized: bool) -> str:
    """Such as "a big red circle"; the size only when asked for."""
    noun = f"{_color(thing.color, rng)} {rng.choice(say.KINDS[thing.kind])}"
    if sized:
        stated.add(f"size_{k}")
        noun = f"{rng.choice(say.SIZES[thing.size])} {noun}"
    return _article(noun, article)


def _alike(spec: Shapes, rng: random.Random, stated: Stated) -> str:
    """Such as "two small red circles, one above the other"."""
    count, first = len(spec.things), spec.things[0]
    noun = f"{_color(first.color, rng)} {say.PLURALS[first.kind]}"
    if rng.random() < 0.5:
        stated |= {f"size_{k}" for k in range(1, count + 1)}
        noun = f"{rng.choice(say.SIZES[first.size])} {noun}"
    text = f"{say.NUMBERS[count - 2]} {noun}"
    if spec.relation == "none" or rng.random() < 0.3:
        return text
    stated.add("relation")
    return f"{text} {rng.choice(say.LINED_UP[spec.relation][count - 2])}"


def _two_with_places(spec: Shapes, names: list[str], rng: random.Random, stated: Stated) -> str:
    """Both with their places (either may come first), or only one of them, or only "and"."""
    first, second = (rng.choice(say.PLACES[t.place]) for t in spec.things)
    mood = rng.random()
    if mood < 0.15:
        return _fill(rng, say.AND, a=names[0], b=names[1])
    stated |= {"place_1", "place_2"}
    told = [(names[0], first), (names[1], second)]
    if rng.random() < 0.5:
        told.reverse()
    (a, p), (b, q) = told
    return _fill(rng, say.BOTH_PLACES, a=a, b=b, p=p, q=q)


def _three(spec: Shapes, names: list[str], rng: random.Random, stated: Stated) -> str:
    a, b, c = names
    mood = rng.random()
    if spec.relation != "none" and mood < 0.45:
        stated.add("relation")
        return _fill(rng, say.THREE_LINED_UP[spec.relation], a=a, b=b, c=c)
    if spec.relation == "none" and mood < 0.7:
        stated |= {"place_1", "place_2", "place_3"}
        p, q, r = (rng.choice(say.PLACES[t.place]) for t in spec.things)
        return _fill(rng, say.THREE_PLACES, a=a, b=b, c=c, p=p, q=q, r=r)
    return _fill(rng, say.THREE, a=a, b=b, c=c)


def _color(color: str, rng: random.Random) -> str:
    names = say.COLORS[color]
    return names[0] if rng.random() < 0.75 else rng.choice(names)


# ---------------------------------------------------------------- scenes


def _scene(spec: Scene, rng: random.Random, stated: Stated) -> str:
    stated |= {"background", "pattern", "pattern_color", "relation"}
    stated |= {f"{field}_{k}" for field in ("kind", "color", "size") for k in (1, 2, 3)}
    stated |= {f"place_{k}" for k in range(len(spec.things) + 1, 4)}
    mentions = _mentions(spec, rng)
    stated |= mentions & {"sky", "light", "stars", "weather", "land"}
    if "light" in mentions and (spec.light in ("sun", "lightning", "none")):
        stated.add("phase")
    if not spec.things:
        return _empty_scene(spec, rng, mentions, stated)
    if rng.random() < 0.12:
        return _listed(spec, rng, mentions, stated)
    things = _scene_things(spec, rng, stated)
    adjective, rest = _split_off_adjective(spec, rng, mentions)
    where = _where(spec, rng, adjective) if "land" in mentions else ""
    tail = " ".join(_circumstances(spec, rng, rest, stated))
    if not where and adjective:
        tail = f"{tail} {_weather(spec, rng)}"
    if "land" in mentions and rng.random() < 0.3:
        land = _article(f"{adjective} {_land_noun(spec, rng)}".strip(), "a")
        return _opened(_fill(rng, say.LAND_FIRST, l=land, m=tail, t=things), rng)
    return _opened(_fill(rng, say.THINGS_FIRST, t=things, w=where, m=tail), rng)


def _mentions(spec: Scene, rng: random.Random) -> set[str]:
    """Which fields to speak of; the usual is passed over more often than the unusual."""
    chances = {
        "sky": 0.4 if spec.sky == "day" else 0.93,
        "light": 0.0 if spec.light == "none" else 0.75,
        "stars": 0.7 if spec.stars else 0.0,
        "weather": {"none": 0.0, "clouds": 0.75}.get(spec.weather, 0.94),
        "land": 0.9,
    }
    return {field for field, chance in chances.items() if rng.random() < chance}


def _split_off_adjective(spec: Scene, rng: random.Random, mentions: set[str]) -> tuple[str, set[str]]:
    """Weather or sky as an adjective of the land ("snowy hills"), and what is left to be said."""
    if "weather" in mentions and rng.random() < 0.5:
        table = say.WEATHER_ADJECTIVES[spec.weather]
        return table[0] if spec.land == "sea" else rng.choice(table), mentions - {"weather"}
    if "sky" in mentions and spec.sky == "storm" and "land" in mentions and rng.random() < 0.3:
        return say.STORMY, mentions - {"sky"}
    return "", mentions


def _where(spec: Scene, rng: random.Random, adjective: str) -> str:
    flying = all(t.kind in SKY_KINDS for t in spec.things)
    sailing = any(t.kind == "boat" for t in spec.things)
    table = say.OVER_LAND if flying else say.ON_SEA if sailing else say.ON_LAND[spec.land]
    text = rng.choice(table)
    nouns = say.LAND_PLURALS[spec.land]
    return text.format(adj=adjective, l=rng.choice(nouns)).replace(" a  island", " an island")


def _circumstances(spec: Scene, rng: random.Random, mentions: set[str], stated: Stated) -> list[str]:
    """What is said of hour, light, stars and weather, in any order."""
    phrases = []
    if {"light", "sky"} <= mentions and spec.sky == "day" and spec.light == "sun" and rng.random() < 0.4:
        phrases.append(rng.choice(say.SUNNY_DAY))
        mentions = mentions - {"light", "sky"}
    if {"stars", "sky"} <= mentions and rng.random() < 0.4:
        phrases.append(rng.choice(say.STARRY_NIGHT))
        mentions = mentions - {"stars", "sky"}
    if "sky" in mentions:
        phrases.append(rng.choice(say.SKY[spec.sky]))
    if "light" in mentions:
        phrases.append(_light(spec, rng, stated))
    if "stars" in mentions:
        phrases.append(rng.choice(say.STARS))
    if "weather" in mentions:
        phrases.append(_weather(spec, rng))
    rng.shuffle(phrases)
    return [p if i == 0 or rng.random() < 0.7 else f", {p}" for i, p in enumerate(phrases)]


def _weather(spec: Scene, rng: random.Random) -> str:
    by_day = spec.sky in ("day", "storm")
    return rng.choice(
        [phrase for phrase in say.WEATHER[spec.weather] if by_day or not phrase.endswith("day")]
    )


def _light(spec: Scene, rng: random.Random, stated: Stated) -> str:
    if spec.light.endswith("moon") and rng.random() < 0.15:
        return rng.choice(say.ANY_MOON)
    stated.add("phase")
    return rng.choice(say.LIGHT[spec.light])


def _land_noun(spec: Scene, rng: random.Random) -> str:
    return rng.choice(say.LAND_NOUNS[spec.land])


def _opened(text: str, rng: random.Random) -> str:
    if rng.random() < 0.88:
        return text
    openings = say.SCENE_OPENINGS_OF if text.startswith(("a ", "an ")) else say.SCENE_OPENINGS
    return f"{rng.choice(openings)} {text.strip(' ,')}"


def _scene_things(spec: Scene, rng: random.Random, stated: Stated) -> str:
    article = "a" if rng.random() < 0.9 else ""
    placed = rng.random() < 0.35
    names = []
    for k, thing in enumerate(spec.things, 1):
        name = _article(f"{_color(thing.color, rng)} {rng.choice(say.SCENE_KINDS[thing.kind])}", article)
        if placed:
            stated.add(f"place_{k}")
            name = f"{name} {rng.choice(say.SCENE_PLACES[thing.place])}"
        names.append(name)
    if len(names) == 1:
        return names[0]
    return _fill(rng, say.SCENE_AND if placed else _pair_templates(spec), a=names[0], b=names[1])


def _pair_templates(spec: Scene) -> Sequence[str]:
    first, second = spec.things
    if first.kind in SKY_KINDS and second.kind not in SKY_KINDS and first.place == second.place:
        return say.FLYING_OVER
    return say.SCENE_AND if first.place == second.place else say.SCENE_PAIR


def _empty_scene(spec: Scene, rng: random.Random, mentions: set[str], stated: Stated) -> str:
    stated.add("land")
    adjective, rest = _split_off_adjective(spec, rng, mentions | {"land"})
    over: list[tuple[str, str]] = []
    if "sky" in rest:
        over.append(("sky", rng.choice(say.SKY_OVER[spec.sky])))
    if "light" in rest:
        over.append(("light", rng.choice(say.LIGHT_OVER[spec.light])))
    if over and rng.random() < 0.35:
        field, name = rng.choice(over)
        land = _fill(rng, say.OVER, s=name, adj=adjective, l=rng.choice(say.LAND_PLURALS[spec.land]))
        rest = rest - {field}
        stated |= {"phase"} if field == "light" else set()
    else:
        land = _article(f"{adjective} {_land_noun(spec, rng)}".strip(), "a" if rng.random() < 0.8 else "")
    return _opened(f"{land} {' '.join(_circumstances(spec, rng, rest, stated))}", rng)


def _listed(spec: Scene, rng: random.Random, mentions: set[str], stated: Stated) -> str:
    """Keywords with commas: "red house, hills, snow, full moon, night"."""
    parts = [f"{_color(t.color, rng)} {rng.choice(say.SCENE_KINDS[t.kind])}" for t in spec.things]
    tail = [
        rng.choice(say.KEYWORDS[getattr(spec, f)])
        for f in ("sky", "light", "weather", "land")
        if f in mentions
    ]
    if "light" in mentions:
        stated.add("phase")
    if "stars" in mentions:
        tail.append(say.STAR_KEYWORD)
    rng.shuffle(tail)
    return ", ".join(parts + tail)
