"""A sampler's options, read from its signature: its keyword-only parameters, which need defaults.

    def churned(denoise, x, sigmas, noise, *, eta: Annotated[float, Range(0, 1), "what it does"] = 1.0): ...

An option is a float or an int (with a Range where it has bounds), a bool, or a Literal of strings.
"""

from __future__ import annotations

import inspect
import math
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from core.checks import OptionValue, hint
from core.errors import UserError
from core.sampling.contract import Range

OptionKind = Literal["float", "int", "bool", "choice"]

_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_KINDS: dict[Any, OptionKind] = {float: "float", int: "int", bool: "bool"}


class RegistrationError(Exception):
    """A plugin registers something that breaks the contract. The message is for the plugin's author."""


@dataclass(frozen=True)
class Option:
    """One option of a sampler. `low` and `high` are both allowed values; None means no bound."""

    name: str
    kind: OptionKind
    default: OptionValue
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def check(self, value: object) -> OptionValue:
        """`value` as this option's type, parsed if it is text. Raises UserError if not allowed."""
        found = self._read(value)
        if found is None or not self._inside(found):
            raise UserError(f"Option {self.name} must be {self.describe()}, not {reprlib.repr(value)}.")
        return found

    def describe(self) -> str:
        """The allowed values, as the end of "must be"."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "bool":
            return "true or false"
        noun = "a whole number" if self.kind == "int" else "a number"
        bounds = (self.low, self.high)
        return noun if None in bounds else f"{noun} from {self.low:g} to {self.high:g}"

    def _read(self, value: object) -> OptionValue | None:
        if self.kind == "choice":
            return value if isinstance(value, str) and value in self.choices else None
        if self.kind == "bool":
            return _WORDS.get(value.lower()) if isinstance(value, str) else _bool(value)
        return _number(value, whole=self.kind == "int")

    def _inside(self, value: OptionValue) -> bool:
        if isinstance(value, (bool, str)):
            return True
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def check_options(
    owner: str, options: Iterable[Option], given: Mapping[str, object]
) -> dict[str, OptionValue]:
    """A value for every option, with defaults for those not given. Raises UserError."""
    known = {option.name: option for option in options}
    for name in given:
        if name not in known:
            if not known:
                raise UserError(f"{owner} has no options, so {name!r} cannot be set.")
            raise UserError(f"{owner} has no option {name!r}{hint(name, known)}")
    return {name: option.check(given.get(name, option.default)) for name, option in known.items()}


def read_options(function: Callable[..., object]) -> tuple[Option, ...]:
    """The options of a sampler. Raises RegistrationError, which shows the signature, if it is not one."""
    parameters, shown = _signature(function)
    if not inspect.isgeneratorfunction(function):
        raise RegistrationError(
            f"{shown} is not a generator function: yield a Step for each interval of sigmas"
        )
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    check_positional(function, 4, "denoise, x, sigmas, noise")
    for parameter in options:
        if parameter.default is parameter.empty:
            raise RegistrationError(f"{shown}: option {parameter.name} needs a default")
        if parameter.annotation is parameter.empty:
            raise RegistrationError(
                f"{shown}: option {parameter.name} needs a type, such as {parameter.name}: float"
            )
    try:
        types = _types(function, options)
        return tuple(_option(p.name, types[p.name], p.default) for p in options)
    except RegistrationError as error:
        raise RegistrationError(f"{shown}: {error}") from error


def check_positional(function: Callable[..., object], count: int, names: str) -> None:
    """Raise RegistrationError unless `function` takes exactly `count` positional arguments."""
    parameters, shown = _signature(function)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise RegistrationError(
            f"{shown} takes any arguments; name them ({names}), and each option, one by one"
        )
    if [p for p in positional if p.default is not p.empty]:
        raise RegistrationError(f"{shown} has a default before its options: put `*` after ({names})")
    if len(positional) != count:
        raise RegistrationError(f"{shown} must take ({names}), options after a `*`")


def _signature(function: Callable[..., object]) -> tuple[list[inspect.Parameter], str]:
    """A function's parameters, and how to show it in a message."""
    name = getattr(function, "__qualname__", repr(function))
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise RegistrationError(f"{name} is not a Python function") from error
    return list(signature.parameters.values()), f"{name}{signature}"


def _types(function: Callable[..., object], options: list[inspect.Parameter]) -> dict[str, Any]:
    """Option types, evaluated in the function's own module.

    Only of the options: the other annotations may name imports under TYPE_CHECKING.
    """

    def holder() -> None: ...

    holder.__annotations__ = {p.name: p.annotation for p in options}
    inner: Any = inspect.unwrap(function)
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    try:
        return typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)
    except Exception as error:
        reason = f"the type of an option cannot be read ({error}); import what it names outside TYPE_CHECKING"
        raise RegistrationError(reason) from error


def _option(name: str, annotation: Any, default: Any) -> Option:
    extras: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        extras = tuple(rest)
    text = next((extra for extra in extras if isinstance(extra, str)), "")
    bounds = next((extra for extra in extras if isinstance(extra, Range)), None)
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    kind = "choice" if choices and all(isinstance(c, str) for c in choices) else _KINDS.get(annotation)
    if kind is None:
        raise RegistrationError(
            f"option {name} must be a float, int, bool or a Literal of strings, not {annotation}"
        )
    option = Option(name, kind, default, choices=choices, help=text)
    if bounds is not None:
        if kind not in ("float", "int"):
            raise RegistrationError(f"option {name} has a Range, which only a float or an int can have")
        option = replace(option, low=bounds.low, high=bounds.high, step=bounds.step)
    return replace(option, default=_checked_default(option))


def _checked_default(option: Option) -> OptionValue:
    if isinstance(option.default, str) == (option.kind == "choice"):
        try:
            return option.check(option.default)
        except UserError:
            pass
    raise RegistrationError(
        f"the default of option {option.name} must be {option.describe()}, not {option.default!r}"
    )


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object, *, whole: bool) -> float | int | None:
    """A finite number; None if `value` is not one, or not whole when `whole`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        if whole and not isinstance(value, float):
            return int(value)
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (whole and number != int(number)):
        return None
    return int(number) if whole else number
