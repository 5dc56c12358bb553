"""The pictures of the embedded model: drawn is what was specified, and said is what is drawn."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from core.scenes import phrases
from core.scenes.captions import EXAMPLES, caption, describe, words
from core.scenes.drawing import draw, layout
from core.scenes.scene import (
    COLORS,
    FIELDS,
    HELD_OUT,
    KINDS,
    LANDS,
    SCENE_KINDS,
    SHAPE_KINDS,
    SKIES,
    SKY_KINDS,
    Scene,
    Shapes,
    Spec,
    Split,
    Thing,
    attributes,
    sample,
    sample_scene,
    sample_shapes,
    split_of,
)

COUNT = 3000


def specs(count: int = COUNT, split: Split | None = None) -> list[Spec]:
    rng = random.Random(7)
    return [sample(rng, split) for _ in range(count)]


# ---------------------------------------------------------------- sampling


def test_the_same_seed_gives_the_same_pictures_and_captions() -> None:
    def once() -> list[tuple[Spec, str, bytes]]:
        rng = random.Random(3)
        chosen = [sample(rng) for _ in range(20)]
        return [(spec, caption(spec, rng), draw(spec, rng).tobytes()) for spec in chosen]

    assert once() == once()


def test_the_mix_of_pictures() -> None:
    chosen = specs()
    shapes = [spec for spec in chosen if isinstance(spec, Shapes)]
    counts = Counter(len(spec.things) for spec in shapes)
    assert 0.55 < len(shapes) / COUNT < 0.65
    assert counts[2] >= len(shapes) / 2
    assert 0.06 < counts[3] / len(shapes) < 0.14


def test_held_out_pairs_are_few_and_leave_every_colour_and_kind_in() -> None:
    assert 0.07 < len(HELD_OUT) / (len(COLORS) * len(KINDS)) < 0.13
    assert max(Counter(color for color, _ in HELD_OUT).values()) <= 3
    assert set(Counter(kind for _, kind in HELD_OUT)) == set(KINDS)
    assert max(Counter(kind for _, kind in HELD_OUT).values()) <= 2


def test_training_never_sees_a_held_out_pair() -> None:
    assert {split_of(spec) for spec in specs(split="seen")} == {"seen"}
    assert {split_of(spec) for spec in specs(500, "held_out")} == {"held_out"}


def test_training_sees_every_other_pair() -> None:
    pairs = Counter((t.color, t.kind) for spec in specs(20_000, "seen") for t in spec.things)
    assert set(pairs) == {(c, k) for c in COLORS for k in KINDS} - HELD_OUT
    assert min(pairs.values()) > 20


def test_shapes_differ_from_what_is_behind_them() -> None:
    rng = random.Random(1)
    for _ in range(COUNT):
        spec = sample_shapes(rng)
        behind = {spec.background, spec.pattern_color}
        assert not behind & {t.color for t in spec.things}
        assert spec.background != spec.pattern_color
        if spec.relation == "inside":
            assert spec.things[0].color != spec.things[1].color


def test_colours_are_well_apart() -> None:
    values = list(COLORS.values())
    distances = [math.dist(a, b) for i, a in enumerate(values) for b in values[:i]]
    assert min(distances) > 75


def test_scenes_are_plausible() -> None:
    rng = random.Random(2)
    for _ in range(COUNT):
        spec = sample_scene(rng)
        assert spec.light != "sun" or spec.sky in ("dawn", "day", "sunset")
        assert not spec.light.endswith("moon") or spec.sky == "night"
        assert not spec.stars or (spec.sky == "night" and spec.weather in ("none", "clouds"))
        assert spec.land == "sea" or all(t.kind != "boat" for t in spec.things)
        places = [(t.place, t.kind in SKY_KINDS) for t in spec.things]
        assert len(set(places)) == len(places)


# ---------------------------------------------------------------- drawing


def test_things_lie_apart_inside_the_picture_and_in_their_order() -> None:
    rng = random.Random(5)
    for _ in range(COUNT):
        spec = sample_shapes(rng)
        circles = layout(spec, rng)
        for x, y, radius in circles:
            assert radius <= min(x, y, 128 - x, 128 - y)
        if spec.relation == "inside":
            (x, y, inner), (u, v, outer) = circles
            assert math.dist((x, y), (u, v)) + inner < outer
            continue
        for i, (x, y, radius) in enumerate(circles):
            assert all(math.dist((x, y), (u, v)) > radius + r for u, v, r in circles[:i])
        axis = {"left of": 0, "above": 1}.get(spec.relation)
        if axis is not None:
            assert all(b[axis] - a[axis] > 25 for a, b in pairwise(circles))


@pytest.mark.parametrize("kind", SHAPE_KINDS)
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_a_shape_has_its_colour_on_its_background(kind: str, size: str) -> None:
    """Nearly all pixels are of one of the two colours; a larger size has more of the shape's."""
    spec = Shapes("blue", "plain", None, (Thing(kind, "yellow", size, "center"),))
    pixels = np.asarray(draw(spec, random.Random(1)), dtype=float)
    near = {name: np.linalg.norm(pixels - COLORS[name], axis=-1) < 30 for name in ("blue", "yellow")}
    low, high = {"small": (100, 700), "medium": (350, 2000), "large": (900, 4500)}[size]
    assert low < near["yellow"].sum() < high
    assert near["blue"].sum() + near["yellow"].sum() > 0.95 * 128 * 128


@pytest.mark.parametrize("kind", SCENE_KINDS)
@pytest.mark.parametrize("color", COLORS)
def test_a_thing_in_a_scene_has_its_colour(kind: str, color: str) -> None:
    """Against the same scene without it, at least 150 pixels turn to the named colour."""
    with_it = Scene("day", "none", False, "none", "sea", (Thing(kind, color, "medium", "left"),))
    near = []
    for spec in (with_it, Scene("day", "none", False, "none", "sea")):
        pixels = np.asarray(draw(spec, random.Random(4)), dtype=float)[:, :48]
        near.append((np.linalg.norm(pixels - COLORS[color], axis=-1) < 30).sum())
    assert near[0] - near[1] > 150


def test_skies_can_be_told_apart() -> None:
    tops = []
    for sky in SKIES:
        pixels = np.asarray(draw(Scene(sky, "none", False, "none", "desert"), random.Random(0)), dtype=float)
        tops.append(pixels[:48].mean((0, 1)))
    assert min(math.dist(a, b) for i, a in enumerate(tops) for b in tops[:i]) > 40


def test_two_pictures_of_one_specification_differ() -> None:
    rng = random.Random(0)
    for spec in specs(40):
        one, two = (np.asarray(draw(spec, rng), dtype=float) for _ in range(2))
        assert np.abs(one - two).mean() > 0.2


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("land", LANDS)
def test_any_size_can_be_drawn(size: int, land: str) -> None:
    spec = Scene("night", "full moon", True, "clouds", land, (Thing("castle", "red", "medium", "left"),))
    image = draw(spec, random.Random(0), size)
    assert image.size == (size, size)
    assert image.mode == "RGB"


# ---------------------------------------------------------------- captions


def test_captions_use_no_word_outside_the_list_and_nearly_all_in_it() -> None:
    rng = random.Random(0)
    used = {word for _ in range(12_000) for word in re.findall("[a-z]+", caption(sample(rng), rng).lower())}
    assert used <= words()
    assert len(words() - used) < 5
    assert 150 < len(words()) < 300


def test_captions_are_tidy() -> None:
    rng = random.Random(1)
    for _ in range(6000):
        text = caption(sample(rng), rng)
        assert not re.search(r"[{}]|  | ,|,,|^[ ,]|[ ,:]\.?$|\ban? an? ", text), text
        assert not re.search(r"\ba [aeio]|\ban [^aeio]", text.lower()), text
        assert len(text.split()) < 50


def test_captions_of_one_picture_differ() -> None:
    rng = random.Random(1)
    assert (
        min(len({caption(spec, rng) for _ in range(50)}) for spec in specs(50) if len(spec.things) > 1) > 20
    )


def test_every_thing_is_named_with_its_colour() -> None:
    rng = random.Random(9)
    for spec in specs():
        text = f" {re.sub('[^a-z ]', ' ', caption(spec, rng).lower())} "
        for thing in spec.things:
            names = [*phrases.KINDS.get(thing.kind, ()), *phrases.SCENE_KINDS.get(thing.kind, ())]
            names = [name.replace("-", " ") for name in names]
            names += [phrases.PLURALS[thing.kind]] if thing.kind in phrases.PLURALS else []
            colors = phrases.COLORS[thing.color]
            assert any(f" {color} {name} " in text for color in colors for name in names), (thing, text)


def test_short_prompts_occur() -> None:
    rng = random.Random(0)
    spec = Shapes("blue", "plain", None, (Thing("circle", "red", "medium", "center"),))
    said = {caption(spec, rng).lower().rstrip(".") for _ in range(500)}
    assert {"red circle", "a red circle", "a red circle on a blue background"} <= said


def test_examples_use_known_words_and_seen_pairs() -> None:
    for text in EXAMPLES:
        assert set(re.findall("[a-z]+", text.lower())) <= words(), text
        assert all(f"{color} {kind}" not in text for color, kind in HELD_OUT)


# ---------------------------------------------------------------- attributes


def test_attributes_are_classes_of_their_fields() -> None:
    for spec in specs():
        found = attributes(spec)
        assert found.keys() == FIELDS.keys()
        assert all(0 <= value < len(FIELDS[field]) for field, value in found.items())


def test_attributes_of_a_known_picture() -> None:
    things = (Thing("circle", "red", "small", "left"), Thing("square", "green", "large", "right"))
    found = attributes(Shapes("blue", "striped", "white", things, "left of"))
    named = {field: FIELDS[field][value] for field, value in found.items() if value}
    assert named == {
        "background": "blue",
        "pattern": "striped",
        "pattern_color": "white",
        "relation": "left of",
        "kind_1": "circle", "color_1": "red", "size_1": "small", "place_1": "left",
        "kind_2": "square", "color_2": "green", "size_2": "large", "place_2": "right",
    }  # fmt: skip
    scene = Scene("night", "full moon", True, "none", "hills", (Thing("house", "red", "medium", "middle"),))
    named = {field: FIELDS[field][value] for field, value in attributes(scene).items() if value}
    assert named == {
        "sky": "night", "light": "moon", "phase": "full", "stars": "stars", "land": "hills",
        "kind_1": "house", "color_1": "red", "place_1": "middle",
    }  # fmt: skip


def test_a_caption_decides_what_it_states() -> None:
    """The same words never stand for two values of a field that they state."""
    rng = random.Random(11)
    known: dict[tuple[str, str], int] = {}
    for _ in range(60_000):
        spec = sample(rng)
        text, stated = describe(spec, rng)
        assert stated <= FIELDS.keys()
        values = attributes(spec)
        for field in stated:
            assert known.setdefault((text.lower(), field), values[field]) == values[field], (text, field)
