r"""Prompt weights in A1111's notation, parsed to spans of text with a weight.

    (word)  1.1     (word:1.3)  1.3     [word]  1 / 1.1     \( \) \[ \] \\  the character itself
    BREAK   what follows starts a new chunk

Brackets nest, and their weights multiply. As in A1111, an unclosed bracket extends to the prompt's end, an
unopened one is text, so is a weight outside round brackets, and a backslash before anything else is removed.
Unlike in A1111, `:1.2.3)` is text, as it is not a number, and BREAK also works inside brackets.

This module never imports torch: a request checks its prompts with it.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

from core.errors import UserError

EMPHASES = ("a1111", "no_norm", "comfy")  # how weights act: core/models/clip.py
STRONGER, WEAKER = 1.1, 1 / 1.1
MAX_WEIGHT = 100.0  # larger weights overflow prompt embeddings in float16
MAX_DEPTH = 100  # keeps the time linear in the prompt's length
_OPENED_BY = {")": "(", "]": "["}

_MARK = re.compile(
    r"""
      \\(?P<escaped>[()\[\]\\]?)
    | :\s*(?P<weight>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*\)
    | (?P<bracket>[()\[\]])
    | [^()\[\]\\:]+ | :
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


class Span(NamedTuple):
    """A piece of text and its weight; 1 is neutral."""

    text: str
    weight: float


class _Piece:
    """Text between two marks; its text is None for a BREAK."""

    def __init__(self, text: str | None) -> None:
        self.text, self.weight = text, 1.0


def read_prompt(prompt: str) -> list[list[Span]]:
    """The spans of each part between BREAKs, neighbours of equal weight joined; at least one part.

    Raises UserError for a weight outside -100 to 100, and for brackets nested more than 100 deep.
    """
    parts: list[list[_Piece]] = [[]]
    for piece in _pieces(prompt):
        if piece.text is None:
            parts.append([])
        elif piece.text:
            parts[-1].append(piece)
    return [
        [_checked("".join(str(piece.text) for piece in same), weight) for weight, same in _by_weight(part)]
        for part in parts
    ]


def check_prompt(name: str, prompt: str) -> None:
    """Raises UserError, with the name of the prompt, if its weights are invalid."""
    try:
        read_prompt(prompt)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _pieces(prompt: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # the number of pieces before each open bracket

    def close(bracket: str, factor: float) -> None:
        for piece in pieces[opened[bracket].pop() :]:
            piece.weight *= factor

    for mark in _MARK.finditer(prompt):
        escaped, weight, bracket = mark.group("escaped", "weight", "bracket")
        if escaped is not None:
            pieces.append(_Piece(escaped))
        elif weight is not None and opened["("]:
            close("(", float(weight))
        elif bracket in opened:
            opened[bracket].append(len(pieces))
            if sum(map(len, opened.values())) > MAX_DEPTH:
                raise UserError(f"brackets are nested more than {MAX_DEPTH} deep; remove some")
        elif bracket is not None and opened[_OPENED_BY[bracket]]:
            close(_OPENED_BY[bracket], STRONGER if bracket == ")" else WEAKER)
        else:
            pieces += _at_breaks(mark[0])
    for bracket, factor in (("(", STRONGER), ("[", WEAKER)):
        while opened[bracket]:
            close(bracket, factor)
    return pieces


def _at_breaks(text: str) -> list[_Piece]:
    """The text between BREAKs, without the white space next to them (a regex for it would be slow)."""
    first, *others = _BREAK.split(text)
    if not others:
        return [_Piece(text)]
    *middle, last = others
    pieces = [_Piece(first.rstrip())]
    for other in (*(part.strip() for part in middle), last.lstrip()):
        pieces += [_Piece(None), _Piece(other)]
    return pieces


def _by_weight(part: list[_Piece]) -> groupby[float, _Piece]:
    return groupby(part, key=lambda piece: piece.weight)


def _checked(text: str, weight: float) -> Span:
    if not abs(weight) <= MAX_WEIGHT:
        limits = f"-{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise UserError(
            f"the weight {weight:g} of {text.strip()[:40]!r} is outside {limits}; choose one inside"
        )
    return Span(text, weight)
