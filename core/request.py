"""Everything that determines a picture: what is asked (`Request`), what runs (`Settings`); as text and back.

A `Request` leaves open what the model or the sampler should choose; `Request.resolve` fills that in and gives
`Settings`, in which nothing is optional. Both refuse a bad value when they are made, so one that exists is
good. Every refusal is a `UserError` with the field, the value and what is allowed.

This module never imports torch: listing commands and the page's form use it before the engine is loaded.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.emphasis import check_prompt
from core.errors import UserError
from core.options import OptionValue, hint

if TYPE_CHECKING:
    from core.registry import Registry

MAX_STEPS = 1000
MAX_CFG_SCALE = 100.0
MIN_SIDE, MAX_SIDE, SIDE_MULTIPLE = 64, 2048, 8
MAX_BATCH = 64
MAX_CLIP_SKIP = 100
MAX_TEXT = 20_000
_SIDE_RULE = f"must be a multiple of {SIDE_MULTIPLE} between {MIN_SIDE} and {MAX_SIDE}"


def max_seed(batch: int) -> int:
    """The largest seed of a batch: image i takes seed + i, and each of them fits a signed 64-bit integer."""
    return 2**63 - 1 - batch


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a model chooses where the request leaves it open."""

    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    width: int
    height: int

    def __post_init__(self) -> None:
        _check_present(self)
        _check_choices(self)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for. None leaves the choice to the model (the seed: to chance).

    Ranges: steps 1 to 1000, cfg_scale 0 to 100, width and height multiples of 8 from 64 to 2048, batch 1 to
    64, seed 0 to 2**63 - 1 - batch. `clip_skip`, 1 to 100, is the layer of the text encoder to stop at,
    counted from the last. Prompts hold weights (core/emphasis.py). `options` are the sampler's own, checked
    against it in `resolve`. Raises UserError.
    """

    prompt: str = ""
    negative: str = ""
    clip_skip: int = 1
    sampler: str | None = None
    schedule: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch: int = 1
    seed: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_present(self, "prompt", "negative", "clip_skip", "batch", "options")
        _check_choices(self)
        _check_asked(self)

    @classmethod
    def from_mapping(cls, mapping: object) -> Request:
        """A request from names and values, such as a form, a JSON body or `to_dict`. Raises UserError."""
        return cls(**check_keys("request", mapping, cls))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return _plain(self)

    def resolve(self, defaults: Defaults, registry: Registry) -> Settings:
        """What will run: names looked up, gaps filled, the options checked and complete, a seed drawn.

        A schedule that is not asked for is the sampler's own preference if it has one, else the model's.
        Raises UserError for a name that is not registered and for options that the sampler does not take.
        """
        sampler = registry.sampler(_either(self.sampler, defaults.sampler))
        schedule = registry.schedule(_either(self.schedule, sampler.schedule or defaults.schedule))
        return Settings(
            prompt=self.prompt,
            negative=self.negative,
            clip_skip=self.clip_skip,
            sampler=sampler.name,
            schedule=schedule.name,
            steps=_either(self.steps, defaults.steps),
            cfg_scale=_either(self.cfg_scale, defaults.cfg_scale),
            width=_either(self.width, defaults.width),
            height=_either(self.height, defaults.height),
            batch=self.batch,
            seed=random_seed() if self.seed is None else self.seed,
            options=sampler.check_options(self.options),
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What runs: a request with nothing left open. The ranges are those of `Request`."""

    prompt: str
    negative: str
    clip_skip: int = 1  # what a recipe that does not name it was made with
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch: int
    seed: int
    options: Mapping[str, OptionValue] = field(hash=False)

    def __post_init__(self) -> None:
        _check_present(self)
        _check_choices(self)
        _check_asked(self)

    def for_image(self, index: int) -> Settings:
        """The settings that give image `index` of this batch alone."""
        if not 0 <= index < self.batch:
            raise IndexError(f"image {index} of a batch of {self.batch}")
        return dataclasses.replace(self, seed=self.seed + index, batch=1)

    def as_request(self) -> Request:
        """The request that resolves to these settings with any model."""
        return Request(**self.to_dict())

    @classmethod
    def from_dict(cls, mapping: object) -> Settings:
        """The settings that `to_dict` wrote. Raises UserError for anything else."""
        return cls(**check_keys("settings", mapping, cls))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return _plain(self)


def random_seed() -> int:
    """A seed from the system's randomness: 32 bits, so it can be read out and is exact in a browser."""
    return secrets.randbelow(2**32)


# Text forms, for the command line and the page.


def parse_seed(text: str) -> int | None:
    """A seed as typed. Nothing, "random" and -1 (what A1111 calls random) give None. Raises UserError."""
    text = text.strip()
    if text.lower() in ("", "random", "-1"):
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > max_seed(1):
        raise UserError(
            f"seed {_shown(text)}: must be a whole number between 0 and {max_seed(1)}, or the word random"
        )
    return int(text)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "128x96". Raises UserError."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise UserError(f"size {_shown(text)}: write it as WIDTHxHEIGHT, for example 128x96")
    width, height = int(match[1]), int(match[2])
    _check_size(width, height)
    return width, height


def parse_option(text: str) -> tuple[str, str]:
    """(name, value) from "eta=0.5". The value stays text: only the sampler knows what it should be."""
    name, equals, written = text.partition("=")
    name, written = name.strip(), written.strip()
    if not equals or not written or not name.isidentifier():
        raise UserError(f"option {_shown(text)}: write it as NAME=VALUE, for example eta=0.5")
    return name, written


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """The options of several "name=value". Raises UserError, also for a name given twice."""
    options: dict[str, str] = {}
    for text in texts:
        name, value = parse_option(text)
        if name in options:
            raise UserError(f"option {name}: is given twice; give it once")
        options[name] = value
    return options


# Checks that other records share.


def check_text(name: str, value: object, *, empty: bool = True) -> str:
    """`value`, if it is text that a file can hold: valid Unicode without NUL, at most 20,000 characters."""
    if not isinstance(value, str):
        raise UserError(f"{name} {_shown(value)}: must be text")
    if not value and not empty:
        raise UserError(f"{name} '': must not be empty")
    if len(value) > MAX_TEXT:
        raise UserError(f"{name} of {len(value)} characters: must have at most {MAX_TEXT}")
    bad = re.search("[\0\ud800-\udfff]", value)
    if bad:
        raise UserError(f"{name}: character {bad.start() + 1} ({bad[0]!r}) is no text; remove it")
    return value


def check_keys(what: str, mapping: object, record: type) -> dict[str, Any]:
    """The fields of dataclass `record` in `mapping`; UserError for a key that is unknown or missing."""
    if not isinstance(mapping, Mapping):
        raise UserError(f"{what} {_shown(mapping)}: must be an object of names and values")
    fields = {f.name: f for f in dataclasses.fields(record)}
    for key in mapping:
        if key not in fields:
            raise UserError(f"{what}: {_shown(key)} is not known{hint(str(key), fields)}")
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in mapping and not optional:
            raise UserError(f"{what}: {name} is missing")
    return dict(mapping)


def _check_present(record: Any, *names: str) -> None:
    """Refuse None in the named fields (all of them, if none is named)."""
    for name in names or [f.name for f in dataclasses.fields(record)]:
        if getattr(record, name) is None:
            raise UserError(f"{_spoken(name)}: must be given")


def _check_choices(record: Defaults | Request | Settings) -> None:
    """The fields that a model can choose."""
    for name in ("sampler", "schedule"):
        if getattr(record, name) is not None:
            check_text(name, getattr(record, name), empty=False)
    if record.steps is not None:
        _check_whole("steps", record.steps, 1, MAX_STEPS)
    if record.cfg_scale is not None:
        cfg_scale = _check_number("cfg scale", record.cfg_scale, 0.0, MAX_CFG_SCALE)
        object.__setattr__(record, "cfg_scale", cfg_scale)
    _check_size(record.width, record.height)


def _check_asked(record: Request | Settings) -> None:
    """The fields that only a person chooses."""
    check_prompt("prompt", check_text("prompt", record.prompt))
    check_prompt("negative prompt", check_text("negative prompt", record.negative))
    _check_whole("clip skip", record.clip_skip, 1, MAX_CLIP_SKIP)
    _check_whole("batch", record.batch, 1, MAX_BATCH)
    if record.seed is not None:
        _check_whole("seed", record.seed, 0, max_seed(record.batch))
    # A copy of its own, and a plain one: it is pickled, compared and written as JSON.
    object.__setattr__(record, "options", _check_options(record.options))


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} {_shown(value)}: must be a whole number between {low} and {high}")


def _check_number(name: str, value: object, low: float, high: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # NaN is in no range
        raise UserError(f"{name} {_shown(value)}: must be a number between {low:g} and {high:g}")
    return float(value)  # type: ignore[arg-type]


def _check_size(width: object, height: object) -> None:
    both = width is not None and height is not None
    for name, side in (("width", width), ("height", height)):
        if side is None or _is_side(side):
            continue
        if both:
            raise UserError(f"size {_shown(width)}x{_shown(height)}: {name} {_SIDE_RULE}")
        raise UserError(f"{name} {_shown(side)}: {_SIDE_RULE}")


def _is_side(side: object) -> bool:
    whole = isinstance(side, int) and not isinstance(side, bool)
    return whole and MIN_SIDE <= side <= MAX_SIDE and side % SIDE_MULTIPLE == 0  # type: ignore[operator]


def _check_options(options: object) -> dict[str, OptionValue]:
    if not isinstance(options, Mapping):
        raise UserError(f"options {_shown(options)}: must be names and values")
    for name, value in options.items():
        check_text("option name", name, empty=False)
        if isinstance(value, str):
            check_text(f"option {name}", value)
        elif not _is_finite(value):
            raise UserError(f"option {name} {_shown(value)}: must be true, false, a finite number or text")
    return dict(options)


def _is_finite(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63  # what a tensor, and every reader of the recipe, can hold
    return isinstance(value, float) and math.isfinite(value)


def _either(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def _plain(record: Request | Settings) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {**values, "options": dict(record.options)}


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: object) -> str:
    """The value in a message: one line, and never longer than about sixty characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to write out integers of more than 4,300 digits
        return "(a very long number)"
