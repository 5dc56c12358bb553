"""TOML and JSON to frozen dataclasses: an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli

from core.checks import hint
from core.errors import UserError

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError when it cannot be read or is not valid TOML."""
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError when it cannot be read or holds no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not valid JSON ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it must hold an object.")
    return values


def build(kind: type[T], values: object, where: str, *, unknown: Literal["refuse", "ignore"] = "refuse") -> T:
    """An instance of the dataclass `kind`, with nested ones, from a table of TOML or JSON.

    Raises UserError, which names `where`, for an unknown or missing key and for a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a table of names and values.")
    types_by_name = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}  # pyrefly: ignore[bad-argument-type]
    chosen = {}
    for key, value in values.items():
        if key not in known and unknown == "ignore":
            continue
        if key not in known:
            raise UserError(f"{where}: {key!r} is not known{hint(key, known)}")
        chosen[key] = _value(types_by_name[key], value, f"{where}.{key}")
    missing = [
        name
        for name, item in known.items()
        if name not in chosen
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing.")
    try:
        return kind(**chosen)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def override(values: dict[str, Any], assignments: typing.Iterable[str]) -> None:
    """Change nested tables in place by assignments such as "train.unet.steps=100", with values in TOML.
    Raises UserError.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *tables, key = path.strip().split(".")
        try:
            value = tomli.loads(f"value = {text}")["value"] if equals else None
        except tomli.TOMLDecodeError:
            value = text.strip()
        if not equals or not key:
            raise UserError(f"--set {assignment}: write it as KEY=VALUE, for example train.unet.steps=100.")
        table: Any = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {assignment}: {name} is a value, not a table.")
        table[key] = value


def _value(wanted: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        return build(typing.cast("type[Any]", wanted), value, where)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin is typing.Literal and value in arguments:
        return value
    tables = [part for part in arguments if dataclasses.is_dataclass(part)]
    if tables and isinstance(value, Mapping):
        return build(typing.cast("type[Any]", tables[0]), value, where)
    if origin in (typing.Union, types.UnionType) and any(_fits(part, value) for part in arguments):
        return tuple(value) if isinstance(value, list) else value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    raise UserError(f"{where} is {value!r}: it must be {_spoken(wanted)}.")


def _fits(wanted: Any, value: Any) -> bool:
    if typing.get_origin(wanted) is typing.Literal:
        return value in typing.get_args(wanted)
    return type(value) is wanted or (typing.get_origin(wanted) is tuple and isinstance(value, list))


def _spoken(wanted: Any) -> str:
    arguments = typing.get_args(wanted)
    if typing.get_origin(wanted) is typing.Literal:
        return " or ".join(map(repr, arguments))
    if len(arguments) == 2 and arguments[1] is type(None):
        return f"{_spoken(arguments[0])} or nothing"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(wanted, str(wanted))
