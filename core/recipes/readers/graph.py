"""A ComfyUI graph: its nodes and links, read from the form that runs, `prompt` (the other: workflow.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_NODES = 5000


class Link(NamedTuple):
    """Where an input comes from: a node, and which of its outputs."""

    node: str
    slot: int


@dataclass
class Node:
    """One node. `inputs` are values or links; `used` names those that were read."""

    id: str
    kind: str
    title: str
    inputs: dict[str, Any]
    used: set[str] = field(default_factory=set)

    def links(self) -> dict[str, Link]:
        """The inputs that come from another node."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}

    def literals(self) -> dict[str, Any]:
        """The inputs that were typed."""
        return {name: value for name, value in self.inputs.items() if not isinstance(value, Link)}


class Graph:
    """Nodes by their ids, in the order of the file."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = dict(nodes)

    @classmethod
    def of_prompt(cls, data: Mapping[str, Any]) -> Graph:
        """From the form that runs: id -> class_type and inputs."""
        nodes: dict[str, Node] = {}
        for name, item in list(data.items())[:MAX_NODES]:
            if not isinstance(item, Mapping) or not isinstance(item.get("class_type"), str):
                continue
            inputs, meta = item.get("inputs"), item.get("_meta")
            title = meta.get("title") if isinstance(meta, Mapping) else None
            nodes[str(name)] = Node(
                str(name),
                item["class_type"][:200],
                title[:200] if isinstance(title, str) else "",
                {
                    str(key): _linked(value)
                    for key, value in (inputs if isinstance(inputs, Mapping) else {}).items()
                },
            )
        return cls(nodes)

    def source(self, link: object) -> Node | None:
        """The node that a link comes from."""
        return self.nodes.get(link.node) if isinstance(link, Link) else None

    def upstream(
        self, *starts: object, chosen: Callable[[Link], Link | None] = lambda _: None
    ) -> Iterator[Node]:
        """All nodes that these links come from, nearest first, each once.

        `chosen` gives the one link that an output passes on, where only one counts.
        """
        seen, shown = set[object](), set[str]()
        waiting = deque(starts)
        while waiting:
            link = waiting.popleft()
            node = self.source(link)
            if node is None or link in seen:
                continue
            assert isinstance(link, Link)
            seen.add(link)
            if node.id not in shown:
                shown.add(node.id)
                yield node
            only = chosen(link)
            if only is not None:
                waiting.append(only)
            elif node.id not in seen:
                seen.add(node.id)
                waiting.extend(node.links().values())


def _linked(value: object) -> object:
    """A link for a list of a node's id and an output's number; other values unchanged."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        node, slot = value
        if isinstance(slot, int) and not isinstance(node, bool) and not isinstance(slot, bool):
            return Link(str(node), slot) if abs(slot) < 1000 and len(str(node)[:400]) < 400 else value
    return value
