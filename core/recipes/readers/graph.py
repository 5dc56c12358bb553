"""A ComfyUI graph: its nodes and links, read from either form, `prompt` or `workflow`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.checks import MAX_TEXT

MAX_NODES = 5000
_HOPS = 50
_MOST_JOINTS = 100  # of texts: each of the two joined may be joined from two more
_CONTROL = ("fixed", "increment", "decrement", "randomize")

# The order of a node's widgets in `workflow`, for files that do not name them. None: the widget after a seed.
_WIDGETS: dict[str, tuple[str | None, ...]] = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", None, "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "RandomNoise": ("noise_seed", None),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "VAELoader": ("vae_name",),
    "RescaleCFG": ("multiplier",),
    "LoadImage": ("image",),
    "PrimitiveNode": ("value",),
}


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
        self._joints = 0

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

    @classmethod
    def of_workflow(cls, data: Mapping[str, Any]) -> Graph:
        """From the form that is edited: nodes with widgets, and a list of links. Muted nodes are left out."""
        links = {row[0]: Link(str(row[1]), row[2]) for row in _rows(data.get("links"))}
        nodes: dict[str, Node] = {}
        items = data.get("nodes")
        for item in (items if isinstance(items, list) else [])[:MAX_NODES]:
            if (
                not isinstance(item, Mapping)
                or not isinstance(item.get("type"), str)
                or item.get("mode") == 2
            ):
                continue
            name, title = item.get("id"), item.get("title")
            if isinstance(name, int | str):
                kind = item["type"][:200]
                shown = title[:200] if isinstance(title, str) else ""
                nodes[str(name)] = Node(str(name), kind, shown, _inputs(item, kind, links))
        return cls(nodes)

    def source(self, link: object) -> Node | None:
        """The node that a link comes from."""
        return self.nodes.get(link.node) if isinstance(link, Link) else None

    def upstream(self, *starts: object) -> Iterator[Node]:
        """All nodes that these links come from, nearest first, each once."""
        seen: set[str] = set()
        waiting = deque(starts)
        while waiting:
            node = self.source(waiting.popleft())
            if node is not None and node.id not in seen:
                seen.add(node.id)
                yield node
                waiting.extend(node.links().values())

    def literal(self, value: object, kinds: tuple[type, ...]) -> object:
        """A value, or the first of these kinds in the nodes that it comes from; None when there is none.

        A text may be joined from several; one that is too long for a prompt may be cut.
        """
        for _ in range(_HOPS):
            node = self.source(value)
            if node is None:
                break
            found = self._in(node, kinds)
            value = found if found is not None else next(iter(node.links().values()), None)
        return value if isinstance(value, kinds) and not isinstance(value, bool) else None

    def _in(self, node: Node, kinds: tuple[type, ...]) -> object:
        if str in kinds and "string_a" in node.inputs and self._joints < _MOST_JOINTS:
            self._joints += 1
            parts = [self.literal(node.inputs.get(name), kinds) for name in ("string_a", "string_b")]
            node.used |= {"string_a", "string_b", "delimiter"}
            delimiter = node.inputs.get("delimiter")
            joint = delimiter if isinstance(delimiter, str) else ""
            return joint.join(part for part in parts if isinstance(part, str))[: MAX_TEXT + 1]
        for name, value in node.inputs.items():
            if isinstance(value, kinds) and not isinstance(value, bool):
                node.used.add(name)
                return value
        return None


def _linked(value: object) -> object:
    """A link for a list of a node's id and an output's number; other values unchanged."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        node, slot = value
        if isinstance(slot, int) and not isinstance(node, bool) and not isinstance(slot, bool):
            return Link(str(node), slot) if abs(slot) < 1000 and len(str(node)[:400]) < 400 else value
    return value


def _rows(links: object) -> Iterator[list[Any]]:
    for row in links if isinstance(links, list) else ():
        if not isinstance(row, list) or len(row) < 3:
            continue
        if isinstance(row[0], int) and isinstance(row[1], int | str) and isinstance(row[2], int):
            yield row


def _inputs(item: Mapping[str, Any], kind: str, links: Mapping[int, Link]) -> dict[str, Any]:
    """A node's inputs by name: widgets, then links, which take precedence."""
    values = item.get("widgets_values")
    slots = [slot for slot in _list(item.get("inputs")) if isinstance(slot, Mapping)]
    inputs: dict[str, Any] = {}
    if isinstance(values, Mapping):
        inputs.update({str(name): value for name, value in values.items()})
    elif isinstance(values, list):
        inputs.update(_named(values, kind, slots))
    for index, slot in enumerate(slots):
        link, name = slot.get("link"), slot.get("name")
        if isinstance(link, int) and link in links:
            inputs[name if isinstance(name, str) and name else f"input {index}"] = links[link]
    return inputs


def _named(values: list[Any], kind: str, slots: list[Mapping[str, Any]]) -> dict[str, Any]:
    names: list[str | None] = list(_WIDGETS.get(kind, ()))
    if not names:
        for slot in slots:
            widget = slot.get("widget")
            if isinstance(widget, Mapping) and isinstance(widget.get("name"), str):
                names.append(widget["name"])
                if "seed" in widget["name"] and len(names) < len(values) and values[len(names)] in _CONTROL:
                    names.append(None)
    names += [f"widget {index}" for index in range(len(names), len(values))]
    return {name: value for name, value in zip(names, values, strict=False) if name is not None}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
