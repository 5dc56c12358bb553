"""The inputs of one node of a ComfyUI graph, as the rules of its class see them."""

from __future__ import annotations

from collections.abc import Callable, KeysView
from typing import Any, NoReturn

from core.recipes.readers.graph import Link, Node

_MISSING = object()


class UnknownValueError(Exception):
    """Why a value is not known: the end of a sentence that starts with "comes"."""


class NodeInputs:
    """A node's inputs, as a rule sees them. A missing or unfit one makes the output unknown."""

    def __init__(self, node: Node, follow: Callable[[object], object]) -> None:
        self._node, self.follow = node, follow  # follow: what arrives over a link; a value as it is

    def names(self) -> KeysView[str]:
        """The inputs that the graph gives."""
        return self._node.inputs.keys()

    def raw(self, name: str) -> object:
        """A value or link, as the graph has it."""
        if name not in self._node.inputs:
            self.fail()
        found = self._node.inputs[name]
        if not isinstance(found, Link):
            self._node.used.add(name)
        return found

    def value(self, name: str, default: Any = _MISSING) -> Any:
        """The value, followed along its link."""
        if name not in self._node.inputs and default is not _MISSING:
            return default
        return self.follow(self.raw(name))

    def text(self, name: str, default: str | None = None) -> str:
        """A text."""
        found = self.value(name) if default is None else self.value(name, default)
        return found if isinstance(found, str) else self.fail()

    def whole(self, name: str) -> int:
        """A whole number."""
        found = self.value(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else self.fail()

    def truth(self, name: str) -> bool:
        """True or False."""
        found = self.value(name)
        return found if isinstance(found, bool) else self.fail()

    def number(self, name: str) -> float:
        """A number of reasonable size."""
        found = self.value(name)
        fits = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**64
        return found if fits else self.fail()

    def choose(self, choices: dict[str, str], name: str) -> str:
        """One of the choices."""
        return choices[name] if name in choices else self.fail()

    def fail(self) -> NoReturn:
        """Raises UnknownValueError with the node's name."""
        raise UnknownValueError(f"from {named(self._node)}, whose result cannot be computed here")


def named(node: Node) -> str:
    """A node's class, title and id for a message."""
    title = f" ({node.title})" if node.title and node.title != node.kind else ""
    return f"{node.kind}{title}, node {node.id}"
