"""Captions of storybook images, in the wordings that a person may use for a prompt."""

from __future__ import annotations

import random

from core.scenes.nouns import nouns
from core.scenes.storybook_scene import Item, StorybookSpec, flies

# How a place is said behind a thing, before a thing in the sky, and as a picture of itself.
WHERE: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "in a field", "on the grass", "in the meadow", "in a flower meadow"),
    "hills": ("on a hill", "in the hills", "on the hills", "on green hills"),
    "forest": ("in the forest", "in a forest", "in the woods", "between trees"),
    "beach": ("on the beach", "on a beach", "at the beach", "by the sea", "on the sand"),
    "sea": ("in the sea", "on the sea", "at sea", "on the ocean", "on the water", "in the ocean"),
    "underwater": ("under the sea", "under water", "underwater", "at the bottom of the sea"),
    "desert": ("in the desert", "in a desert", "in the dunes", "near a pyramid"),
    "snow": ("in the snow", "in a snowy landscape", "in winter", "on the snow"),
    "mountains": ("in the mountains", "in front of mountains", "in front of the mountains"),
    "city": ("in the city", "in a city", "on the street", "in town", "on a city street"),
    "space": ("in space", "in outer space", "among the stars"),
    "moon": ("on the moon",),
    "room": ("in a room", "in the living room", "at home", "indoors"),
    "garden": ("in the garden", "in a garden", "in front of a fence", "by a white fence"),
    "clouds": ("in the clouds", "above the clouds", "in the sky", "on a cloud"),
}
OVER: dict[str, tuple[str, ...]] = {
    "meadow": ("over a meadow", "above a meadow", "over the fields"),
    "hills": ("over the hills", "above the hills"),
    "forest": ("over the forest", "above the forest", "over the trees"),
    "beach": ("over the beach", "above the beach"),
    "sea": ("over the sea", "above the sea", "over the ocean"),
    "desert": ("over the desert", "above the desert"),
    "snow": ("over the snow", "over a snowy landscape"),
    "mountains": ("over the mountains", "above the mountains"),
    "city": ("over the city", "above the city"),
    "garden": ("over the garden", "above a garden"),
    "moon": ("over the moon",),
}
ALONE: dict[str, tuple[str, ...]] = {
    "meadow": ("a meadow", "a flower meadow", "a field"),
    "hills": ("green hills", "hills", "a hilly landscape"),
    "forest": ("a forest", "the forest", "the woods"),
    "beach": ("a beach", "the beach"),
    "sea": ("the sea", "the ocean", "the open sea"),
    "underwater": ("an underwater scene", "the bottom of the sea"),
    "desert": ("a desert", "the desert"),
    "snow": ("a snowy landscape", "a winter landscape", "snow"),
    "mountains": ("mountains", "the mountains", "snowy mountains"),
    "city": ("a city", "a city street", "a skyline"),
    "space": ("outer space", "space", "a starry sky in space"),
    "moon": ("the surface of the moon",),
    "room": ("a room", "a living room"),
    "garden": ("a garden", "a garden with a white fence"),
    "clouds": ("the sky", "clouds", "a sky full of clouds"),
}
WHEN: dict[str, tuple[str, ...]] = {
    "day": ("by day", "on a sunny day", "in the daytime", "during the day"),
    "sunset": ("at sunset", "in the evening", "at dusk", "in the evening light"),
    "night": ("at night", "in the night", "under the stars", "at midnight"),
    "dawn": ("at dawn", "at sunrise", "in the morning", "early in the morning"),
    "rain": ("in the rain", "on a rainy day", "while it rains"),
}
LIGHT: dict[str, str] = {
    "full moon": "under a full moon",
    "half moon": "under a crescent moon",
    "rainbow": "under a rainbow",
}
SMALL, BIG = ("small", "little", "tiny"), ("big", "large", "huge", "giant")
UNIQUE = ("sun", "moon", "earth")  # usually named with "the"
FILLERS = ("cute", "happy", "lovely", "nice", "beautiful", "funny")
FRAMES = (
    "a picture of {}",
    "an illustration of {}",
    "a drawing of {}",
    "a painting of {}",
    "{}, storybook illustration",
    "a cartoon of {}",
    "{}, children's book",
    "a postcard with {}",
)
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "gray": ("gray", "grey"),
    "cyan": ("cyan", "light blue", "turquoise"),
    "purple": ("purple", "violet"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "dot"),
    "ring": ("ring",),
    "cross": ("cross", "plus"),
}
COUNTS = {2: ("two",), 3: ("three",)}
EXAMPLES = (
    "a fox in the snow at night",
    "two penguins on a beach at sunset",
    "a red balloon above a castle",
    "a robot next to a teapot",
    "an owl in the forest at night",
    "a blue car in the city in the rain",
    "a snowman on the moon",
    "a whale under the sea",
    "a unicorn in a meadow, under a rainbow",
    "a cupcake on a pink background",
)
# Shares of captions that leave something out.
_NO_GROUND, _NO_HOUR = 0.14, 0.35


def caption(spec: StorybookSpec, rng: random.Random) -> str:
    """One way to ask for the image."""
    text = _with_ground(spec, rng) if spec.items else _landscape(spec, rng)
    choice = rng.random()
    framed = not text.startswith(
        ("in ", "on ", "at ", "by ", "under", "over", "above", "among", "near", "between")
    )
    if choice < 0.08 and framed and "," not in text:
        text = rng.choice(FRAMES).format(text)
    elif choice < 0.13:
        for article in ("a ", "an ", "the "):
            text = text.removeprefix(article)
    return text


def _with_ground(spec: StorybookSpec, rng: random.Random) -> str:
    subject = _subject(spec, rng)
    if rng.random() < _NO_GROUND and spec.pattern == "plain":
        if spec.hour and rng.random() < 0.2:
            return f"{subject} {rng.choice(WHEN[spec.hour])}"
        return subject
    if not spec.is_scene:
        return f"{subject}{_on_color(spec, rng)}"
    where, when = _where(spec, rng), _when(spec, rng)
    choice = rng.random()
    if choice < 0.12:
        return f"{where}{f' {when}' if when else ''}, {subject}"
    if choice < 0.2 and when:
        return f"{subject} {when} {where}"
    comma = "," if rng.random() < 0.12 else ""
    return f"{subject}{comma} {where}{f'{comma} {when}' if when else ''}"


def _where(spec: StorybookSpec, rng: random.Random) -> str:
    first = spec.items[0]
    if flies(first.kind) and spec.ground in OVER and spec.relation != "above" and rng.random() < 0.6:
        flying = "flying " if rng.random() < 0.25 else ""
        return flying + rng.choice(OVER[spec.ground])
    return rng.choice(WHERE[spec.ground])


def _when(spec: StorybookSpec, rng: random.Random) -> str:
    """The hour, or what shines; empty where nothing is said."""
    for name, _, _ in spec.lights:
        if name in LIGHT and rng.random() < (0.4 if name != "rainbow" else 0.9):
            return LIGHT[name]
    if spec.hour is None or (spec.hour == "day" and rng.random() < 0.45):
        return ""
    return "" if rng.random() < _NO_HOUR * (spec.hour == "day") + 0.05 else rng.choice(WHEN[spec.hour])


def _landscape(spec: StorybookSpec, rng: random.Random) -> str:
    when = _when(spec, rng)
    return rng.choice(ALONE[spec.ground]) + (f" {when}" if when else "")


def _on_color(spec: StorybookSpec, rng: random.Random) -> str:
    color = _color(spec.ground, rng)
    if spec.pattern != "plain":
        words = {"striped": ("striped",), "dotted": ("dotted", "spotted")}[spec.pattern]
        color = f"{color} {rng.choice(words)}"
        return rng.choice((f" on {_an(color)} background", f", {color} background"))
    choices = (
        f" on {_an(color)} background", f" on {_an(color)} background", f", {color} background",
        f" in front of {_an(color)} wall", f" on {color}", f" on {color} paper",
    )  # fmt: skip
    return rng.choice(choices)


def _color(color: str, rng: random.Random) -> str:
    return rng.choice(COLOR_WORDS.get(color, (color,)))


def _subject(spec: StorybookSpec, rng: random.Random) -> str:
    items = spec.items
    if spec.relation == "many":
        return _several(items, rng)
    if len(items) == 1:
        named = _one(items[0], rng, spec.asked_size)
        if spec.asked_place in ("left", "right"):
            return named + rng.choice((" on the {}", " on the {} side", " at the {}")).format(
                spec.asked_place
            )
        if spec.asked_place:
            return named + rng.choice((" at the {}", " near the {}")).format(spec.asked_place)
        return named
    if len(items) == 3:
        a, b, c = (_one(item, rng) for item in items)
        return rng.choice((f"{a}, {b} and {c}", f"{a}, {b}, and {c}", f"{a} and {b} and {c}"))
    a, b = (_one(item, rng) for item in items)
    if spec.relation == "above":
        choices = (
            f"{a} above {b}",
            f"{a} over {b}",
            f"{b} below {a}",
            f"{b} under {a}",
            f"{a} on top of {b}",
        )
        return rng.choice((*choices[:1] * 3, *choices))
    choices = (
        f"{a} and {b}", f"{a} and {b}", f"{b} and {a}", f"{a} next to {b}", f"{b} next to {a}",
        f"{a} beside {b}", f"{a} with {b}", f"{a} to the left of {b}", f"{a} left of {b}",
        f"{b} to the right of {a}", f"{b} right of {a}", f"{a} on the left and {b} on the right",
    )  # fmt: skip
    return rng.choice(choices)


def _several(items: tuple[Item, ...], rng: random.Random) -> str:
    item = items[0]
    word = nouns()[item.kind].many if item.kind in nouns() else f"{item.kind}s"
    color = f"{_color(item.color, rng)} " if item.color else ""
    return f"{rng.choice(COUNTS[len(items)])} {color}{word}"


def _one(item: Item, rng: random.Random, size: str | None = None) -> str:
    noun = nouns().get(item.kind)
    words = noun.name if noun else rng.choice(SHAPE_WORDS.get(item.kind, (item.kind,)))
    if noun and noun.also and rng.random() < 0.25 and not (item.color and any(" " in a for a in noun.also)):
        words = rng.choice(noun.also)
    parts = [words]
    if item.color:
        parts.insert(0, _color(item.color, rng))
    if noun and rng.random() < 0.06:
        parts.insert(0, rng.choice(FILLERS))
    if size:
        parts.insert(0, rng.choice(SMALL if size == "small" else BIG))
    text = " ".join(parts)
    if noun and item.kind in UNIQUE and len(parts) == 1 and rng.random() < 0.7:
        return f"the {text}"
    return _an(text)


def named(kind: str) -> str:
    """A thing or shape with its article."""
    return f"the {kind}" if kind in UNIQUE else _an(kind)


def _an(text: str) -> str:
    """With its article."""
    return f"{'an' if text[0] in 'aeiou' and not text.startswith(('uni', 'ufo')) else 'a'} {text}"
