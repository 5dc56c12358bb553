"""The detector on pictures whose content is known: drawn, softened, and asked for with something wrong."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from core.scenes.drawing import draw
from core.scenes.scene import (
    COLORS,
    PATTERNS,
    SCENE_KINDS,
    SHAPE_KINDS,
    SKIES,
    Scene,
    Shapes,
    Spec,
    Split,
    Thing,
    sample_scene,
    sample_shapes,
)
from tools.adherence.detector import Verdict, compare, judge
from tools.adherence.regions import components, filled, grow, regions, shrink
from tools.adherence.scenes import read_sky
from tools.adherence.shapes import Reading, read_shapes

COUNT = 160
"""Pictures of shapes, and half as many scenes, of which one half is held out of training."""


def soft(image: Image.Image, seed: int) -> Image.Image:
    """Blurred by a pixel, through a coarse JPEG (its colours at full resolution), with noise."""
    file = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1)).save(file, "JPEG", quality=60, subsampling=0)
    noise = np.random.default_rng(seed).normal(0, 4, (image.height, image.width, 3))
    pixels = np.asarray(Image.open(file), np.float64) + noise
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Case:
    spec: Spec
    picture: NDArray[np.uint8]


def specs(count: int, sample: Callable[[random.Random, Split], Spec], salt: str) -> Iterator[Spec]:
    for number in range(count):
        rng = random.Random(f"{salt}/{number}")
        yield sample(rng, "held_out" if number % 2 else "seen")


@cache
def drawn(kind: str, softened: bool) -> list[Case]:
    wanted = specs(COUNT, sample_shapes, "s") if kind == "shapes" else specs(COUNT // 2, sample_scene, "l")
    cases = []
    for number, spec in enumerate(wanted):
        image = draw(spec, random.Random(number))
        cases.append(Case(spec, np.asarray(soft(image, number) if softened else image)))
    return cases


@cache
def read(softened: bool) -> list[tuple[Shapes, Reading]]:
    return [
        (case.spec, read_shapes(case.picture.astype(np.float32)))
        for case in drawn("shapes", softened)
        if isinstance(case.spec, Shapes)
    ]


def share(values: Sequence[bool]) -> float:
    assert len(values) >= 20, "too few cases to say anything"
    return sum(values) / len(values)


# ---------------------------------------------------------------- right is right


@pytest.mark.parametrize(("softened", "bar"), [(False, 0.99), (True, 0.97)])
def test_shapes_are_judged_right(softened: bool, bar: float) -> None:
    verdicts = [compare(reading, spec) for spec, reading in read(softened)]
    for field in ("background", "pattern", "bound", "relation"):
        values = [getattr(verdict, field) for verdict in verdicts]
        assert share([value for value in values if value is not None]) >= bar, field
    assert share([mark for verdict in verdicts for mark in verdict.colors]) >= bar
    assert share([mark for verdict in verdicts for mark in verdict.kinds]) >= bar


@pytest.mark.parametrize(("softened", "bar"), [(False, 0.99), (True, 0.97)])
def test_scenes_are_judged_right(softened: bool, bar: float) -> None:
    verdicts = [judge(case.picture, case.spec) for case in drawn("scenes", softened)]
    assert share([verdict.sky is True for verdict in verdicts]) >= bar
    assert share([mark for verdict in verdicts for mark in verdict.colors]) >= bar


# ---------------------------------------------------------------- wrong is wrong

Change = Callable[[Shapes, random.Random], Shapes | None]
Caught = Callable[[Verdict], bool]


def another(rng: random.Random, names: Sequence[str], *taken: str | None) -> str:
    return rng.choice([name for name in names if name not in taken])


def with_thing(spec: Shapes, index: int, thing: Thing) -> Shapes:
    return replace(spec, things=tuple(thing if k == index else t for k, t in enumerate(spec.things)))


def one_color(spec: Shapes, rng: random.Random) -> Shapes:
    index = rng.randrange(len(spec.things))
    thing = spec.things[index]
    return with_thing(spec, index, replace(thing, color=another(rng, tuple(COLORS), thing.color)))


def one_kind(spec: Shapes, rng: random.Random) -> Shapes:
    index = rng.randrange(len(spec.things))
    thing = spec.things[index]
    return with_thing(spec, index, replace(thing, kind=another(rng, SHAPE_KINDS, thing.kind)))


def pair(spec: Shapes) -> tuple[Thing, Thing] | None:
    """Two things that differ both in colour and in kind."""
    if len(spec.things) != 2:
        return None
    one, two = spec.things
    return None if one.color == two.color or one.kind == two.kind else (one, two)


def colors_swapped(spec: Shapes, rng: random.Random) -> Shapes | None:
    if (both := pair(spec)) is None:
        return None
    one, two = both
    return replace(spec, things=(replace(one, color=two.color), replace(two, color=one.color)))


def kinds_swapped(spec: Shapes, rng: random.Random) -> Shapes | None:
    if (both := pair(spec)) is None:
        return None
    one, two = both
    return replace(spec, things=(replace(one, kind=two.kind), replace(two, kind=one.kind)))


def relation_reversed(spec: Shapes, rng: random.Random) -> Shapes | None:
    if (both := pair(spec)) is None or spec.relation == "none":
        return None
    return replace(spec, things=both[::-1])


def relation_turned(spec: Shapes, rng: random.Random) -> Shapes | None:
    if pair(spec) is None or spec.relation == "none":
        return None
    return replace(spec, relation=another(rng, ("left of", "above", "inside"), spec.relation))


def other_background(spec: Shapes, rng: random.Random) -> Shapes:
    return replace(spec, background=another(rng, tuple(COLORS), spec.background, spec.pattern_color))


def other_pattern(spec: Shapes, rng: random.Random) -> Shapes:
    pattern = another(rng, PATTERNS, spec.pattern)
    return replace(spec, pattern=pattern, pattern_color=None)


def one_less(spec: Shapes, rng: random.Random) -> Shapes | None:
    """What is asked is there, and something more."""
    return replace(spec, things=spec.things[:-1], relation="none") if len(spec.things) > 1 else None


CHANGES: dict[str, tuple[Change, Caught]] = {
    "one colour": (one_color, lambda v: not all(v.colors) and not v.bound),
    "one kind": (one_kind, lambda v: not all(v.kinds) and not v.bound),
    "colours swapped": (colors_swapped, lambda v: not v.bound),
    "kinds swapped": (kinds_swapped, lambda v: not v.bound),
    "relation reversed": (relation_reversed, lambda v: v.relation is False),
    "relation turned": (relation_turned, lambda v: v.relation is False),
    "background": (other_background, lambda v: v.background is False),
    "pattern": (other_pattern, lambda v: v.pattern is False),
    "one thing more": (one_less, lambda v: not v.bound and not all(v.colors) and not all(v.kinds)),
}


@pytest.mark.parametrize("softened", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_one_thing_wrong_among_shapes_is_caught(name: str, softened: bool) -> None:
    change, caught = CHANGES[name]
    results = []
    for number, (spec, reading) in enumerate(read(softened)):
        wrong = change(spec, random.Random(number))
        if wrong is not None:
            results.append(caught(compare(reading, wrong)))
    assert share(results) >= 0.98


def test_another_sky_is_caught() -> None:
    for softened in (False, True):
        for case in drawn("scenes", softened):
            assert isinstance(case.spec, Scene)
            sky = read_sky(case.picture.astype(np.float32))
            assert [name for name in SKIES if name == sky] == [case.spec.sky]


@pytest.mark.parametrize("softened", [False, True])
def test_a_scene_object_of_another_colour_or_kind_is_caught(softened: bool) -> None:
    colors, kinds = [], []
    for number, case in enumerate(drawn("scenes", softened)):
        rng = random.Random(number)
        for thing in case.spec.things:
            color = another(rng, tuple(COLORS), thing.color)
            kind = another(rng, SCENE_KINDS, *(other.kind for other in case.spec.things))
            colors.append(not found(case, replace(thing, color=color)))
            kinds.append(not found(case, replace(thing, kind=kind)))
    assert share(colors) >= 0.98
    assert share(kinds) >= 0.98


def test_swapped_colours_in_a_scene_are_caught() -> None:
    results = []
    for case in drawn("scenes", False):
        colors = [thing.color for thing in case.spec.things]
        if len(set(colors)) == 2:
            swapped = [
                replace(t, color=color) for t, color in zip(case.spec.things, colors[::-1], strict=True)
            ]
            results.append(not any(found(case, thing) for thing in swapped))
    assert share(results) >= 0.98


def found(case: Case, thing: Thing) -> bool:
    assert isinstance(case.spec, Scene)
    return judge(case.picture, replace(case.spec, things=(thing,))).colors[0]


# ---------------------------------------------------------------- what is asked, and the tools


def test_only_what_is_stated_is_judged() -> None:
    spec = Shapes("white", "plain", None, (Thing("star", "red"), Thing("ring", "blue")), "left of")
    picture = np.full((128, 128, 3), 10, np.uint8)
    assert judge(picture, spec).background is False
    silent = judge(picture, spec, frozenset())
    assert (silent.background, silent.pattern, silent.relation) == (None, None, None)
    assert silent.colors == silent.kinds == (False, False)
    assert judge(picture, spec, frozenset({"place_1", "place_2"})).relation is False
    assert judge(picture, Scene("day", "none", False, "none", "sea"), frozenset()) == Verdict()


def test_an_empty_or_noisy_picture_is_wrong_in_everything() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    for picture in (np.zeros((128, 128, 3), np.uint8), noise):
        for case in drawn("shapes", False)[:20]:
            verdict = judge(picture, case.spec)
            assert not verdict.right
            assert not any(verdict.kinds)
        for case in drawn("scenes", False)[:10]:
            assert not any(judge(picture, case.spec).colors)


def test_regions_and_holes() -> None:
    mask = np.zeros((9, 9), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[6, 6] = True  # touches by a corner only
    mask[8, :] = True
    labels = components(mask)
    assert sorted(region.sum() for region in regions(mask)) == [1, 9, 24]
    assert [region.sum() for region in regions(mask, 10)] == [24]
    assert labels[2, 2] == labels[5, 5] != labels[6, 6]
    assert filled(mask)[3, 3]
    assert filled(mask).sum() == mask.sum() + 1
    assert not components(np.zeros((3, 3), bool)).any()
    dot = np.zeros((5, 5), bool)
    dot[2, 2] = True
    assert grow(dot).sum() == 5
    assert (shrink(grow(dot)) == dot).all()
