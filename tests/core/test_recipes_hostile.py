"""Hostile files and texts: read, or refused in one sentence; never an exception, never endless."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import UserError
from core.recipes.exif import USER_COMMENT, comment, exif_texts
from core.recipes.reader import read_any
from tests.core.recipes import patient
from tests.core.test_recipes_files import GRAPH, REGISTRY, TEXT, png, read, with_exif

NOTHING = [
    ("no.png", None, "cannot be read (No such file or directory)"),
    ("folder", "folder", "is a folder"),
    ("empty", b"", "has no recipe of LatentCanvas"),
    ("noise.bin", bytes(range(256)) * 4, "neither an image of a known kind nor text"),
    ("nul.txt", b"a cat\0", "is not text"),
    ("cut.png", b"\x89PNG\r\n\x1a\n\0\0", "is cut off"),
    ("list.json", b'{"a": 1}', "JSON is of no known program"),
    ("deep.json", b'{"a":' * 100_000, "nested too deep"),
    ("long.txt", b"a" * 200_000, "200000 characters is too long for a recipe"),
    ("longer.txt", b"a" * 5_000_000, "not text, or too long"),
    ("words.txt", b"a " * 15_000, "more than the 20000 allowed; shorten it"),
    ("brackets.txt", b"(" * 1000, "its recipe cannot be used (prompt: brackets are nested"),
]


@pytest.mark.parametrize(("name", "content", "said"), NOTHING)
def test_what_is_no_recipe_is_one_sentence(tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value) or name == "words.txt"
    assert "\n" not in str(caught.value)


def test_a_picture_without_a_recipe_is_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", comment=b"made with a camera")
    for path in (png(tmp_path / "a.png", Title="my cat"), tmp_path / "a.jpg"):
        with pytest.raises(UserError, match="has no recipe of LatentCanvas, A1111"):
            read(path)


def test_nothing_pasted_is_one_sentence() -> None:
    for text in ("", " \n\t", "x" * 5_000_000):
        with pytest.raises(UserError):
            read_any(text, REGISTRY)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_bombs_are_never_unpacked(tmp_path: Path) -> None:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 60_000_000, 9))
    (tmp_path / "text.png").write_bytes(head + bomb + chunk(b"IEND", b""))
    wide = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, 8, 0, 0, 0, 0))
    (tmp_path / "wide.png").write_bytes(wide + chunk(b"IEND", b""))
    small = io.BytesIO()
    Image.new("P", (8, 8)).save(small, "GIF", comment=b"a cat")
    (tmp_path / "large.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + small.getvalue()[10:])
    for name in ("text.png", "wide.png", "large.gif"):
        began = time.process_time()
        with pytest.raises(UserError):
            read(tmp_path / name)
        assert time.process_time() - began < 3


def joined(count: int) -> str:
    """A graph whose prompt is joined from one long text again and again."""
    nodes: dict[str, Any] = {
        "k": node("KSampler", seed=1, steps=5, positive=["c", 0], latent_image=["e", 0]),
        "c": node("CLIPTextEncode", text=["j0", 0]),
        "t": node("Text", string="x" * 300_000),
    }
    for i in range(count):
        nodes[f"j{i}"] = node("Join", string_a=["t", 0], string_b=[f"j{i + 1}" if i + 1 < count else "t", 0])
    return json.dumps(nodes)


def chained(count: int) -> str:
    """A graph with a path as long as the graph."""
    nodes = {"k": node("KSampler", seed=1, steps=5, guider=["0", 0], latent_image=["0", 0])}
    for i in range(count):
        nodes[str(i)] = node("Any", guider=[str(i + 1), 0], sampler=[str(i + 1), 0])
    return json.dumps(nodes)


def passes(count: int) -> str:
    """A graph of many passes, with much beside each that has to be looked through for the one before it."""
    nodes = {"save": node("SaveImage", images=["k0", 0])}
    nodes["all"] = node("Any", **{f"i{i}": [f"x{i}", 0] for i in range(2 * count)})
    nodes |= {f"x{i}": node("Any") for i in range(2 * count)}
    for i in range(count):
        start = {"positive": ["x0", 0], "latent_image": [f"a{i}", 0]}
        nodes[f"k{i}"] = node("KSampler", seed=1, steps=5, **start)
        nodes[f"a{i}"] = node("Any", a=["all", 0], b=[f"b{i}", 0])
        nodes[f"b{i}"] = node("Any", b=[f"c{i}", 0])
        nodes[f"c{i}"] = node("Any", b=[f"k{i + 1}", 0])
    return json.dumps(nodes)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


SLOW = {
    "flags": '"a cat" ' + "-s 1 " * 400_000,
    "joined": joined(99),
    "chained": chained(4900),
    "passes": passes(700),
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_takes_long(name: str) -> None:
    began = time.process_time()
    sentence(SLOW[name])
    assert time.process_time() - began < 3


def test_a_picture_of_many_small_texts(tmp_path: Path) -> None:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    many = b"".join(chunk(b"tEXt", b"%d\0" % i) for i in range(2000))
    (tmp_path / "many.png").write_bytes(
        head + many + chunk(b"tEXt", b"parameters\0cat") + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match="more text than a recipe can have"):
        read(tmp_path / "many.png")


def test_exif_whose_entries_all_lead_to_one_long_text() -> None:
    rows = b"".join(struct.pack("<HHII", 0x010E, 2, 1_000_000, i) for i in range(1000))
    began = time.process_time()
    exif_texts(b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + rows + b"\xff" * 1_000_000)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "a", "guidance_scale": 3, "base_model": "\\ud800x"}',
        '{"request": {"prompt": "a"}, "model": {"name": "\\ud800x", "sha256": "\\ud800"}}',
    ],
)
def test_the_name_of_a_model_can_be_printed(text: str) -> None:
    found = read_any(text, REGISTRY)
    assert found.model == "?x"
    assert found.model_hash is None


def sentence(source: Path | str) -> None:
    """Whatever it is, it is read, or refused in one sentence."""
    try:
        found = read_any(source, REGISTRY)
    except UserError as refused:
        said = str(refused)
    else:
        said = "read"
        json.dumps(found.to_dict(lambda name: None), ensure_ascii=False).encode()
        assert all(line.fate in ("kept", "mapped", "ignored") for line in found.report)
    assert said
    assert "\n" not in said


quick = settings(
    patient,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
@quick
@given(data=st.data())
def test_damaged_files(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        if kind == "PNG":
            png(whole, parameters=TEXT, prompt=json.dumps(GRAPH))
        elif kind == "GIF":
            Image.new("P", (8, 8)).save(whole, kind, comment=TEXT.encode()[:255])
        else:
            with_exif(
                whole, kind, {USER_COMMENT: b"UNICODE\0" + TEXT.encode("utf-16-be"), 0x0110: "prompt:{"}
            )
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "damaged"
    path.write_bytes(content)
    sentence(path)


@quick
@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda b: b"II*\0\x08\0\0\0" + b))
def test_any_exif(content: bytes) -> None:
    exif_texts(content)
    comment(content)


@quick
@given(data=st.data())
def test_exif_with_any_table(data: st.DataObject) -> None:
    """Entries of the right tags that lead anywhere, themselves included."""
    order = data.draw(st.sampled_from("<>"))
    tags = st.sampled_from([0x9286, 0x8769, 0x010F, 0x0110, 0x927C, 1])
    small = st.integers(0, 80) | st.integers(0, 2**32 - 1)
    rows = data.draw(st.lists(st.tuples(tags, st.integers(0, 9), small, small), max_size=5))
    table = struct.pack(f"{order}H", data.draw(st.integers(len(rows), 65535)))
    table += b"".join(struct.pack(f"{order}HHII", *row) for row in rows)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    exif_texts(head + table + data.draw(st.binary(max_size=40)))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=30)
    | st.sampled_from(
        ["euler", "karras", "512", "1e999", "-0", "KSampler", "\ud800", "\0", "a" * 30_000, "((((", "(a:900)"]
    )
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
INVOKE = (
    *(
        "positive_prompt",
        "negative_prompt",
        "width",
        "height",
        "seed",
        "cfg_scale",
        "steps",
        "scheduler",
        "model",
    ),
    *("clip_skip", "strength", "cfg_rescale_multiplier", "rand_device", "generation_mode", "loras"),
)
OLD = ("prompt", "steps", "cfg_scale", "height", "width", "seed", "type", "sampler", "variations", "strength")
FOOOCUS = (
    "prompt",
    "negative_prompt",
    "guidance_scale",
    "base_model",
    "resolution",
    "sampler",
    "scheduler",
    "seed",
)
OURS = (
    "prompt",
    "sampler",
    "options",
    "cfg_scale",
    "settings",
    "format",
    "model",
    "request",
    "batch",
    "sigmas",
)


def some(
    keys: tuple[str, ...], values: st.SearchStrategy[Any] = anything
) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=len(keys))


links = st.tuples(st.sampled_from(["1", "2", "3", 1, 9]), st.integers(-1, 3)).map(list)
INPUTS = (
    *(
        "seed",
        "noise_seed",
        "steps",
        "cfg",
        "sampler_name",
        "scheduler",
        "denoise",
        "positive",
        "negative",
        "model",
    ),
    *(
        "latent_image",
        "sigmas",
        "guider",
        "noise",
        "text",
        "width",
        "height",
        "clip",
        "samples",
        "images",
        "start_at_step",
    ),
    *(
        "end_at_step",
        "stop_at_clip_layer",
        "multiplier",
        "ckpt_name",
        "string_a",
        "string_b",
        "conditioning",
        "eta",
    ),
)
KINDS = st.sampled_from(
    [
        *(
            "KSampler",
            "KSamplerAdvanced",
            "SamplerCustomAdvanced",
            "CLIPTextEncode",
            "EmptyLatentImage",
            "VAEEncode",
        ),
        *("SaveImage", "RescaleCFG", "BasicGuider", "ManualSigmas", "KarrasScheduler", "ConditioningZeroOut"),
    ]
)
nodes = st.fixed_dictionaries(
    {"class_type": KINDS | anything, "inputs": some(INPUTS, links | links | scalars) | anything}
)
graphs = st.dictionaries(st.sampled_from(["1", "2", "3", "4", "5"]), nodes, min_size=1, max_size=5)
slots = st.fixed_dictionaries(
    {"name": st.sampled_from(INPUTS) | scalars, "link": st.integers(0, 4) | anything}
)
workflow_nodes = st.fixed_dictionaries(
    {"id": st.integers(1, 4) | scalars, "type": KINDS | anything},
    optional={
        "inputs": st.lists(slots, max_size=4) | anything,
        "widgets_values": st.lists(scalars, max_size=9) | some(INPUTS) | anything,
        "mode": st.integers(0, 4) | anything,
    },
)
rows = st.lists(st.lists(st.integers(0, 4) | scalars, max_size=6), max_size=5)
workflows = st.fixed_dictionaries(
    {"nodes": st.lists(workflow_nodes | anything, max_size=5), "links": rows | anything}
)


@settings(patient, max_examples=100)
@given(
    some(INVOKE).map(lambda d: {"positive_prompt": "x", **d})
    | some(OLD).map(lambda d: {"image": d})
    | some(FOOOCUS).map(lambda d: {"prompt": "x", "guidance_scale": 1, "base_model": "m", **d})
    | some(OURS)
    | graphs
    | workflows
    | anything
)
def test_json_of_any_shape(data: Any) -> None:
    sentence(json.dumps(data))


@quick
@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "Steps: 20",
                "Sampler: Euler",
                "Size: 1x2",
                "Seed: -9",
                ",",
                "\n",
                '"',
                "Negative prompt:",
                "\ud800",
                "\0",
                'Sigmas: "3, 2"',
                "Denoising strength: .1",
                "Mask blur: x",
                "Eta: nan",
                "<lora:a:1>",
                "[a:b:",
                " ",
            ]
        ),
        max_size=20,
    ).map(", ".join)
)
def test_any_text(text: str) -> None:
    sentence(text)


def with_text(text: object) -> dict[str, Any]:
    """The graph with another prompt."""
    return {**GRAPH, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text}}}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 90_000,
        "<lora:" * 15_000,
        "[a:" * 30_000,
        "(a)" * 30_000,
        "((a)+" * 15_000,
        '"' * 90_000,
        '"a" -s 1' * 9000,
        "Steps: 1, Sampler: x, " + "a:" * 40_000,
        "{" * 90_000,
        "a" + " " * 90_000 + "b",
        '"x" -' + "a" * 19_000 + '"',
        "embedding:" * 9_000,
        "a+" * 40_000,
    ],
)
def test_hostile_texts_take_no_time(text: str) -> None:
    began = time.process_time()
    for pasted in (
        text,
        json.dumps({"positive_prompt": text[:20_000]}),
        json.dumps({"image": {"prompt": text}}),
        json.dumps({"image": {"prompt": text[:19_990] + "[x]"}}),
        json.dumps(with_text(text[:20_000])),
    ):
        sentence(pasted)
    assert time.process_time() - began < 3


def test_a_graph_that_goes_round_in_circles_ends() -> None:
    circle = {
        **{
            str(i): {"class_type": "CLIPTextEncode", "inputs": {"text": [str(i + 1), 0]}}
            for i in range(1, 900)
        },
        "900": {"class_type": "Reroute", "inputs": {"text": ["1", 0]}},
        "0": {
            "class_type": "KSampler",
            "inputs": {"seed": ["1", 0], "steps": ["0", 0], "positive": ["1", 0], "latent_image": ["0", 0]},
        },
    }
    sentence(json.dumps(circle))


def test_texts_that_are_joined_again_and_again_end() -> None:
    """Each of these joins the next one with itself: 2**60 texts, were they all to be joined."""
    joined = {
        str(i): {
            "class_type": "StringConcatenate",
            "inputs": {"string_a": [str(i + 1), 0], "string_b": [str(i + 1), 0]},
        }
        for i in range(100, 160)
    }
    last = {"160": {"class_type": "PrimitiveString", "inputs": {"value": "x"}}}
    began = time.process_time()
    sentence(json.dumps({**with_text(["100", 0]), **joined, **last}))
    assert time.process_time() - began < 3
