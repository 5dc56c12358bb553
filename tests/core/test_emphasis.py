"""A1111's notation for weights: what it reads as, and what it refuses."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.prompts.emphasis import read_prompt

S, W = 1.1, 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a red hat", [("a red hat", 1)]),
        ("a (red) hat", [("a ", 1), ("red", S), (" hat", 1)]),
        ("a (red:1.3) hat", [("a ", 1), ("red", 1.3), (" hat", 1)]),
        ("a [red] hat", [("a ", 1), ("red", W), (" hat", 1)]),
        ("((a)) [[b]]", [("a", S * S), (" ", 1), ("b", W * W)]),
        ("(a (b:2) [c]:0.5)", [("a ", 0.5), ("b", 1.0), (" ", 0.5), ("c", 0.5 * W)]),
        ("(a [b) c]", [("a ", S), ("b", S * W), (" c", W)]),  # brackets of two kinds may cross
        (r"a \(red\) \[hat\] \\", [(r"a (red) [hat] " + "\\", 1)]),
        (r"(a\) b)", [("a) b", S)]),
        (r"back\slash\ ", [("backslash ", 1)]),  # before anything else a backslash vanishes
        ("(a b", [("a b", S)]),  # never closed: to the end
        ("[a (b", [("a ", W), ("b", W * S)]),
        ("a) b] c", [("a) b] c", 1)]),  # closes nothing: text
        ("a:1.3) b", [("a:1.3) b", 1)]),  # a weight outside brackets: text
        ("[a:1.3]", [("a:1.3", W)]),  # square brackets take no weight
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(a:1.2:b)", [("a:1.2:b", S)]),
        ("(a:1.2", [("a:1.2", S)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(a:.5)(b:1.)", [("a", 0.5), ("b", 1.0)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a:-2)(b:+2)", [("a", -2.0), ("b", 2.0)]),
        ("(a:strong)", [("a:strong", S)]),
        ("(a:1.2.3)", [("a:1.2.3", S)]),
        ("(a:)", [("a:", S)]),
        ("() [] (:1.5)", [("  ", 1)]),
        ("", []),
    ],
)
def test_what_a_prompt_reads_as(prompt: str, spans: list[tuple[str, float]]) -> None:
    [part] = read_prompt(prompt)
    assert [(text, pytest.approx(weight)) for text, weight in spans] == [tuple(span) for span in part]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("a BREAK b", [["a"], ["b"]]),
        ("a  BREAK\n b BREAK c", [["a"], ["b"], ["c"]]),
        ("a,BREAK,b", [["a,"], [",b"]]),
        ("a BREAK", [["a"], []]),
        ("BREAK a", [[], ["a"]]),
        ("a BREAK BREAK b", [["a"], [], ["b"]]),
        ("a break b, BREAKFAST, OUTBREAK, BREAK_2", [["a break b, BREAKFAST, OUTBREAK, BREAK_2"]]),
        ("(a BREAK b) c", [["a"], ["b", " c"]]),
    ],
)
def test_break_starts_a_part(prompt: str, texts: list[list[str]]) -> None:
    assert [[span.text for span in part] for part in read_prompt(prompt)] == texts


def test_a_weight_reaches_over_a_break() -> None:
    assert read_prompt("(a BREAK b:1.5)") == [[("a", 1.5)], [("b", 1.5)]]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("(a red hat:1000)", "weight 1000 of 'a red hat'"),
        ("(a:-100.5)", "weight -100.5"),
        ("(a:" + "9" * 400 + ")", "weight inf"),
        ("((a:0):" + "9" * 400 + ")", "weight nan"),
        ("(" * 60 + "a", "outside -100 to 100"),
        ("([" * 51 + "a", "more than 100 deep"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(prompt: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_prompt(prompt)


@given(st.text(max_size=60) | st.lists(st.sampled_from([*r"()[]:\ab 1.", "BREAK"])).map("".join))
def test_any_text_can_be_read_and_any_text_can_be_escaped(text: str) -> None:
    parts = read_prompt(text)
    assert parts
    escaped = "".join("\\" + letter if letter in r"()[]\\" else letter for letter in text)
    if "BREAK" not in escaped:
        assert "".join(span.text for span in read_prompt(escaped)[0]) == text
        assert all(span.weight == 1 for span in read_prompt(escaped)[0])


@pytest.mark.parametrize(
    "prompt",
    ["([" * 50 + "a)(b" * 4970, "a" + " " * 19_990 + "b", "(a:" + "1" * 19_990, "BREAK" + " " * 19_990],
)
def test_the_longest_prompt_takes_no_time(prompt: str) -> None:
    started = time.process_time()
    read_prompt(prompt)
    assert time.process_time() - started < 2
