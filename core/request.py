"""Everything that determines a picture: what is asked (`Request`), what runs (`Settings`); as text and back.

A `Request` leaves open what the model or the sampler should choose; `Request.resolve` fills that in and gives
`Settings`, in which nothing is optional. Both refuse a bad value when they are made, so one that exists is
good. Every refusal is a `UserError` with the field, the value and what is allowed.

This module never imports torch: listing commands and the page's form use it before the engine is loaded.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core import aliases
from core.branching import Branch, check_branch
from core.checks import (
    MAX_SIDE,
    MIN_SIDE,
    SIDE_MULTIPLE,
    OptionValue,
    check_keys,
    check_number,
    check_options,
    check_present,
    check_size,
    check_text,
    check_whole,
    shown,
)
from core.errors import UserError
from core.levels import check_sigmas
from core.picture_settings import NO_OUTPAINT, Given, check_given, check_picture_settings, picture_values
from core.prompts.emphasis import check_prompt

if TYPE_CHECKING:
    from core.sampling.registry import Registry, SamplerInfo

MAX_STEPS = 1000
MAX_CFG_SCALE = 100.0
MAX_BATCH = 64
MAX_CLIP_SKIP = 100
MAX_REUSE = 20
MAX_MERGING = 0.75  # three tokens of four: core/models/fast/token_merging.py


def max_seed(batch: int) -> int:
    """The largest seed of a batch: image i takes seed + i, and each of them fits a signed 64-bit integer."""
    return 2**63 - 1 - batch


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a model chooses where the request leaves it open, and what sizes it can make: sides are multiples
    of `multiple`, from `smallest` to 2048.
    """

    sampler: str
    schedule: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    multiple: int = SIDE_MULTIPLE
    smallest: int = MIN_SIDE

    def __post_init__(self) -> None:
        check_present(self)
        check_whole("multiple", self.multiple, 1, MIN_SIDE)
        check_whole("smallest", self.smallest, 1, MAX_SIDE)
        _check_choices(self)
        self.check_size(self.width, self.height)

    def check_size(self, width: int | None, height: int | None) -> None:
        """Refuse sides that the model cannot make. Raises UserError."""
        check_size(width, height, self.multiple, self.smallest)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What most runs leave as it is, the same in a request and in its settings. `Request` says what each is.

    A recipe that does not name one of them was made with the default.
    """

    clip_skip: int = 1
    sigmas: Sequence[float] | None = None
    cfg_rescale: float = 0.0
    cfg_from: float = 0.0
    cfg_to: float = 1.0
    feature_reuse: int = 1
    token_merging: float = 0.0
    strength: float | None = None
    resize: str | None = None
    outpaint: Sequence[int] = NO_OUTPAINT
    mask_blur: int | None = None
    masked_content: str | None = None
    only_masked: int | None = None
    keep_unmasked: bool = False
    invert_mask: bool = False
    image_sha256: str | None = None
    mask_sha256: str | None = None
    stop_after: int | None = None
    branch: Branch | None = None


@dataclass(frozen=True, kw_only=True)
class Request(Extras):
    """What was asked for. None leaves the choice to the model (the seed: to chance).

    Ranges: steps 1 to 1000, cfg_scale 0 to 100, width and height 1 to 2048 and as the model's `Defaults` say
    (Stable Diffusion: multiples of 8 from 64), batch 1 to 64, seed 0 to 2**63 - 1 - batch. `sigmas` are noise
    levels in place of a schedule; steps follow from them. `clip_skip`, 1 to 100, is the layer of the text
    encoder to stop at, counted from the last. Prompts hold weights (core/prompts/emphasis.py). Samplers and
    schedules may be named as other programs do (core/aliases.py). `options` are the sampler's own, checked
    against it in `resolve`. Raises UserError.

    Guidance: `cfg_rescale` 0 (off) to 1 takes back the contrast that it adds; it acts from `cfg_from` to
    `cfg_to`, fractions of the steps.

    Approximations that save time (docs/savings.md): with `feature_reuse`, 1 (off) to 20, only one of so many
    evaluations runs the whole network; `token_merging`, 0 (off) to 0.75, is the share of positions that the
    finest self-attention merges.

    The rest is for a run that starts from a picture, which is given beside the request: docs/pictures-in.md
    says what each does. `strength` is above 0 and at most 1; `outpaint` pixels left, right, up and down;
    `mask_blur` pixels; `only_masked` pixels around the mask, None for the whole picture; the hashes are those
    of the pictures' pixels, and are found, not asked for.

    `stop_after`, 1 to 10,000, ends the run after so many steps, and its picture is the clean estimate of the
    last one. With `branch` the first steps are another run's (core/branching.py), and what is left open is
    as it was there.
    """

    prompt: str = ""
    negative: str = ""
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
        check_present(self, "prompt", "negative", "clip_skip", "batch", "options")
        _check_choices(self)
        _check_asked(self)

    @classmethod
    def from_mapping(cls, mapping: object) -> Request:
        """A request from names and values, such as a form, a JSON body or `to_dict`. Raises UserError."""
        return cls(**check_keys("request", mapping, cls))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return _plain(self)

    def resolve(self, defaults: Defaults, registry: Registry, given: Given | None = None) -> Settings:
        """What will run: names looked up, gaps filled, the options checked and complete, a seed drawn.

        A schedule that is not asked for is the sampler's own preference if it has one, else the model's.
        `given` is about the pictures that come beside the request. Raises UserError for a name that is not
        registered, for options that the sampler does not take, and for pictures that are not there.
        """
        if self.branch is not None:
            filled = self.branch.filled(dataclasses.replace(self, branch=None))
            settings = filled.resolve(defaults, registry, given)
            return dataclasses.replace(settings, branch=self.branch.with_pictures(given))
        check_given(self, given)
        defaults.check_size(self.width, self.height)
        named = aliases.resolve(self.sampler, self.schedule, registry)
        sampler = registry.sampler(_either(named.sampler, defaults.sampler))
        schedule = registry.schedule(_either(named.schedule, sampler.schedule or defaults.schedule))
        _check_alone(sampler, self.batch)
        return Settings(
            prompt=self.prompt,
            negative=self.negative,
            clip_skip=self.clip_skip,
            sampler=sampler.name,
            schedule=schedule.name,
            sigmas=self.sigmas,
            steps=_either(self.steps, defaults.steps),
            cfg_scale=_either(self.cfg_scale, defaults.cfg_scale),
            batch=self.batch,
            seed=random_seed() if self.seed is None else self.seed,
            options=sampler.check_options({**named.options, **self.options}),
            cfg_rescale=self.cfg_rescale,
            cfg_from=self.cfg_from,
            cfg_to=self.cfg_to,
            feature_reuse=self.feature_reuse,
            token_merging=self.token_merging,
            stop_after=self.stop_after,
            **self._size_and_picture(defaults, given),
        )

    def _size_and_picture(self, defaults: Defaults, given: Given | None) -> dict[str, Any]:
        if given is not None:
            return picture_values(self, defaults, given)
        return {
            "width": _either(self.width, defaults.width),
            "height": _either(self.height, defaults.height),
        }


@dataclass(frozen=True, kw_only=True)
class Settings(Extras):
    """What runs: a request with nothing left open. The ranges are those of `Request`.

    None only for what has no use: everything about pictures when there is none, about masks without a mask.
    `sigmas` are None where the noise levels are the schedule's; where they are given, it has no say.
    """

    prompt: str
    negative: str
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
        check_present(self)
        _check_choices(self)
        _check_asked(self)

    def for_image(self, index: int) -> Settings:
        """The settings that give image `index` of this batch alone."""
        if not 0 <= index < self.batch:
            raise IndexError(f"image {index} of a batch of {self.batch}")
        branch = None if self.branch is None else self.branch.for_image(index)
        return dataclasses.replace(self, seed=self.seed + index, batch=1, branch=branch)

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
            f"seed {shown(text)}: must be a whole number between 0 and {max_seed(1)}, or the word random"
        )
    return int(text)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) from "128x96". Raises UserError."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise UserError(f"size {shown(text)}: write it as WIDTHxHEIGHT, for example 128x96")
    width, height = int(match[1]), int(match[2])
    check_size(width, height)
    return width, height


def parse_interval(text: str) -> tuple[float, float]:
    """(from, to) as fractions of the steps, from "0.1:0.8". Raises UserError."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"cfg interval {shown(text)}: write it as FROM:TO, for example 0.1:0.8") from None
    return start, end


def parse_option(text: str) -> tuple[str, str]:
    """(name, value) from "eta=0.5". The value stays text: only the sampler knows what it should be."""
    name, equals, written = text.partition("=")
    name, written = name.strip(), written.strip()
    if not equals or not written or not name.isidentifier():
        raise UserError(f"option {shown(text)}: write it as NAME=VALUE, for example eta=0.5")
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


def _check_choices(record: Defaults | Request | Settings) -> None:
    """The fields that a model can choose."""
    for name in ("sampler", "schedule"):
        if getattr(record, name) is not None:
            check_text(name, getattr(record, name), empty=False)
    if record.steps is not None:
        check_whole("steps", record.steps, 1, MAX_STEPS)
    if record.cfg_scale is not None:
        cfg_scale = check_number("cfg scale", record.cfg_scale, 0.0, MAX_CFG_SCALE)
        object.__setattr__(record, "cfg_scale", cfg_scale)
    check_size(record.width, record.height)


def _check_asked(record: Request | Settings) -> None:
    """The fields that only a person chooses."""
    check_prompt("prompt", check_text("prompt", record.prompt))
    check_prompt("negative prompt", check_text("negative prompt", record.negative))
    check_whole("clip skip", record.clip_skip, 1, MAX_CLIP_SKIP)
    check_whole("batch", record.batch, 1, MAX_BATCH)
    _check_levels(record)
    if record.seed is not None:
        check_whole("seed", record.seed, 0, max_seed(record.batch))
    _check_guidance(record)
    _check_savings(record)
    check_picture_settings(record)
    check_branch(record)
    # A copy of its own, and a plain one: it is pickled, compared and written as JSON.
    object.__setattr__(record, "options", check_options(record.options))


def _check_guidance(record: Request | Settings) -> None:
    for name in ("cfg_rescale", "cfg_from", "cfg_to"):
        value = check_number(name.replace("_", " "), getattr(record, name), 0.0, 1.0)
        object.__setattr__(record, name, value)
    if not record.cfg_from < record.cfg_to:
        raise UserError(
            f"cfg from {record.cfg_from:g} to {record.cfg_to:g}: must rise; cfg scale 1 is no guidance"
        )


def _check_savings(record: Request | Settings) -> None:
    check_whole("feature reuse", record.feature_reuse, 1, MAX_REUSE)
    merging = check_number("token merging", record.token_merging, 0.0, MAX_MERGING)
    object.__setattr__(record, "token_merging", merging)


def _check_levels(record: Request | Settings) -> None:
    """Typed noise levels, and that the number of steps is theirs."""
    if record.sigmas is None:
        return
    sigmas = check_sigmas(record.sigmas)
    if record.steps not in (None, len(sigmas) - 1):
        raise UserError(f"steps {record.steps}: the sigmas make {len(sigmas) - 1} steps; leave steps out")
    object.__setattr__(record, "sigmas", sigmas)
    object.__setattr__(record, "steps", len(sigmas) - 1)


def _check_alone(sampler: SamplerInfo, batch: int) -> None:
    """A sampler that chooses its steps would choose them by all pictures, and none could be repeated."""
    if sampler.adaptive and batch > 1:
        raise UserError(
            f"sampler {sampler.name} chooses its steps by the picture, so it makes one at a time: "
            "set batch to 1, and run it for each seed"
        )


def _either(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def _plain(record: Request | Settings) -> dict[str, Any]:
    """The fields by name, those that came later left out where they say nothing: old recipes stay as they
    are.
    """
    optional = {f.name: f.default for f in dataclasses.fields(Extras)}
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    said = {name: value for name, value in values.items() if name not in optional or value != optional[name]}
    lists = {name: list(value) for name, value in said.items() if isinstance(value, tuple)}
    branch = {} if record.branch is None else {"branch": record.branch.to_dict()}
    return {**said, **lists, **branch, "options": dict(record.options)}
