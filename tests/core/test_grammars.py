"""Other programs' notations for weights, next to their own rules."""

from __future__ import annotations

import contextlib
import importlib
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.prompts.emphasis import read_prompt
from core.prompts.grammars import Read, read_comfyui, read_compel, translated

Spans = list[tuple[str, float]]
COMFYUI = [
    "cat",
    "red hat",
    " ",
    "(",
    ")",
    "(",
    ")",
    ":",
    "1.3",
    ":0.5)",
    r"\(",
    r"\)",
    "[",
    "]",
    ",",
    "BREAK",
    "+",
    "\\",
]
COMPEL = ["cat", "red hat", " ", " ", "(", ")", "(", ")", "+", "++", "-", "1.3", "2", ".", ",", '"', r"\(",
          r"\)", r"\"", "[", "=", ")++", ")0.7", "(a b)1.2", ".attend(1.2)", "\\+"]  # fmt: skip
A1111 = [
    "cat",
    "red hat",
    " ",
    "(",
    ")",
    "(",
    "[",
    "]",
    ":",
    ":1.3)",
    ":0.5)",
    r"\(",
    r"\)",
    r"\[",
    "\\",
    " BREAK ",
    ",",
]


def texts(pieces: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=10).map("".join)


def plain(spans: Spans) -> list[tuple[str, Any]]:
    """Without empty spans, neighbours of equal weight joined, spaces and BREAK as the tokenizer sees them."""
    found: Spans = []
    for text, weight in spans:
        if text.strip():
            same = bool(found) and found[-1][1] == pytest.approx(weight)
            if same:
                found[-1] = (f"{found[-1][0]} {text}", found[-1][1])
            else:
                found.append((text, weight))
    return [("".join(text.split()).lower(), pytest.approx(weight, abs=1e-6)) for text, weight in found]


def test_plain_sees_other_weights_and_words() -> None:
    assert plain([("a", 1.0), ("b", 1.1)]) != plain([("a", 1.0), ("b", 1.2)])
    assert plain([("a", 1.0)]) != plain([("b", 1.0)])


def by_comfyuis_rules(text: str) -> Spans:
    """Bracket groups by a counter; the last colon of a group gives its weight, else it is 1.1 times."""

    def groups(text: str) -> list[str]:
        found, now, level = [], "", 0
        for letter in text:
            if letter == "(":
                if level == 0 and now:
                    found.append(now)
                    now = ""
                level += 1
            now += letter
            if letter == ")":
                level -= 1
                if level == 0:
                    found.append(now)
                    now = ""
        return [*found, now] if now else found

    def weights(text: str, outer: float) -> Spans:
        found: Spans = []
        for group in groups(text):
            if not (len(group) > 1 and group.startswith("(") and group.endswith(")")):
                found.append((group, outer))
                continue
            inner, weight = group[1:-1], outer * 1.1
            colon = inner.rfind(":")
            if colon > 0:
                with contextlib.suppress(ValueError):
                    weight, inner = float(inner[colon + 1 :]), inner[:colon]
            found += weights(inner, weight)
        return found

    hidden = text.replace("\\)", "\0\1").replace("\\(", "\0\2")
    return [(part.replace("\0\1", ")").replace("\0\2", "("), weight) for part, weight in weights(hidden, 1.0)]


@cache
def compels_parser() -> Any:
    return importlib.import_module("compel.prompt_parser").PromptParser()


def by_compel(text: str) -> Spans:
    [prompt] = compels_parser().parse_conjunction(text).prompts or [None]
    return [] if prompt is None else [(part.text, part.weight) for part in prompt.children]


def by_a1111s_rules(text: str) -> list[Spans]:
    """One token after the other; each closing bracket multiplies what came since its opening one."""
    token = re.compile(r"\\\(|\\\)|\\\[|\\]|\\\\|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|]|[^\\()\[\]:]+|:")
    words: list[str | None] = []  # None: BREAK
    weights: list[float] = []
    round_: list[int] = []
    square: list[int] = []

    def times(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    for match in token.finditer(text):
        said, weight = match[0], match[1]
        if said.startswith("\\"):
            words.append(said[1:])
        elif said == "(":
            round_.append(len(words))
        elif said == "[":
            square.append(len(words))
        elif weight is not None and round_:
            times(round_.pop(), float(weight))
        elif said == ")" and round_:
            times(round_.pop(), 1.1)
        elif said == "]" and square:
            times(square.pop(), 1 / 1.1)
        else:
            for i, part in enumerate(re.split(r"\s*\bBREAK\b\s*", said)):
                words += [None, part] if i else [part]
        weights += [1.0] * (len(words) - len(weights))
    for start in round_:
        times(start, 1.1)
    for start in square:
        times(start, 1 / 1.1)
    parts: list[Spans] = [[]]
    for word, weight in zip(words, weights, strict=True):
        if word is None:
            parts.append([])
        else:
            parts[-1].append((word, weight))
    return parts


def ours(text: str, read: Read) -> Spans:
    [spans] = read_prompt(translated(text, read))
    return [tuple(span) for span in spans]


@settings(max_examples=300, deadline=None)
@given(texts(COMFYUI))
def test_comfyuis_prompts_keep_their_weights(text: str) -> None:
    assert plain(ours(text, read_comfyui)) == plain(by_comfyuis_rules(text))


@pytest.mark.parametrize("prompts", [40, pytest.param(300, marks=pytest.mark.slow)])  # its parser is slow
def test_compels_prompts_keep_their_weights(prompts: int) -> None:
    @settings(max_examples=prompts, deadline=None)
    @given(texts(COMPEL))
    def keeps(text: str) -> None:
        assert plain(ours(text, read_compel)) == plain(by_compel(text))

    keeps()


@settings(max_examples=300, deadline=None)
@given(texts(A1111))
def test_a1111s_prompts_are_read_by_its_rules(text: str) -> None:
    parts = [[tuple(span) for span in part] for part in read_prompt(text)]
    assert [plain(part) for part in parts] == [plain(part) for part in by_a1111s_rules(text)]


@pytest.mark.parametrize(
    ("read", "text", "there"),
    [
        (read_comfyui, "a (red:1.2) hat", "a (red:1.2) hat"),  # alike: not a letter changes
        (read_comfyui, "a BREAK b", "a break b"),
        (read_comfyui, "(a (red:1.5) hat:0.8)", "(a :0.8)(red:1.5)( hat:0.8)"),
        (read_comfyui, "a (b", r"a \(b"),
        (read_comfyui, "[a]", r"\[a\]"),
        (read_compel, "a ((red)) [cat]", r"a red \[cat\]"),
        (read_compel, "(red hat)1.3 cat++", "(red hat:1.3) (cat:1.21)"),
        (read_compel, "(a (b)2)0.5", "(a:0.5) b"),
        (read_compel, "a + b", "a + b"),
    ],
)
def test_translations(read: Read, text: str, there: str) -> None:
    assert translated(text, read) == there


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (read_compel, '("a", "b").blend(1, 1)', "blend"),
        (read_compel, '("a", "b").and()', "and"),
        (read_compel, "a cat.swap(dog)", "swap"),
        (read_compel, "a withLora(x, 0.5)", "withLora"),
        (read_compel, "(" * 200, "100 deep"),
        (read_comfyui, "(" * 200 + ")" * 200, "100 deep"),
        (read_comfyui, "(a:1e9)", "weight"),
    ],
)
def test_what_cannot_be_translated_is_said(read: Read, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        translated(text, read)
