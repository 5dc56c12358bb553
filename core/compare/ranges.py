"""The syntax of typed values in a comparison, as in A1111's grids.

    10, 20, 30              a list
    1-4                     every whole number from 1 to 4
    10-30 (+5)              from 10 to 30 in steps of 5; (-5) to go down
    0-1 [5]                 five numbers, evenly from 0 to 1
    "red, round", blue      double quotes keep a comma; two double quotes inside stand for one

Each part may be any of these. Repeated values count once.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, TypeVar

from core.checks import shown
from core.errors import UserError

MOST = 500
LARGEST = 10**30
_DIGITS = 60  # characters; a longer number is surely a mistake
EXAMPLES = {"whole": "10-30 (+5)", "number": "1, 3, 5-9 (+2)"}

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_RANGE = re.compile(
    rf"({_NUMBER})\s*[-–]\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*([0-9]{{1,9}})\s*\])?"
)
_PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"[^\S\n]*(?=,|\n|$)|([^,\n]*))(?:,|\n|$)')
T = TypeVar("T", bound=Hashable)


class Mistakes(UserError):
    """Several errors in what was typed, one sentence each."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(dict.fromkeys(sentences))
        super().__init__("; ".join(self.sentences))


class ListItem(NamedTuple):
    """The text between two commas; quoted text is taken literally."""

    text: str
    quoted: bool


def split(text: str) -> list[ListItem]:
    """The parts of the typed text, without empty ones unless they are quoted. Line ends also separate parts.

    Raises UserError for quotation marks that are not closed.
    """
    parts, at = [], 0
    while at < len(text):
        found = _PART.match(text, at)
        assert found is not None  # the second alternative of the pattern matches anything
        at = max(found.end(), at + 1)
        quoted = found[1] is not None
        part = ListItem(found[1].replace('""', '"') if quoted else (found[2] or "").strip(), quoted)
        if not quoted and part.text.startswith('"'):
            raise UserError(f"{shown(part.text)}: close the double quotes, and put a comma after them")
        if quoted or part.text:
            parts.append(part)
    return parts


def join(values: Iterable[str]) -> str:
    """The text that `split` splits into these values."""
    return ", ".join(_quoted(value) if _needs_quotes(value) else value for value in values)


def words(text: str) -> list[str]:
    """The parts as text. Raises UserError."""
    return _unlike(part.text for part in split(text))


def whole_numbers(text: str) -> list[int]:
    """Lists and ranges of whole numbers. Raises Mistakes with a sentence for each invalid part."""
    return [int(number) for number in _numbers(text, whole=True)]


def numbers(text: str) -> list[float]:
    """Lists and ranges of numbers. Raises Mistakes with a sentence for each invalid part."""
    return [float(number) for number in _numbers(text, whole=False)]


def _numbers(text: str, *, whole: bool) -> list[Fraction]:
    found: list[Fraction] = []
    mistakes = []
    for part in split(text):
        try:
            found += _part(part.text.strip(), whole)
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise Mistakes(mistakes)
    if len(found) > MOST:
        raise Mistakes([f"{len(found)} values: at most {MOST} of one setting"])
    return _unlike(found)


def _part(text: str, whole: bool) -> list[Fraction]:
    """One number, or a range of them."""
    if re.fullmatch(_NUMBER, text):
        number = _exact(text)
        if whole and number.denominator != 1:
            raise UserError(f"{shown(text)}: must be a whole number")
        return [number]
    found = _RANGE.fullmatch(text)
    if found is None:
        example = EXAMPLES["whole" if whole else "number"]
        raise UserError(f"{shown(text)}: is not a number or a range; write for example {example}")
    start, end = _exact(found[1]), _exact(found[2])
    made = _even(text, start, end, int(found[4])) if found[4] else _stepped(text, start, end, found[3])
    if whole and found[4]:
        made = [Fraction(round(number)) for number in made]
    if whole and any(number.denominator != 1 for number in made):
        raise UserError(f"{shown(text)}: must give whole numbers")
    return made


def _stepped(text: str, start: Fraction, end: Fraction, step: str | None) -> list[Fraction]:
    size = _exact(step) if step else Fraction(1 if end >= start else -1)
    if size == 0 or (end - start) * size < 0:
        raise UserError(f"{shown(text)}: this step never reaches the second number; change the step")
    count = (end - start) // size + 1
    _check_count(text, count)
    return [start + i * size for i in range(count)]


def _even(text: str, start: Fraction, end: Fraction, count: int) -> list[Fraction]:
    _check_count(text, count)
    if count == 0:
        raise UserError(f"{shown(text)}: has no values; write a count from 1 in the brackets")
    return [start + (end - start) * i / max(count - 1, 1) for i in range(count)]


def _check_count(text: str, count: int) -> None:
    if count > MOST:
        raise UserError(f"{shown(text)}: makes {count} values; at most {MOST} of one setting")


def _exact(text: str) -> Fraction:
    """The exact decimal value, so that three steps of 0.1 are 0.3."""
    if len(text) > _DIGITS or abs(number := Fraction(Decimal(text))) > LARGEST:
        raise UserError(f"{shown(text)}: is larger than any setting allows")
    return number


def _unlike(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _needs_quotes(value: str) -> bool:
    return not value or value != value.strip() or any(sign in value for sign in ',\n"')


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
