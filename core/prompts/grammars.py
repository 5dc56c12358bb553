r"""Prompts in other programs' notations for weights, translated into ours (core/prompts/emphasis.py).

ComfyUI and Fooocus: (word) 1.1, (word:1.3) 1.3. Plain brackets multiply, a number is the weight itself, at
    any depth. A bracket that is never closed, square brackets and BREAK are text. \( \) are brackets.
compel, in InvokeAI: word+ 1.1, word- 0.9, (two words)++ 1.21, (two words)1.3 1.3, (two words).attend(1.3)
    1.3. Weights multiply. Plain brackets and quotes only group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from math import isclose

from core.errors import UserError
from core.prompts.emphasis import MAX_DEPTH, STRONGER, Span, read_prompt

Read = Callable[[str], list[Span]]  # of a whole prompt


def read_comfyui(prompt: str) -> list[Span]:
    """The spans of a prompt of ComfyUI's. Raises UserError for brackets nested more than 100 deep."""
    hidden = prompt.replace(r"\)", "\0\1").replace(r"\(", "\0\2")
    spans = _comfyui(hidden, 1.0, 0)
    return _joined((span.text.replace("\0\1", ")").replace("\0\2", "("), span.weight) for span in spans)


def _comfyui(text: str, weight: float, depth: int) -> Iterator[Span]:
    if depth > MAX_DEPTH:
        raise UserError(f"brackets are nested more than {MAX_DEPTH} deep; remove some")
    for item in _items(text):
        if len(item) > 1 and item[0] == "(" and item[-1] == ")":
            inner, colon, number = item[1:-1].rpartition(":")
            own = _number(number) if colon and inner else None
            if own is None:
                yield from _comfyui(item[1:-1], weight * STRONGER, depth + 1)
            else:
                yield from _comfyui(inner, own, depth + 1)
        else:
            yield Span(item, weight)


def _items(text: str) -> Iterator[str]:
    """Text outside brackets and outer pairs of brackets, in turn. After a bracket that closes nothing the
    count of open ones is below 0, as in ComfyUI, so the next opening bracket is text.
    """
    start = opened = 0
    for place, letter in enumerate(text):
        if letter == "(":
            if opened == 0 and place > start:
                yield text[start:place]
                start = place
            opened += 1
        elif letter == ")":
            opened -= 1
            if opened == 0:
                yield text[start : place + 1]
                start = place + 1
    if start < len(text):
        yield text[start:]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_SPACE = " \t\n\r\x0b\x0c"
_SYMBOLS = r"""()".,+\-="""
_SPACES = re.compile(f"[{_SPACE}]*")
_WORD = re.compile(rf"(?:\\[{_SYMBOLS}]|[-+](?![{_SPACE}{_SYMBOLS}]|\Z)|[^{_SPACE}{_SYMBOLS}])+")
_FREE_WORD = re.compile(f"[^{_SPACE}]+")
_QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
_SIGNS = re.compile(r"\++|-+")
_FACTOR = re.compile(r"\++|-+|[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|-?[0-9]+")
_ATTEND = re.compile(rf"[{_SPACE}]*\.attend[{_SPACE}]*\([{_SPACE}]*({_FACTOR.pattern})[{_SPACE}]*\)")
_UNSUPPORTED = re.compile(r'[\w")]\s*\.(swap|blend|and|add)\s*\(|\b(withLora|useLora)\s*\(')

Parsed = tuple[list[Span], int]  # spans, and where the text after them begins


def read_compel(prompt: str) -> list[Span]:
    """The spans of a prompt of compel's; words are separated by one space.

    Raises UserError for .blend(), .and(), .swap() and LoRAs, and for brackets nested more than 100 deep.
    """
    unsupported = _UNSUPPORTED.search(prompt)
    if unsupported:
        raise UserError(
            f"compel's {unsupported[1] or unsupported[2]}() is not supported; write one plain prompt"
        )
    return _joined(_Compel(re.sub(r",(\S)", r", \1", prompt)).prompt(), " ")


class _Compel:
    """Reads one text by compel's rules. Each method takes a place and returns what begins there, or None.

    Brackets are remembered by place: compel tries each of its rules in turn, in exponential time without it.
    """

    def __init__(self, text: str, depth: int = 0) -> None:
        self.text, self.depth = text, depth
        self.groups: dict[int, Parsed | None] = {}

    def prompt(self) -> list[Span]:
        spans, place = list[Span](), self._after_spaces(0)
        while place < len(self.text):
            found = self._weighted(place) or self._group(place) or self._word(place, _FREE_WORD)
            assert found is not None
            spans += found[0]
            place = self._after_spaces(found[1])
        return spans

    def inside(self, place: int) -> Parsed:
        """What brackets or quotes contain."""
        spans, place = list[Span](), self._after_spaces(place)
        while found := (
            self._weighted(place) or self._group(place) or self._word(place, _WORD) or self._mark(place)
        ):
            spans += found[0]
            place = self._after_spaces(found[1])
        return spans, place

    def _weighted(self, place: int) -> Parsed | None:
        group = self._group(place)
        target = group or self._word(place, _WORD)
        if target is None:
            return None
        spans, end = target
        called = _ATTEND.match(self.text, end)
        factor = called or (_FACTOR if group else _SIGNS).match(self.text, end)
        if factor is None:
            return None
        weight = _factor(factor[1] if called else factor[0])
        return [Span(span.text, span.weight * weight) for span in spans], factor.end()

    def _group(self, place: int) -> Parsed | None:
        """Brackets or quotes."""
        if place not in self.groups:
            start = self.text[place : place + 1]
            self.groups[place] = (
                self._brackets(place) if start == "(" else self._quotes(place) if start == '"' else None
            )
        return self.groups[place]

    def _brackets(self, place: int) -> Parsed | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UserError(f"brackets are nested more than {MAX_DEPTH} deep; remove some")
        spans, end = self.inside(place + 1)
        self.depth -= 1
        return (spans, end + 1) if self.text[end : end + 1] == ")" else None

    def _quotes(self, place: int) -> Parsed | None:
        quoted = _QUOTED.match(self.text, place)
        if quoted is None:
            return None
        text = quoted[1].replace(r"\"", '"').replace('"', r"\"")
        spans, end = _Compel(text, self.depth).inside(0)
        return (spans, quoted.end()) if end == len(text) else None

    def _word(self, place: int, pattern: re.Pattern[str]) -> Parsed | None:
        word = pattern.match(self.text, place)
        if word is None:
            return None
        return [Span(re.sub(r'\\([()"])', r"\1", word[0]), 1.0)], word.end()

    def _mark(self, place: int) -> Parsed | None:
        mark = self.text[place : place + 1]
        return ([Span(mark, 1.0)], place + 1) if mark and mark in ",." else None

    def _after_spaces(self, place: int) -> int:
        spaces = _SPACES.match(self.text, place)
        return place if spaces is None else spaces.end()


def _factor(text: str) -> float:
    if text.strip("+-"):
        return float(text)
    return float((1.1 if text[0] == "+" else 0.9) ** len(text))


def _joined(spans: Iterable[tuple[str, float]], between: str = "") -> list[Span]:
    """Neighbours of equal weight as one span; without empty ones."""
    return [
        Span(between.join(text for text, _ in same), weight)
        for weight, same in groupby(
            ((text, weight) for text, weight in spans if text), key=lambda span: span[1]
        )
    ]


def translated(prompt: str, read: Read) -> str:
    """The prompt in our notation: the text itself where we read it alike. Raises UserError."""
    spans = read(prompt)
    between = " " if read is read_compel else ""
    ours = read_prompt(prompt)
    if len(ours) == 1 and _alike(ours[0], spans):
        return prompt
    text = between.join(_written(span) for span in spans)
    read_prompt(text)  # raises for a weight that is too large
    return text


def _alike(ours: list[Span], theirs: list[Span]) -> bool:
    """Whether both have the same weights on the same words."""
    return len(ours) == len(theirs) and all(
        one.text.split() == other.text.split() and isclose(one.weight, other.weight)
        for one, other in zip(ours, theirs, strict=True)
    )


def _written(span: Span) -> str:
    text = re.sub(r"([\\()\[\]])", r"\\\1", span.text)
    text = re.sub(r"\bBREAK\b", "break", text)  # the same tokens, without our meaning
    weight = f"{span.weight:.6f}".rstrip("0").rstrip(".")
    return text if span.weight == 1 else f"({text}:{weight})"
