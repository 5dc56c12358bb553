"""The settings that can be axes of a comparison, and the values typed for them, each checked alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.checks import OptionValue, hint, shown
from core.compare.ranges import MOST, Mistakes, join, numbers, whole_numbers, words
from core.errors import UserError
from core.request import aliases
from core.request.parse import parse_size
from core.request.request import Request, random_seed
from core.sampling.options import Option

if TYPE_CHECKING:
    from core.sampling.registry import Registry

TITLES = {
    "sampler": "Sampler",
    "schedule": "Schedule",
    "steps": "Steps",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "prompt": "Prompt S/R",
    "strength": "Strength",
    "cfg_rescale": "CFG rescale",
    "cfg_from": "CFG from",
    "cfg_to": "CFG to",
    "clip_skip": "Clip skip",
    "feature_reuse": "Feature reuse",
    "token_merging": "Token merging",
    "size": "Size",
    "model": "Model",
}
# Example values for each setting.
EXAMPLES = {
    "sampler": "ddim, heun, DPM++ 2M Karras; or all",
    "schedule": "karras, leading; or all",
    "steps": "10-30 (+5)",
    "cfg_scale": "1, 3-9 (+2)",
    "seed": "1-4; -1 for a random one",
    "prompt": 'red, blue, "dark, dirty green": the others replace the first',
    "strength": "0.2-1 [5]",
    "cfg_rescale": "0, 0.35, 0.7",
    "cfg_from": "0-0.4 (+0.1)",
    "cfg_to": "0.6-1 (+0.1)",
    "clip_skip": "1, 2",
    "feature_reuse": "1, 2, 3",
    "token_merging": "0, 0.25, 0.5",
    "size": "128x128, 128x96",
    "model": "all",
}
OPTION = "option:"
ALL = "all"


@dataclass(frozen=True)
class Value:
    """One value of a setting, and its label."""

    value: Any
    label: str


@dataclass(frozen=True)
class Axis:
    """A setting and its values, with the text as typed."""

    setting: str
    title: str
    values: tuple[Value, ...]
    text: str


def choices(registry: Registry) -> list[tuple[str, str]]:
    """(title, name) of every setting that can be an axis: the usual ones, then all samplers' options."""
    usual = [(title, name) for name, title in TITLES.items()]
    return usual + [(title_of(OPTION + name), OPTION + name) for name in sorted(_options(registry))]


def example(setting: str, registry: Registry) -> str:
    """Example values for a setting."""
    if not setting.startswith(OPTION):
        return EXAMPLES.get(setting, "")
    options = _options(registry).get(setting.removeprefix(OPTION), ())
    for option in options:
        if option.choices:
            return ", ".join(option.choices)
        if option.kind == "bool":
            return "true, false"
        if option.low is not None and option.high is not None:
            return f"{option.low:g}-{option.high:g} [3]" if option.kind == "float" else _ints(option)
    return "0, 1"


def every(setting: str, registry: Registry, models: Sequence[str]) -> str:
    """All values of a setting that has a list of choices, as text; empty for other settings."""
    lists: Mapping[str, Iterable[str]] = {
        "sampler": registry.samplers,
        "schedule": registry.schedules,
        "model": models,
    }
    if setting.startswith(OPTION):
        found = _options(registry).get(setting.removeprefix(OPTION), ())
        return join(dict.fromkeys(choice for option in found for choice in _listed(option)))
    return join(lists.get(setting, ()))


def title_of(setting: str) -> str:
    """The title of a setting."""
    if setting.startswith(OPTION):
        return setting.removeprefix(OPTION).replace("_", " ") + " (option)"
    return TITLES.get(setting, setting)


def read_axis(setting: str, text: str, base: Request, registry: Registry, models: Sequence[str] = ()) -> Axis:
    """The typed values of a setting. Raises Mistakes with a sentence for each invalid value."""
    known = {name for _, name in choices(registry)}
    if setting not in known:
        raise Mistakes([f"{shown(setting)} cannot be compared{hint(setting, TITLES)}"])
    if setting in ("sampler", "schedule", "model") and text.strip().lower() == ALL:
        text = every(setting, registry, models)
    plain: _Reader = _option_values if setting.startswith(OPTION) else _field_values
    read = _READERS.get(setting, plain)
    values = read(setting, text, base, registry, models)
    if not values:
        raise Mistakes([f"type its values, for example {example(setting, registry)}"])
    if len(values) > MOST:
        raise Mistakes([f"{len(values)} values: at most {MOST} of one setting"])
    return Axis(setting, title_of(setting), tuple(values), text.strip())


# A reader for each kind: (setting, text, base, registry, models) -> values.


def _field_values(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    """Numbers for a field of the request, checked by the request itself."""
    whole = setting in ("steps", "clip_skip", "feature_reuse")
    read: Callable[[str], Sequence[float]] = whole_numbers if whole else numbers

    def one(number: Any) -> Value:
        dataclasses.replace(base, **{setting: number})
        return Value(number, f"{number:.10g}")

    return _each(read(text), one)


def _seeds(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    """Whole numbers; each "random" or -1 becomes a random seed now."""
    drawn = [random_seed() for part in words(text) if part.lower() in ("-1", "random")]
    rest = join(part for part in words(text) if part.lower() not in ("-1", "random"))

    def one(seed: int) -> Value:
        dataclasses.replace(base, seed=seed)
        return Value(seed, str(seed))

    return _each(whole_numbers(rest), one) + [Value(seed, str(seed)) for seed in drawn]


def _samplers(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    def read(name: str) -> Value:
        named = aliases.resolve(name, None, registry)
        info = registry.sampler(named.sampler or name)
        plain = not named.options and named.schedule is None
        return Value(info.name if plain else name, info.title if plain else name)

    return _each(words(text), read)


def _schedules(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    if base.sigmas is not None:
        raise Mistakes(["has no effect while noise levels are typed; clear them"])

    def read(name: str) -> Value:
        found = aliases.resolve(None, name, registry).schedule
        info = registry.schedule(found or name)
        return Value(info.name, info.title)

    return _each(words(text), read)


def _models(setting: str, text: str, base: Request, registry: Registry, models: Sequence[str]) -> list[Value]:
    def read(name: str) -> Value:
        if name not in models:
            raise UserError(f"there is no model {shown(name)}{hint(name, models)}")
        return Value(name, name)

    return _each(words(text), read)


def _sizes(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    def read(part: str) -> Value:
        width, height = parse_size(part)
        return Value((width, height), f"{width}×{height}")

    return _each(words(text), read)


def _replacements(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    """Search and replace: the first value is searched for, the other values replace it."""
    found = words(text)
    if not found:
        return []
    if len(found) < 2:
        raise Mistakes([f"type a comma after {shown(found[0])}, then the words that replace it"])
    old = found[0]
    if not old or (old not in base.prompt and old not in base.negative):
        raise Mistakes([f"{shown(old)} is in neither prompt; start with words of the prompt"])

    def read(new: str) -> Value:
        dataclasses.replace(
            base, prompt=base.prompt.replace(old, new), negative=base.negative.replace(old, new)
        )
        return Value((old, new), new or "(nothing)")

    return _each(found, read)


def _option_values(setting: str, text: str, base: Request, registry: Registry, models: Any) -> list[Value]:
    """Values by the kind of the option; whether each cell's sampler has the option is checked later."""
    options = _options(registry)[setting.removeprefix(OPTION)]
    kinds = {option.kind for option in options}
    read: Callable[[str], Sequence[Any]] = words
    if kinds == {"int"}:
        read = whole_numbers
    elif kinds <= {"int", "float"}:
        read = numbers

    def one(value: Any) -> Value:
        for option in options[:-1]:
            try:
                return _said(option.check(value))
            except UserError:
                continue
        return _said(options[-1].check(value))

    return _each(read(text), one)


_Reader = Callable[[str, str, Request, "Registry", Sequence[str]], list[Value]]
_READERS: dict[str, _Reader] = {
    "seed": _seeds,
    "sampler": _samplers,
    "schedule": _schedules,
    "model": _models,
    "size": _sizes,
    "prompt": _replacements,
}


def _each(parts: Iterable[Any], read: Callable[[Any], Value]) -> list[Value]:
    """Read every part; all errors are reported together."""
    values, mistakes = [], []
    for part in parts:
        try:
            values.append(read(part))
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise Mistakes(mistakes)
    return list({value.label: value for value in values}.values())


def _said(value: OptionValue) -> Value:
    if isinstance(value, bool):
        return Value(value, str(value).lower())
    return Value(value, value if isinstance(value, str) else f"{value:.10g}")


def _options(registry: Registry) -> dict[str, tuple[Option, ...]]:
    """All options by name; samplers may define one name differently."""
    found: dict[str, dict[Option, None]] = {}
    for info in registry.samplers.values():
        for option in info.options:
            found.setdefault(option.name, {})[option] = None
    return {name: tuple(options) for name, options in found.items()}


def _listed(option: Option) -> Sequence[str]:
    return ("true", "false") if option.kind == "bool" else option.choices


def _ints(option: Option) -> str:
    assert option.low is not None
    assert option.high is not None
    return f"{option.low:g}-{min(option.high, option.low + 3):g}"
