"""Values typed for a comparison: lists, ranges and quotes, and a sentence for each that is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.compare.ranges import MOST, ListItem, Mistakes, join, numbers, split, whole_numbers, words
from core.errors import UserError
from tests.core.recipes import patient, texts


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("20", [20]),
        (" 10, 20 ,30", [10, 20, 30]),
        ("1-4", [1, 2, 3, 4]),
        ("4-1", [4, 3, 2, 1]),
        ("10-30 (+5)", [10, 15, 20, 25, 30]),
        ("10-30(5)", [10, 15, 20, 25, 30]),
        ("10-29 (+5)", [10, 15, 20, 25]),
        ("30-10 (-10)", [30, 20, 10]),
        ("10-30 [3]", [10, 20, 30]),
        ("1-10 [4]", [1, 4, 7, 10]),
        ("7-9 [1]", [7]),
        ("1-2 [5]", [1, 2]),
        ("5, 1-3, 2, 5", [5, 1, 2, 3]),
        ("-2-2 (+2)", [-2, 0, 2]),
        ("1 – 3", [1, 2, 3]),
        ("1,\n2\n3", [1, 2, 3]),
        ("20.0", [20]),
        ('"20"', [20]),
        ("", []),
        (" , ,", []),
    ],
)
def test_whole_numbers(text: str, values: list[int]) -> None:
    assert whole_numbers(text) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.5, 1", [0.5, 1.0]),
        ("0-1 (+0.1)", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("0-1 [5]", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("1-0 (-.5)", [1.0, 0.5, 0.0]),
        ("1e-3, 7.", [0.001, 7.0]),
        ("1.5-3", [1.5, 2.5]),
    ],
)
def test_numbers_are_as_written(text: str, values: list[float]) -> None:
    assert numbers(text) == values


@pytest.mark.parametrize(
    ("read", "text", "sentences"),
    [
        (whole_numbers, "a", ["'a': is not a number or a range; write for example 10-30 (+5)"]),
        (whole_numbers, "1, 2.5, x", ["'2.5': must be a whole number", "'x': is not a number or a range"]),
        (whole_numbers, "1-2 (+0.5)", ["'1-2 (+0.5)': must give whole numbers"]),
        (whole_numbers, "10-30 (-5)", ["this step never reaches the second number"]),
        (numbers, "1-2 (0)", ["never reaches"]),
        (numbers, "0-1 [0]", ["has no values"]),
        (numbers, "1-2-3", ["is not a number or a range"]),
        (numbers, "nan, inf", ["'nan': is not a number", "'inf': is not a number"]),
        (numbers, "1--2 (+1)", ["never reaches"]),
        (whole_numbers, "1-1000000000000", ["makes 1000000000000 values; at most 500"]),
        (numbers, "0-1 [999999999]", ["makes 999999999 values"]),
        (numbers, "1e999", ["is larger than any setting"]),
        (numbers, "0-1 (+1e-999)", ["values; at most 500"]),
        (whole_numbers, "1-400, 1001-1400", ["800 values: at most 500"]),
    ],
)
def test_a_sentence_for_each_mistake(read: Callable[[str], object], text: str, sentences: list[str]) -> None:
    with pytest.raises(Mistakes) as caught:
        read(text)
    assert len(caught.value.sentences) == len(sentences)
    for sentence, part in zip(caught.value.sentences, sentences, strict=True):
        assert part in sentence


def test_quotes_keep_commas_and_spaces() -> None:
    assert words('cat, "a dog, wet", fox') == ["cat", "a dog, wet", "fox"]
    assert split('"", " x "') == [ListItem("", True), ListItem(" x ", True)]
    assert words('"say ""hi""", 5" disk') == ['say "hi"', '5" disk']
    assert words("cat, cat") == ["cat"]
    for text in ('"open', 'cat, "open, fox', '"a" b'):
        with pytest.raises(UserError, match="close the double quotes"):
            words(text)


@given(st.lists(texts, max_size=6, unique=True))
@patient
def test_what_is_joined_is_split_again(values: list[str]) -> None:
    assert words(join(values)) == values


@given(st.text(max_size=40))
@patient
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (whole_numbers, numbers, words):
        with suppress(UserError):
            assert len(read(text)) <= max(MOST, len(text))


ranges = st.tuples(st.integers(-999, 999), st.integers(-999, 999), st.integers(1, 99))


@given(ranges)
@patient
def test_ranges_are_pythons(numbers_of: tuple[int, int, int]) -> None:
    start, end, size = numbers_of
    step = size if end >= start else -size
    expected = list(range(start, end + (1 if step > 0 else -1), step))
    if len(expected) <= MOST:
        assert whole_numbers(f"{start}-{end} ({step:+})") == expected


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 60))
@patient
def test_even_ranges_hit_both_ends(start: int, end: int, count: int) -> None:
    found = numbers(f"{start}-{end} [{count}]")
    assert found[0] == start
    assert count == 1 or found[-1] == end
    assert len(found) == (1 if start == end else count)


def test_a_number_without_end_is_refused_at_once() -> None:
    began = time.process_time()
    with pytest.raises(Mistakes, match="larger than any setting"):
        numbers("1" * 1_000_000)
    assert time.process_time() - began < 3
