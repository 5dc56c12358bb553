"""The measurement itself, on models that are known to obey, or to ignore what they are told."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from core.scenes.drawing import draw
from core.scenes.scene import Scene, Shapes, Spec, Thing, split_of
from tools.adherence.detector import judge, relation_asked
from tools.adherence.measure import (
    ROWS,
    VARIETY_PROMPT,
    Share,
    as_json,
    as_table,
    figures,
    measure,
    variety,
)
from tools.adherence.prompts import prompts


@dataclass
class Drawn:
    images: list[Image.Image]


class Painter:
    """Draws the pictures of a list of prompts; `deaf`, always the first one's."""

    def __init__(self, specs: dict[str, Spec], deaf: bool = False) -> None:
        self.specs, self.deaf = specs, deaf
        self.asked: list[dict[str, Any]] = []

    def generate(self, **fields: Any) -> Drawn:
        self.asked.append(fields)
        prompt = next(iter(self.specs)) if self.deaf else fields["prompt"]
        return Drawn([draw(self.specs[prompt], random.Random(fields["seed"]))])


def test_an_obedient_model_has_everything_right() -> None:
    asked = prompts(64, "held_out")
    painter = Painter({prompt.text: prompt.spec for prompt in asked})
    found = measure(painter, asked, cfg_scale=3.0, seed=7)
    assert {row: share.percent for row, share in found.items()} == dict.fromkeys(ROWS, 100.0)
    assert found["bound"].count == found["relation"].count == 24
    assert found["inside"].count == 4
    assert found["right"].count == len(painter.asked) == 64
    assert found["color"].count == found["shape"].count == 16 + 2 * 24 + 2 * 4
    assert painter.asked[2] == {
        "prompt": asked[2].text,
        "seed": 9,
        "steps": 20,
        "sampler": "ddim",
        "cfg_scale": 3.0,
    }


def test_a_deaf_model_has_next_to_nothing_right() -> None:
    asked = prompts(64, "seen")
    found = measure(Painter({prompt.text: prompt.spec for prompt in asked}, deaf=True), asked)
    assert found["right"].percent < 5
    assert found["color"].percent < 30
    assert found["relation"].percent == found["sky"].percent == 0


def test_prompts_are_of_their_split_and_the_same_every_time() -> None:
    for split in ("seen", "held_out"):
        chosen = prompts(96, split)
        assert chosen == prompts(96, split) != prompts(96, split, seed=1)
        assert {split_of(prompt.spec) for prompt in chosen} == {split}
        assert len(chosen) == 96
        assert prompts(32, split)[:8] == chosen[:8]
    assert not {prompt.text for prompt in prompts(96, "seen")} & {p.text for p in prompts(96, "held_out")}


def test_every_pair_of_objects_has_a_relation_that_its_prompt_tells() -> None:
    pairs = [p for p in prompts(160, "seen") if len(p.spec.things) == 2 and isinstance(p.spec, Shapes)]
    beside = [p for p in pairs if isinstance(p.spec, Shapes) and p.spec.relation != "inside"]
    assert len(beside) == 60
    assert all(relation_asked(p.spec, p.stated) for p in beside)


def test_a_swapped_pair_is_right_in_colours_and_kinds_but_not_bound() -> None:
    spec = Shapes("white", "plain", None, (Thing("star", "red"), Thing("ring", "blue")), "left of")
    places = ("left", "right")
    red_star, blue_ring = (
        Thing(t.kind, t.color, "medium", p) for t, p in zip(spec.things, places, strict=True)
    )
    swapped = Shapes(
        "white",
        "plain",
        None,
        (Thing("star", "blue", "medium", "left"), Thing("ring", "red", "medium", "right")),
    )
    turned = Shapes(
        "white",
        "plain",
        None,
        (Thing("ring", "blue", "medium", "left"), Thing("star", "red", "medium", "right")),
    )
    right = Shapes("white", "plain", None, (red_star, blue_ring))
    verdicts = [judge(draw(drawn, random.Random(0)), spec) for drawn in (right, swapped, turned)]
    assert all(verdict.colors == verdict.kinds == (True, True) for verdict in verdicts)
    assert [verdict.bound for verdict in verdicts] == [True, False, True]
    assert [verdict.relation for verdict in verdicts] == [True, False, False]
    found = figures((spec, verdict) for verdict in verdicts)
    assert found["bound"] == Share(2, 3)
    assert found["relation"] == Share(1, 3)
    assert found["color"] == Share(6, 6)


def test_shares() -> None:
    assert Share(3, 4).percent == 75
    assert math.isnan(Share(0, 0).percent)


def test_variety_is_the_smallest_distance() -> None:
    painter = Painter({VARIETY_PROMPT.text: VARIETY_PROMPT.spec})
    varied = variety(painter, VARIETY_PROMPT, seeds=6)
    assert varied.right == Share(6, 6)
    assert varied.closest > 1
    same = Painter({VARIETY_PROMPT.text: VARIETY_PROMPT.spec})
    same.generate = lambda **fields: Painter.generate(same, **fields | {"seed": 3})  # pyrefly: ignore[method-assign]
    assert variety(same, VARIETY_PROMPT, seeds=3).closest == 0


def test_reports() -> None:
    asked = prompts(32, "seen")
    painter = Painter({prompt.text: prompt.spec for prompt in asked})
    results = {(cfg, "seen"): measure(painter, asked, cfg_scale=cfg) for cfg in (None, 2.5)}
    varied = variety(Painter({VARIETY_PROMPT.text: VARIETY_PROMPT.spec}), VARIETY_PROMPT, seeds=2)
    table = as_table(results, varied).splitlines()
    assert table[0] == "| % | seen | seen, CFG 2.5 |"
    assert table[2].startswith("| background colour | 100.0 (of ")
    assert len(table) == 2 + len(ROWS) + 2
    data = json.loads(as_json(results, varied))
    assert [run["cfg_scale"] for run in data["runs"]] == [None, 2.5]
    assert data["runs"][0]["rows"]["right"] == {"percent": 100.0, "right": 32, "count": 32}
    assert data["variety"]["right"] == {"right": 2, "count": 2}


def test_scenes_without_a_stated_sky_are_not_counted_for_it() -> None:
    spec = Scene("night", "none", False, "none", "sea")
    picture = draw(spec, random.Random(1))
    found = figures([(spec, judge(picture, spec, frozenset())), (spec, judge(picture, spec))])
    assert found["sky"] == Share(1, 1)
