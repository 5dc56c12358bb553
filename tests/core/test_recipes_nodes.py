"""What each known class of ComfyUI's nodes gives; subgraphs and nodes that are switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.recipes.readers.graph import Graph, Link
from core.recipes.readers.node_inputs import UnknownValueError
from core.recipes.readers.node_rules import RULES
from core.recipes.readers.node_values import NodeValues
from core.recipes.readers.workflow import nodes_of

UNKNOWN = "unknown"
ASPECT = {"width": 640, "height": 448, "upscale_factor": 2.0, "batch_size": 3}
CONFIG = {
    "steps_total": 30,
    "refiner_step": 24,
    "cfg": 6.5,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
}
FUNCTION = {"text_a": "a, ,cat", "text_b": "cat", "text_c": "dog"}
SWITCHES = ("text", "model", "latent", "conditioning")

# Class, inputs, and what the outputs give; "unknown" where it cannot be computed.
VALUES: list[tuple[str, dict[str, Any], tuple[object, ...]]] = [
    *((kind, {"value": 7}, (7,)) for kind, rules in RULES.items() if rules == ("value",)),
    ("Reroute", {"": 7}, (7,)),
    ("Reroute", {"a": 7, "b": 8}, (UNKNOWN,)),
    ("Reroute (rgthree)", {"in": "x"}, ("x",)),
    ("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": "-"}, ("a-b",)),
    ("StringReplace", {"string": "a.b", "find": ".", "replace": "+"}, ("a+b",)),
    ("StringTrim", {"string": " a ", "mode": "Both"}, ("a",)),
    ("StringTrim", {"string": " a ", "mode": "Left"}, ("a ",)),
    ("StringTrim", {"string": " a ", "mode": "Right"}, (" a",)),
    ("CaseConverter", {"string": "a bC", "mode": "UPPERCASE"}, ("A BC",)),
    ("CaseConverter", {"string": "a bC", "mode": "lowercase"}, ("a bc",)),
    ("CaseConverter", {"string": "a bC", "mode": "Capitalize"}, ("A bc",)),
    ("CaseConverter", {"string": "a bC", "mode": "Title Case"}, ("A Bc",)),
    ("CaseConverter", {"string": "a bC", "mode": "sPoNgE"}, (UNKNOWN,)),
    ("ComfySwitchNode", {"switch": True, "on_true": 1, "on_false": 2}, (1,)),
    ("ComfySwitchNode", {"switch": False, "on_true": 1, "on_false": 2}, (2,)),
    ("Any Switch (rgthree)", {"any_02": 2, "any_01": None, "any_03": 3}, (2,)),
    ("Seed (rgthree)", {"seed": 5}, (5,)),
    ("KSampler Config (rgthree)", CONFIG, (30, 24, 6.5, "dpmpp_2m", "karras")),
    ("Power Prompt - Simple (rgthree)", {"prompt": "a cat"}, (None, "a cat")),
    ("ImpactSwitch", {"select": 2, "input1": "a", "input2": "b"}, ("b", UNKNOWN, 2)),
    ("ImpactSwitch", {"select": 3, "input1": "a", "input2": "b"}, (UNKNOWN, UNKNOWN, 3)),
    ("ImpactConditionalBranch", {"cond": True, "tt_value": 1, "ff_value": 2}, (1,)),
    ("ImpactConditionalBranch", {"cond": 2, "tt_value": 1, "ff_value": 2}, (UNKNOWN,)),
    ("ImpactWildcardProcessor", {"populated_text": "a cat", "wildcard_text": "a {cat|dog}"}, ("a cat",)),
    ("ImpactWildcardProcessor", {"populated_text": "a {cat|dog}"}, (UNKNOWN,)),
    ("ImpactWildcardProcessor", {"populated_text": "a __pet__"}, (UNKNOWN,)),
    ("CR Text", {"text": "a"}, ("a",)),
    ("CR Prompt Text", {"prompt": "a"}, ("a",)),
    ("CR Text Concatenate", {"text1": "a", "text2": "b", "separator": "/"}, ("a/b",)),
    ("CR Text Concatenate", {"text2": "b"}, ("b",)),
    ("CR Seed", {"seed": 5}, (5,)),
    (
        "CR SD1.5 Aspect Ratio",
        {**ASPECT, "aspect_ratio": "custom", "swap_dimensions": "Off"},
        (640, 448, 2.0, 3, None),
    ),
    (
        "CR SD1.5 Aspect Ratio",
        {**ASPECT, "aspect_ratio": "2:3 portrait 512x768", "swap_dimensions": "On"},
        (768, 512, 2.0, 3, None),
    ),
    (
        "CR SDXL Aspect Ratio",
        {**ASPECT, "aspect_ratio": "9:16 portrait 768x1344", "swap_dimensions": "Off"},
        (768, 1344, 2.0, 3, None),
    ),
    (
        "CR Aspect Ratio",
        {
            **ASPECT,
            "aspect_ratio": "SD1.5 - 1:1 square 512x512",
            "swap_dimensions": "Off",
            "prescale_factor": 1.5,
        },
        (768, 768, 2.0, 1.5, 3, None),
    ),
    *(
        (f"CR {name.title()} Input Switch", {"Input": at, f"{name}1": "a", f"{name}2": "b"}, (chosen,))
        for name in SWITCHES
        for at, chosen in ((1, "a"), (2, "b"))
    ),
    ("Text Multiline", {"text": "a cat\n# a note\nat night"}, ("a cat\nat night",)),
    ("Text Multiline", {"text": "at [time(%H)]"}, (UNKNOWN,)),
    ("Text String", {"text": "a", "text_b": "b", "text_c": "", "text_d": "[x]"}, ("a", "b", "", UNKNOWN)),
    (
        "Text Concatenate",
        {"delimiter": ", ", "clean_whitespace": "true", "text_b": " b ", "text_a": "a", "text_c": ""},
        ("a, b",),
    ),
    ("Text Concatenate", {"delimiter": "\\n", "clean_whitespace": "false", "text_a": "a "}, ("a ",)),
    ("Seed", {"seed": 5}, (UNKNOWN, 5, 5.0, 5)),
    ("Number to Int", {"number": 5.7}, (5,)),
    ("Number to Float", {"number": 5}, (5.0,)),
    ("StringConstant", {"string": "a"}, ("a",)),
    ("StringConstantMultiline", {"string": "a", "strip_newlines": True}, ("a",)),
    ("StringConstantMultiline", {"string": "a\nb", "strip_newlines": True}, (UNKNOWN,)),
    ("JoinStrings", {"delimiter": "-", "string1": "a", "string2": ""}, ("a-",)),
    ("JoinStringMulti", {"inputcount": 2, "delimiter": "-", "string_1": "a", "string_2": "b"}, ("a-b",)),
    ("JoinStringMulti", {"inputcount": 2, "delimiter": "-", "string_1": "a", "string_2": ""}, (UNKNOWN,)),
    ("JoinStringMulti", {"inputcount": 1, "string_1": "a", "return_list": True}, (UNKNOWN,)),
    ("EmptyLatentImagePresets", {"dimensions": "768 x 512 (1.5:1)", "invert": False}, (None, 768, 512)),
    ("EmptyLatentImagePresets", {"dimensions": "768 x 512 (1.5:1)", "invert": True}, (None, 512, 768)),
    ("easy positive", {"positive": "a"}, ("a",)),
    ("easy negative", {"negative": "a"}, ("a",)),
    ("easy seed", {"seed": 5}, (5,)),
    ("easy promptConcat", {"prompt1": "a", "prompt2": "b", "separator": ", "}, ("a, b",)),
    ("easy textSwitch", {"input": 2, "text1": "a", "text2": "b"}, ("b",)),
    ("easy ifElse", {"boolean": False, "on_true": 1, "on_false": 2}, (2,)),
    ("easy anythingIndexSwitch", {"index": 1, "value0": "a", "value1": "b"}, ("b",)),
    ("ShowText|pysssss", {"text": "a"}, ("a",)),
    ("StringFunction|pysssss", {**FUNCTION, "action": "append", "tidy_tags": "yes"}, ("a,cat, cat, dog",)),
    ("StringFunction|pysssss", {**FUNCTION, "action": "append", "tidy_tags": "no"}, ("a, ,catcatdog",)),
    ("StringFunction|pysssss", {**FUNCTION, "action": "replace", "tidy_tags": "no"}, ("a, ,dog",)),
    ("StringFunction|pysssss", {"text_b": "/./", "action": "replace", "tidy_tags": "no"}, (UNKNOWN,)),
]


def given(kind: str, inputs: dict[str, Any], slot: int) -> object:
    graph = Graph.of_prompt({"1": {"class_type": kind, "inputs": inputs}})
    try:
        found = NodeValues(graph).value(Link("1", slot))
    except UnknownValueError:
        return UNKNOWN
    return None if found == Link("1", slot) else found


@pytest.mark.parametrize(("kind", "inputs", "outputs"), VALUES)
def test_values_of_a_class(kind: str, inputs: dict[str, Any], outputs: tuple[object, ...]) -> None:
    assert tuple(given(kind, inputs, slot) for slot in range(len(outputs))) == outputs
    assert given(kind, inputs, len(RULES[kind])) == UNKNOWN
    for name in inputs:  # what the node does not have is unknown, or has the class's own default
        less = {key: value for key, value in inputs.items() if key != name}
        for slot in range(len(outputs)):
            given(kind, less, slot)


PASSED = {
    kind: rules
    for kind, rules in RULES.items()
    if rules and all(isinstance(rule, str | None) for rule in rules) and kind != "(bypassed)"
}


@pytest.mark.parametrize("kind", PASSED)
def test_classes_that_pass_on_or_make(kind: str) -> None:
    """Each output gives the input of its name; what the node makes itself is a link to it."""
    inputs = {rule: f"the {rule}" for rule in PASSED[kind] if isinstance(rule, str)}
    for slot, rule in enumerate(PASSED[kind]):
        assert given(kind, inputs, slot) == (None if rule is None else f"the {rule}")
        if rule is not None:
            assert given(kind, {}, slot) == UNKNOWN


def test_every_class_is_tested_and_listed() -> None:
    tested = {kind for kind, _, _ in VALUES} | PASSED.keys() | BUNDLES | {"(bypassed)"}
    assert RULES.keys() - tested <= {
        "SDXL Empty Latent Image (rgthree)",
        "CheckpointLoaderSimpleShared //Inspire",
        "ImpactWildcardEncode",
        "WildcardEncode //Inspire",
    }
    listed = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    listed = " ".join(listed.split())
    assert {kind for kind in RULES if f"`{kind}`" not in listed} == {"(bypassed)"}


BUNDLES = {
    "Context (rgthree)",
    "Context Big (rgthree)",
    "ToBasicPipe",
    "EditBasicPipe",
    "FromBasicPipe",
    "FromBasicPipe_v2",
}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_several_values_on_one_link() -> None:
    whole = {name: f"the {name}" for name in ("model", "clip", "vae", "positive", "negative")}
    values = NodeValues(
        Graph.of_prompt(
            {
                "1": node("ToBasicPipe", **whole),
                "2": node("EditBasicPipe", basic_pipe=["1", 0], positive="another"),
                "3": node("FromBasicPipe", basic_pipe=["2", 0]),
                "4": node("FromBasicPipe_v2", basic_pipe=["2", 0]),
                "5": node("Context Big (rgthree)", seed=5, cfg=6.5, model=["9", 0]),
                "6": node("Context (rgthree)", base_ctx=["5", 0], clip="x"),
                "7": node("Context (rgthree)", base_ctx=["6", 0], seed=7),
                "8": node("Any Switch (rgthree)", any_01=["10", 0], any_02=["7", 0]),
                "9": node("Other"),
                "10": node("Context (rgthree)"),
                "11": node("Context Big (rgthree)", base_ctx=["8", 0]),
            }
        )
    )
    expected = ["the model", "the clip", "the vae", "another", "the negative"]
    assert [values.value(Link("3", slot)) for slot in range(5)] == expected
    assert [values.value(Link("4", slot)) for slot in range(1, 6)] == expected
    assert [values.value(Link("7", slot)) for slot in (2, 4, 8)] == ["x", None, 7]
    assert (values.value(Link("6", 8)), values.value(Link("11", 8)), values.value(Link("11", 11))) == (
        5,
        7,
        6.5,
    )
    with pytest.raises(UnknownValueError, match="from Other, node 9, a class that is not known here"):
        values.value(Link("7", 1))


def test_a_typed_value_is_no_bundle() -> None:
    for kind in ("FromBasicPipe", "EditBasicPipe"):
        assert given(kind, {"basic_pipe": {"model": 1}}, 0) == UNKNOWN


def test_no_loop_and_no_chain_is_endless() -> None:
    loops = {
        "1": node("PrimitiveInt", value=["2", 0]),
        "2": node("PrimitiveInt", value=["1", 0]),
        "3": node("StringConcatenate", string_a=["3", 0], string_b="", delimiter=""),
        **{
            f"t{i}": node(
                "StringConcatenate", string_a=[f"t{i + 1}", 0], string_b=[f"t{i + 1}", 0], delimiter=""
            )
            for i in range(40)
        },
        "t40": node("CR Text", text="a"),
    }
    values = NodeValues(Graph.of_prompt(loops))
    for name, words in (("1", "too many nodes"), ("3", "too many nodes"), ("t0", "too long")):
        with pytest.raises(UnknownValueError, match=words):
            values.value(Link(name, 0))


def item(name: int, kind: str, *values: Any, **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": key, "type": kind, "link": link} for key, (kind, link) in more.pop("inputs", {}).items()
    ]
    return {"id": name, "type": kind, "inputs": inputs, "widgets_values": list(values), **more}


def test_subgraphs_and_links_that_are_objects() -> None:
    inner = {
        "id": "a-b-c",
        "nodes": [
            item(1, "CLIPTextEncode", "typed", inputs={"text": ("STRING", 1)}),
            item(2, "CLIPTextEncode", "inside", inputs={"clip": ("CLIP", 2)}),
        ],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "STRING"},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 2, "target_slot": 0, "type": "CLIP"},
            {"id": 3, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "C"},
            {"id": 4, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 1, "type": "C"},
        ],
    }
    outer = {
        "nodes": [
            item(5, "a-b-c", inputs={"text": ("STRING", None), "clip": ("CLIP", 1)}),
            item(6, "CheckpointLoaderSimple", "x.ckpt"),
            item(7, "KSampler", inputs={"positive": ("C", 2), "negative": ("C", 3)}),
        ],
        "links": [
            {"id": 1, "origin_id": 6, "origin_slot": 1, "target_id": 5, "target_slot": 1, "type": "CLIP"},
            {"id": 2, "origin_id": 5, "origin_slot": 0, "target_id": 7, "target_slot": 0, "type": "C"},
            {"id": 3, "origin_id": 5, "origin_slot": 1, "target_id": 7, "target_slot": 1, "type": "C"},
        ],
        "definitions": {"subgraphs": [inner]},
    }
    nodes = nodes_of(outer)
    assert nodes["7"].inputs == {"positive": Link("5:2", 0), "negative": Link("5:1", 0)}
    assert nodes["5:2"].inputs == {"text": "inside", "clip": Link("6", 1)}
    assert nodes["5:1"].inputs == {"text": "typed"}
    outer["definitions"]["subgraphs"] = [{**inner, "nodes": [item(1, "a-b-c"), item(2, "a-b-c")]}]
    assert len(nodes_of(outer)) <= 5000


def test_nodes_that_are_switched_off() -> None:
    """Bypassed: the input of the same place and type, or the first of its type. Muted: nothing."""
    nodes = nodes_of(
        {
            "nodes": [
                item(1, "Loader", outputs=[]),
                item(2, "LoraLoader", mode=4, inputs={"clip": ("CLIP", 1), "model": ("MODEL", 2)}),
                item(
                    3, "KSampler", inputs={"model": ("MODEL", 3), "clip": ("CLIP", 4), "image": ("IMAGE", 5)}
                ),
                item(4, "LoadImage", mode=2),
            ],
            "links": [
                [1, 1, 1, 2, 0, "CLIP"],
                [2, 1, 0, 2, 1, "MODEL"],
                [3, 2, 0, 3, 0, "MODEL"],
                [4, 2, 1, 3, 1, "CLIP"],
                [5, 4, 0, 3, 2, "IMAGE"],
            ],
        }
    )
    assert nodes["2"].inputs == {"0": Link("1", 0), "1": Link("1", 1)}
    assert nodes["3"].inputs == {"model": Link("2", 0), "clip": Link("2", 1)}


def test_values_that_go_by_a_name() -> None:
    """KJNodes' SetNode and GetNode are linked by a name alone."""
    data = {
        "nodes": [
            item(1, "INTConstant", 7),
            item(2, "SetNode", "steps", inputs={"INT": ("INT", 1)}),
            item(3, "GetNode", "steps"),
            item(4, "GetNode", "other"),
        ],
        "links": [[1, 1, 0, 2, 0, "INT"]],
    }
    data["nodes"][0]["inputs"] = [{"name": "value", "type": "INT", "widget": {"name": "value"}, "link": None}]
    values = NodeValues(Graph(nodes_of(json.loads(json.dumps(data)))))
    assert values.value(Link("3", 0)) == values.value(Link("2", 0)) == 7
    with pytest.raises(UnknownValueError):
        values.value(Link("4", 0))
