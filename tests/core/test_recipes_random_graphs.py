"""Random ComfyUI graphs of known and unknown classes, read next to a plain interpreter.

The interpreter computes each value while the graph is built, in plain Python, one class after the other; it
shares nothing with the program's table of rules. UNKNOWN: what comes out of a class that nobody knows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from core.plugins.discovery import load_plugins
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.reader import read_any
from tests.core.recipes import patient

REGISTRY = load_plugins(enabled=False)
UNKNOWN = object()
WORDS = ("a red house", "at night", "glass bottle", "two cats", "fog", "harbour")
Value = Any  # a number, a text, a (kind of object, its values) pair, or UNKNOWN
Found = tuple[Any, Value]  # what stands in the input: the value or a link; and what arrives there


class Builder:
    """Builds a graph backwards from its sampler."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.nodes: dict[str, Any] = {}

    def node(self, kind: str, **inputs: Any) -> str:
        """Adds a node, its inputs in any order; its id."""
        names = list(inputs)
        self.random.shuffle(names)
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": {key: inputs[key] for key in names}}
        return name

    def any_of(self, *ways: Callable[[], Found]) -> Found:
        return self.random.choice(ways)()

    def passed(self, made: Callable[[], Found], other: Callable[[], Found], depth: int) -> Found:
        """A value past nodes that pass any value on; `other` makes one more of its kind, as a bait."""
        if depth <= 0 or self.random.random() < 0.35:
            return made()
        (raw, value), (bait, bait_value) = self.passed(made, other, depth - 1), other()
        return self.any_of(
            lambda: ([self.node("Reroute", x=raw), 0], value),
            lambda: self.switched(raw, value, bait, bait_value),
            lambda: self.first(raw, value, bait),
            lambda: ([self.node("ComfySwitchNode", switch=True, on_false=bait, on_true=raw), 0], value),
            lambda: (
                [self.node("easy ifElse", boolean=False, on_true=bait, on_false=raw), 0],
                value,
            ),
            lambda: ([self.node("Mystery Filter", a=bait, value=raw), self.random.randrange(3)], UNKNOWN),
        )

    def switched(self, raw: Any, value: Value, bait: Any, bait_value: Value) -> Found:
        at, at_value = self.whole(1, 2, 1)
        name = self.node("ImpactSwitch", select=at, sel_mode=False, input1=raw, input2=bait)
        return [name, 0], UNKNOWN if at_value is UNKNOWN else (value, bait_value)[at_value - 1]

    def first(self, raw: Any, value: Value, bait: Any) -> Found:
        return [self.node("Any Switch (rgthree)", any_02=bait, any_01=raw), 0], value

    def whole(self, low: int, high: int, depth: int = 2) -> Found:
        """A whole number."""

        def made() -> Found:
            value, bait = self.random.randint(low, high), self.random.randint(low, high)
            kinds = ("PrimitiveInt", "INTConstant", "easy int", "ImpactInt")
            return self.any_of(
                lambda: (value, value),
                lambda: (value, value),
                lambda: ([self.node(self.random.choice(kinds), value=value), 0], value),
                lambda: ([self.node("Seed (rgthree)", seed=value), 0], value),
                lambda: (
                    [
                        self.node(
                            "KSampler Config (rgthree)",
                            steps_total=bait,
                            refiner_step=value,
                            cfg=3.0,
                            sampler_name="heun",
                            scheduler="karras",
                        ),
                        1,
                    ],
                    value,
                ),
                lambda: ([self.node("Context Big (rgthree)", seed=bait, steps=value), 9], value),
                lambda: ([self.node("Mystery Number", seed=bait, value=value, steps=value), 0], UNKNOWN),
            )

        return self.passed(made, lambda: (bait := self.random.randint(low, high), bait), depth)

    def text(self, depth: int = 2) -> Found:
        """A text, joined from others or not."""
        word = self.random.choice(WORDS)

        def made() -> Found:
            if depth <= 0:
                return word, word
            (a, first), (b, second) = self.text(depth - 1), self.text(depth - 1)
            known = UNKNOWN not in (first, second)
            joined: dict[str, Callable[[], Found]] = {
                "core": lambda: (
                    [self.node("StringConcatenate", delimiter=", ", string_a=a, string_b=b), 0],
                    f"{first}, {second}",
                ),
                "was": lambda: (
                    [
                        self.node(
                            "Text Concatenate", delimiter="\\n", clean_whitespace="true", text_b=b, text_a=a
                        ),
                        0,
                    ],
                    f"{first}\n{second}",
                ),
                "kj": lambda: (
                    [self.node("JoinStrings", delimiter=" ", string2=b, string1=a), 0],
                    f"{first} {second}",
                ),
                "cr": lambda: (
                    [self.node("CR Text Concatenate", text2=b, text1=a), 0],
                    f"{first}{second}",
                ),
                "other": lambda: ([self.node("Mystery Styler", text=word, style=b), 0], UNKNOWN),
            }
            raw, value = joined[self.random.choice(list(joined))]()
            return raw, value if known else UNKNOWN

        return self.any_of(
            lambda: (word, word),
            lambda: ([self.node("CR Text", text=word), 0], word),
            lambda: ([self.node("Text Multiline", text=f"# a note\n{word}"), 0], word),
            lambda: self.passed(made, lambda: (word, word), depth),
        )

    def conditioning(self, text: Found, bait: Found) -> Found:
        raw, value = text

        def made() -> Found:
            return [self.node("CLIPTextEncode", text=raw, clip=self.clip), 0], value

        def other() -> Found:
            return [self.node("CLIPTextEncode", text=bait[0], clip=self.clip), 0], bait[1]

        def changed() -> Found:
            (a, first), (b, _) = made(), other()
            return self.any_of(
                lambda: (
                    [self.node("ConditioningSetArea", conditioning=a, width=64, strength=1.0), 0],
                    first,
                ),
                lambda: (
                    [self.node("ControlNetApplyAdvanced", positive=b, negative=a, strength=1.0), 1],
                    first,
                ),
                lambda: (
                    [self.node("CR Conditioning Input Switch", Input=2, conditioning1=b, conditioning2=a), 0],
                    first,
                ),
                lambda: (
                    [
                        self.node(
                            "FromBasicPipe", basic_pipe=[self.node("ToBasicPipe", positive=b, negative=a), 0]
                        ),
                        4,
                    ],
                    first,
                ),
                lambda: ([self.node("Mystery Combine", conditioning_1=a, conditioning_2=b), 0], UNKNOWN),
                lambda: ([self.node("ConditioningCombine", conditioning_1=a, conditioning_2=b), 0], UNKNOWN),
            )

        return self.passed(self.random.choice((made, changed)), other, 1)

    def latent(self) -> tuple[Any, Value, Value]:
        sides = (64, 512, 768, 1024)
        (wide, width), (high, height) = (
            (value, value) if self.random.random() < 0.5 else self.side(value)
            for value in self.random.choices(sides, k=2)
        )
        kinds: dict[str, Callable[[], Found]] = {
            "core": lambda: ([self.node("EmptyLatentImage", height=high, width=wide, batch_size=1), 0], None),
            "cr": lambda: (
                [
                    self.node(
                        "CR SD1.5 Aspect Ratio",
                        height=wide,
                        width=high,
                        aspect_ratio="custom",
                        swap_dimensions="On",
                        upscale_factor=2.0,
                        batch_size=1,
                    ),
                    4,
                ],
                None,
            ),
            "other": lambda: (
                [self.node("Mystery Latent", width=wide, height=high, batch_size=1), 0],
                UNKNOWN,
            ),
        }
        raw, value = self.passed(kinds[self.random.choice(list(kinds))], lambda: (["0", 0], UNKNOWN), 1)
        if UNKNOWN in (value, width, height):
            return raw, UNKNOWN, UNKNOWN
        return raw, width, height

    def side(self, value: int) -> Found:
        other = 320
        return self.any_of(
            lambda: ([self.node("PrimitiveInt", value=value), 0], value),
            lambda: (
                [self.node("EmptyLatentImagePresets", dimensions=f"{other} x {value} (x)", invert=True), 1],
                value,
            ),
            lambda: ([self.node("Mystery Size", width=value, height=value), 0], UNKNOWN),
        )

    def graph(self) -> tuple[dict[str, Any], dict[str, Value]]:
        """A graph with one sampler, and what each field of its request is."""
        loader = self.node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors")
        self.clip: Any = [loader, 1]
        skip = self.random.choice((None, None, 2, 3))
        if skip is not None:
            self.clip = [self.node("CLIPSetLastLayer", stop_at_clip_layer=-skip, clip=self.clip), 0]
        if self.random.random() < 0.2:
            skip, self.clip = UNKNOWN, [self.node("Mystery Clip", clip=self.clip, stop_at_clip_layer=-4), 0]
        model, rescale = self.passed(lambda: ([loader, 0], None), lambda: (["0", 0], UNKNOWN), 1)
        if self.random.random() < 0.3:
            model = [self.node("RescaleCFG", multiplier=0.7, model=model), 0]
        positive, negative = self.text(), self.text()
        latent, width, height = self.latent()
        ((seed_in, seed_), (steps_in, steps)) = self.whole(0, 2**40), self.whole(1, 60)
        names = self.node(
            "KSampler Config (rgthree)",
            steps_total=9,
            refiner_step=8,
            cfg=6.5,
            sampler_name="heun",
            scheduler="karras",
        )
        cfg, sampler, schedule = (
            self.any_of(lambda v=v: (v, v), lambda s=s, w=w: ([names, s], w), lambda v=v: self.mystery(v))
            for v, s, w in ((4.5, 2, 6.5), ("euler", 3, "heun"), ("normal", 4, "karras"))
        )
        prompt = self.conditioning(positive, negative)
        against = self.conditioning(negative, positive)
        sampling = self.node(
            "KSampler",
            seed=seed_in,
            steps=steps_in,
            cfg=cfg[0],
            sampler_name=sampler[0],
            scheduler=schedule[0],
            denoise=1.0,
            model=model,
            positive=prompt[0],
            negative=against[0],
            latent_image=latent,
        )
        image = self.node("VAEDecode", samples=[sampling, 0], vae=[loader, 2])
        self.node("SaveImage", images=[self.node("Mystery Image Filter", image=[image, 0]), 0])
        return self.nodes, {
            "seed": seed_,
            "steps": steps,
            "cfg_scale": cfg[1],
            "sampler": sampler[1],
            "schedule": schedule[1],
            "prompt": prompt[1],
            "negative": against[1],
            "width": width,
            "height": height,
            "model": UNKNOWN if rescale is UNKNOWN else "v1-5",
            "clip_skip": skip,
        }

    def mystery(self, value: Any) -> Found:
        return [self.node("Mystery Settings", cfg=value, sampler_name=value, scheduler=value), 0], UNKNOWN


KEYS = {
    "seed": "KSampler.seed",
    "steps": "KSampler.steps",
    "cfg_scale": "KSampler.cfg",
    "sampler": "KSampler.sampler_name",
    "schedule": "KSampler.scheduler",
    "prompt": "(prompt)",
    "negative": "(negative)",
    "width": "width, height",
    "height": "width, height",
    "model": "ckpt_name",
}


def check(number: int) -> None:
    """Known values are read as they are; of an unknown one nothing is taken, and its line is "ignored"."""
    graph, expected = Builder(number).graph()
    found = read_any(json.dumps(graph), REGISTRY)
    skip = expected.pop("clip_skip")  # read only from the text encoder of a prompt that is known
    assert found.request.clip_skip in (1, None, skip), graph
    for name, value in expected.items():
        taken = found.model if name == "model" else getattr(found.request, name)
        if value is UNKNOWN:
            assert taken in (None, ""), (name, taken, graph)
            assert not fates(found, KEYS[name]) & {"kept", "mapped"}, (name, graph)
        else:
            assert taken == value, (name, graph)
            assert fates(found, KEYS[name]) <= {"kept", "mapped"}, (name, graph)


def fates(found: OpenedRecipe, key: str) -> set[str]:
    return {line.fate for line in found.report if line.key.endswith(key)}


@seed(22)
@settings(patient, max_examples=500)
@given(st.integers(0, 2**64))
def test_no_value_differs_and_the_unknown_stays_unknown(number: int) -> None:
    check(number)


@pytest.mark.slow
def test_no_value_differs_in_many_more() -> None:
    for number in range(20_000):
        check(number)


def test_most_values_of_random_graphs_are_known() -> None:
    """So that neither side of the comparison is empty."""
    values = [value for number in range(300) for value in Builder(number).graph()[1].values()]
    assert 0.5 < sum(value is not UNKNOWN for value in values) / len(values) < 0.95
