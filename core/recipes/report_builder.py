"""Collects the values of a request, and a report line for each key of the source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core.checks import MAX_SIDE, MAX_TEXT, MIN_SIDE, SIDE_MULTIPLE, OptionValue, hint
from core.errors import UserError
from core.prompts.grammars import Read, translated
from core.recipes.opened_recipe import Fate, OpenedRecipe, Program, ReportLine, written
from core.request import aliases
from core.request.fields import MAX_CFG_SCALE, MAX_STEPS
from core.request.request import Request
from core.request.settings import max_seed
from core.sampling.schedule import NoiseSchedule
from core.weights.find import bare_name

if TYPE_CHECKING:
    from core.sampling.registry import Registry, SamplerInfo

MAX_LINES = 2000
CPU = "noise is drawn on the CPU here too: the same seed gives the same noise"
GPU = "GPU noise cannot be reproduced: it is drawn on the CPU here, so the image differs"
Key = tuple[str, object]  # a key and its value, as the source has them
_NAME = 200  # characters; no name is longer
_LARGEST = float(10**9)


class ReportBuilder:
    """Readers call one method per key. A value that cannot be used is reported, never an exception.

    Only `prompt` and `request` raise: for a prompt that is too long, and for values that contradict.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.values: dict[str, Any] = {}
        self.lines: list[ReportLine] = []
        self.model_name: str | None = None
        self.model_hash: str | None = None
        self.reasons: dict[str, str] = {}  # why the value of a key is not known

    def line(self, key: str, value: object, fate: Fate, note: str = "", to: object = "") -> None:
        """Report a key."""
        if len(self.lines) < MAX_LINES:
            self.lines.append(ReportLine(written(key)[:_NAME], written(value), fate, note, written(to)))

    def keep(self, key: str, value: object, note: str = "", **values: Any) -> None:
        """Take the values into the request, and report the key as kept."""
        self.values.update(values)
        self.line(key, value, "kept", note)

    def map(self, key: str, value: object, to: object, note: str, **values: Any) -> None:
        """Take the values, and report what the key became and why."""
        self.values.update(values)
        self.line(key, value, "mapped", note, to)

    def ignore(self, key: str, value: object, note: str) -> None:
        """Report why the key is ignored."""
        unknown = self.reasons.get(key)
        self.line(key, "(linked)" if unknown else value, "ignored", unknown or note)

    def prompt(self, key: str, value: object, field: str, note: str = "") -> None:
        """`prompt` or `negative`. Raises UserError for a text that is too long."""
        if not isinstance(value, str):
            self.ignore(key, value, "is not text")
            return
        if len(value) > MAX_TEXT:
            raise UserError(
                f"the {field} has {len(value)} characters, more than the {MAX_TEXT} allowed; shorten it"
            )
        self.keep(key, value, note, **{field: re.sub("[\0\ud800-\udfff]", "", value)})

    def translated_prompt(self, key: str, value: object, field: str, read: Read, note: str) -> None:
        """`prompt` or `negative` in another program's notation for weights, which `read` reads."""
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            self.prompt(key, value, field)
            return
        try:
            text = translated(value, read)
        except UserError as error:
            self.ignore(key, value, str(error))
            return
        self.prompt(key, text, field)
        if text != value:
            self.lines.pop()
            self.map(key, value, text, note)

    def whole(self, key: str, value: object, field: str, low: int, high: int) -> None:
        """A whole number, clamped to the allowed range."""
        self._ranged(key, value, field, as_whole(value), "is not a whole number", low, high)

    def number(self, key: str, value: object, field: str, low: float, high: float) -> None:
        """A number, clamped to the allowed range."""
        self._ranged(key, value, field, as_number(value), "is not a number", low, high)

    def _ranged(
        self, key: str, value: object, field: str, number: float | None, none: str, low: float, high: float
    ) -> None:
        if number is None:
            self.ignore(key, value, none)
            return
        near = min(max(number, low), high)
        if near == number:
            self.values[field] = number
            self.keep(key, value)
        else:
            self.map(key, value, f"{near:g}", f"{low:g} to {high:g} is the allowed range", **{field: near})

    def steps(self, key: str, value: object) -> None:
        """The inference steps."""
        self.whole(key, value, "steps", 1, MAX_STEPS)

    def cfg_scale(self, key: str, value: object) -> None:
        """The cfg scale."""
        self.number(key, value, "cfg_scale", 0.0, MAX_CFG_SCALE)

    def seed(self, key: str, value: object) -> None:
        """The seed; one that is out of range is mapped to the seed with the same noise.

        PyTorch's CPU generator, which draws the initial noise here and in ComfyUI, uses 32 bits of it.
        """
        number = as_whole(value)
        if number is None:
            self.ignore(key, value, "is not a whole number; a new seed is drawn")
        elif number < 0:
            self.ignore(key, value, "stands for a random seed; a new one is drawn")
        elif number <= max_seed(1):
            self.keep(key, value, seed=number)
        else:
            low = number % 2**32
            note = "out of range here; its low 32 bits give the same CPU noise"
            self.map(key, value, low, note, seed=low)

    def size(self, key: str, value: object, width: object, height: object) -> None:
        """Both sides, rounded to multiples of 8 in the allowed range."""
        wide, high = as_whole(width), as_whole(height)
        if wide is None or high is None or wide < 1 or high < 1:
            self.ignore(key, value, "is not a size in pixels")
            return
        scale = min(1.0, MAX_SIDE / min(max(wide, high), 10**12))
        fitted = tuple(_side(min(side, 10**12) * scale) for side in (wide, high))
        values: dict[str, Any] = dict(zip(("width", "height"), fitted, strict=True))
        if fitted == (wide, high):
            self.keep(key, value, **values)
        else:
            note = f"sides are multiples of {SIDE_MULTIPLE} from {MIN_SIDE} to {MAX_SIDE} here"
            self.map(key, value, f"{fitted[0]}x{fitted[1]}", note, **values)

    def strength(self, key: str, value: object) -> None:
        """The denoising strength; the init image has to be given with the request."""
        number = as_number(value)
        if number is None or not 0 < number <= 1:
            self.ignore(key, value, "must be in (0, 1]")
            return
        steps = self.values.get("steps")
        note = "give the init image"
        if steps is not None and int(steps * number) < 1:
            least = math.ceil(1000 / steps) / 1000
            self.map(key, value, f"{least:g}", f"the smallest value that runs a step; {note}", strength=least)
        else:
            self.keep(key, value, note, strength=number)

    def clip_skip(self, key: str, value: object, layer: int | None, note: str = "") -> None:
        """The layer of the text encoder, counted from the last, which is 1."""
        if layer is None or not 1 <= layer <= 100:
            self.ignore(key, value, "is not a layer of a text encoder")
        elif note:
            self.map(key, value, layer, note, clip_skip=layer)
        else:
            self.keep(key, value, clip_skip=layer)

    def model(self, key: str, value: object) -> None:
        """The model's name."""
        if not isinstance(value, str) or not value.strip():
            self.ignore(key, value, "is not a name")
            return
        self.model_name = bare_name(written(value.strip()))[:_NAME]
        self.keep(key, value, "the model it was made with")

    def hash(self, key: str, value: object) -> None:
        """The SHA-256 of the model's weights, or its first digits."""
        if isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{8}", value):
            self.ignore(
                key, value, "an old hash of 8 digits over a part of the file: it identifies no model here"
            )
        elif isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{10,64}", value):
            self.model_hash = value.lower()
            self.keep(key, value, "identifies the model")
        else:
            self.ignore(key, value, "is not a SHA-256")

    def method(
        self,
        sampler: Key | None,
        schedule: Key | None,
        automatic: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Sampler and schedule, by any program's names.

        `automatic` gives the source program's default schedule for a sampler registered here.
        """
        asked = None if schedule is None else _name(schedule[1])
        theirs = None if sampler is None else _name(sampler[1])
        named = aliases.resolve(theirs, asked, self.registry)
        info = self.registry.samplers.get(named.sampler or "")
        with_suffix = asked is None and named.schedule is not None and info is not None
        if sampler is not None:
            self._sampler(sampler, info, named.options, named.schedule if with_suffix else None)
        if with_suffix:
            self.values["schedule"] = named.schedule
        if schedule is not None and asked is None:
            self.ignore(*schedule, "is not a schedule's name")
        elif asked is not None and named.schedule is not None:
            self._schedule(schedule or ("", ""), named.schedule)
        elif info is not None and named.schedule is None:
            self._automatic(schedule, automatic(info.name))

    def as_in_k_diffusion(self) -> None:
        """Take k-diffusion's form of a sampler that is another by default here; read the sampler first."""
        if self.values.get("sampler") == "dpmpp_3m_sde":
            options = {**self.values.get("options", {}), "form": "k-diffusion"}
            self.map("sampler's form", "(not given)", "k-diffusion", "as that program steps", options=options)

    def without_next_to_last(self) -> None:
        """Sigmas of one step more without the last but one, for programs that leave it out.

        They are those of Stable Diffusion's noise levels. Read the schedule and the steps first.
        """
        steps = self.values.get("steps")
        schedule = self.registry.schedules.get(self.values.get("schedule", ""))
        if steps is None or schedule is None or steps >= MAX_STEPS:
            self.ignore(
                "sigmas", "(not given)", "the last sigma but one is left out there: steps are unknown"
            )
            return
        *sigmas, _, last = schedule.sigmas(NoiseSchedule.from_betas(), steps + 1)
        note = "the grid of one step more without its last sigma but one, as there, for Stable Diffusion"
        self.map("sigmas", "(not given)", f"{steps} steps", note, sigmas=(*sigmas, last))

    def option(self, key: str, value: object, name: str) -> None:
        """An option of the sampler, if the sampler has it; read the sampler first."""
        info = self.registry.samplers.get(self.values.get("sampler", ""))
        option = None if info is None else next((o for o in info.options if o.name == name), None)
        if info is None or option is None:
            who = "no sampler was found" if info is None else f"{info.title} here has no option {name}"
            self.ignore(key, value, who)
            return
        try:
            checked = option.check(value)
        except UserError:
            self.ignore(key, value, f"must be {option.describe()} here")
            return
        self.values["options"] = {**self.values.get("options", {}), name: checked}
        self.line(key, value, "kept", f"the sampler's option {name}")

    def request(self) -> Request:
        """The request. Raises UserError where its values contradict each other."""
        try:
            return Request(**self.values)
        except UserError as error:
            raise UserError(f"its recipe cannot be used ({error})") from error

    def found(self, source: Program) -> OpenedRecipe:
        """The request with its report. Raises UserError as `request` does."""
        return OpenedRecipe(
            source=source,
            request=self.request(),
            model=self.model_name,
            model_hash=self.model_hash,
            report=tuple(self.lines),
        )

    def _sampler(
        self, key: Key, info: SamplerInfo | None, options: Mapping[str, OptionValue], suffix: str | None
    ) -> None:
        if info is None:
            name = _name(key[1])
            known = (known.title for known in self.registry.samplers.values())
            end = hint(name, known).rstrip(".") if name else ""
            self.ignore(*key, f"no sampler of this name is registered; the model's default is used{end}")
            return
        values: dict[str, Any] = {"sampler": info.name} | ({"options": dict(options)} if options else {})
        details = [f"{name} {value}" for name, value in options.items()]
        details += [f"schedule {suffix}"] if suffix else []
        if not details and str(key[1]).strip().casefold() in (info.name.casefold(), info.title.casefold()):
            self.keep(*key, **values)
        else:
            self.map(*key, ", ".join([info.name, *details]), "the same sampler under its name here", **values)

    def _schedule(self, key: Key, name: str) -> None:
        info = self.registry.schedules.get(name)
        if info is None:
            end = hint(name, (known.title for known in self.registry.schedules.values())).rstrip(".")
            self.ignore(*key, f"no schedule of this name is registered; the sampler's default is used{end}")
        elif str(key[1]).strip().casefold() in (info.name.casefold(), info.title.casefold()):
            self.keep(*key, schedule=name)
        else:
            self.map(*key, name, "the same schedule under its name here", schedule=name)

    def _automatic(self, key: Key | None, name: str | None) -> None:
        """No schedule was named: use the source program's default."""
        key = key or ("schedule", "(not given)")
        if name is None or name not in self.registry.schedules:
            self.map(*key, "automatic", "the default of the sampler or the model")
        else:
            self.map(*key, name, "the source program's default for this sampler", schedule=name)


def as_whole(value: object) -> int | None:
    """A whole number from a number or its text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = value.strip() if isinstance(value, str) and len(value) <= 60 else ""
    return int(text.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,40}(\.0*)?", text) else None


def as_number(value: object) -> float | None:
    """A finite number from a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(
        r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*", value[:60]
    ):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST else None  # NaN is in no range


def _name(value: object) -> str | None:
    return value.strip() if isinstance(value, str) and 0 < len(value.strip()) <= _NAME else None


def _side(pixels: float) -> int:
    return min(max(SIDE_MULTIPLE * round(pixels / SIDE_MULTIPLE), MIN_SIDE), MAX_SIDE)
