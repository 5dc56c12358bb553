"""ComfyUI's `workflow`, the form of a graph that is edited, turned into the nodes that run.

Subgraphs are put in place, muted nodes left out; a bypassed node passes its inputs on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.recipes.readers.graph import MAX_NODES, Link, Node

_MUTED, _BYPASSED = 2, 4
_INPUT, _OUTPUT = -10, -20  # the ids that stand for a subgraph's own inputs and outputs
_MOST_NESTED = 20
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


def nodes_of(data: Mapping[str, Any]) -> dict[str, Node]:
    """The nodes by id; those of a subgraph as "its node's id:their id", as in the form that runs."""
    definitions = data.get("definitions")
    listed = _list(definitions.get("subgraphs") if isinstance(definitions, Mapping) else None)
    subgraphs = {
        part["id"]: part for part in listed if isinstance(part, Mapping) and isinstance(part.get("id"), str)
    }
    flat = _Flat(subgraphs)
    flat.add(data, "", {}, 0)
    return flat.finished()


class _Flat:
    """Collects the nodes of a workflow and of the subgraphs in it."""

    def __init__(self, subgraphs: Mapping[str, Mapping[str, Any]]) -> None:
        self.subgraphs = subgraphs
        self.nodes: dict[str, Node] = {}
        self.muted: set[str] = set()
        self.outputs: dict[Link, object] = {}  # of a subgraph's node: what is linked to them inside
        self.room = 20 * MAX_NODES  # for nodes and links, those of subgraphs each time that they are used

    def add(self, data: Mapping[str, Any], prefix: str, given: Mapping[int, object], depth: int) -> None:
        """The nodes of one level. `given`: what comes in at the inputs of the subgraph."""
        links: dict[int, object] = {}
        kinds: dict[str, dict[int, str]] = {}  # by node and output
        for link, origin, slot, target, end, kind in _rows(data.get("links")):
            self.room -= 1
            if self.room < 0:
                return
            source = given.get(slot) if origin == _INPUT else Link(f"{prefix}{origin}", slot)
            links[link] = source
            kinds.setdefault(f"{prefix}{origin}", {})[slot] = kind
            if target == _OUTPUT:
                self.outputs[Link(prefix[:-1], end)] = source
        for item in _list(data.get("nodes")):
            self.room -= 1
            if self.room < 0 or len(self.nodes) >= MAX_NODES:
                return
            name = item.get("id") if isinstance(item, Mapping) else None
            if not isinstance(name, int | str) or not isinstance(item.get("type"), str):
                continue
            name = f"{prefix}{name}"
            self._add_node(item, name, links, kinds.get(name, {}), depth)

    def _add_node(
        self,
        item: Mapping[str, Any],
        name: str,
        links: Mapping[int, object],
        kinds: Mapping[int, str],
        depth: int,
    ) -> None:
        kind, mode, title = item["type"][:200], item.get("mode"), item.get("title")
        shown = title[:200] if isinstance(title, str) else ""
        if mode == _MUTED:
            self.muted.add(name)
        elif mode == _BYPASSED:
            self.nodes[name] = Node(name, "(bypassed)", shown or kind, _passed(item, links, kinds))
        elif kind in self.subgraphs and depth < _MOST_NESTED:
            inputs = _inputs(item, kind, links)
            slots = [_name(slot, index) for index, slot in enumerate(_list(item.get("inputs")))]
            given = {index: inputs[slot] for index, slot in enumerate(slots) if slot in inputs}
            self.add(self.subgraphs[kind], f"{name}:", given, depth + 1)
        else:
            self.nodes[name] = Node(name, kind, shown, _inputs(item, kind, links))

    def finished(self) -> dict[str, Node]:
        """With links past subgraphs' borders, from a SetNode to its GetNodes, and none from muted nodes."""
        named: dict[str, dict[str, list[Node]]] = {
            "SetNode": {},
            "GetNode": {},
        }  # KJNodes: a value goes from one to the other by a name
        for node in self.nodes.values():
            if node.kind in named:
                named[node.kind].setdefault(str(next(iter(node.literals().values()), "")), []).append(node)
        for name, setters in named["SetNode"].items():
            source = next(iter(setters[0].links().values()), None)
            if source is not None and len(setters) == 1:
                for node in (*setters, *named["GetNode"].get(name, ())):
                    node.inputs["value"] = source
        for node in self.nodes.values():
            ends = {name: self._end(value) for name, value in node.inputs.items()}
            node.inputs = {
                name: end
                for name, end in ends.items()
                if not (isinstance(end, Link) and end.node in self.muted)
            }
        return self.nodes

    def _end(self, value: object) -> object:
        """Where a link comes from, inside of subgraphs as well."""
        for _ in range(_MOST_NESTED):
            if not isinstance(value, Link) or value not in self.outputs:
                break
            value = self.outputs[value]
        return value


def _rows(links: object) -> Iterator[tuple[int, Any, int, Any, int, str]]:
    """Links as (id, from node, its output, to node, its input, type): rows in older files, or objects."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    for row in _list(links):
        values = [row.get(key) for key in keys] if isinstance(row, Mapping) else row
        if not isinstance(values, list):
            continue
        link, origin, slot, target, end, kind = [*values, None, None, None, None, None, None][:6]
        if isinstance(link, int) and isinstance(origin, int | str) and isinstance(slot, int):
            yield link, origin, slot, target, end if isinstance(end, int) else -1, str(kind)


def _passed(item: Mapping[str, Any], links: Mapping[int, object], kinds: Mapping[int, str]) -> dict[str, Any]:
    """What a bypassed node passes on, by its output: the input of the same place and type, or the first."""
    slots = [slot for slot in _list(item.get("inputs")) if isinstance(slot, Mapping)]
    passed: dict[str, Any] = {}
    for place, kind in kinds.items():
        at = slots[place : place + 1] if place >= 0 else []
        same = [slot["link"] for slot in (*at, *slots) if slot.get("type") == kind and _linked(slot, links)]
        if same:
            passed[str(place)] = links[same[0]]
    return passed


def _linked(slot: Mapping[str, Any], links: Mapping[int, object]) -> bool:
    link = slot.get("link")
    return isinstance(link, int) and links.get(link) is not None


def _name(slot: object, index: int) -> str:
    name = slot.get("name") if isinstance(slot, Mapping) else None
    return name if isinstance(name, str) and name else f"input {index}"


def _inputs(item: Mapping[str, Any], kind: str, links: Mapping[int, object]) -> dict[str, Any]:
    """A node's inputs by name: widgets, then links, which take precedence."""
    values = item.get("widgets_values")
    slots = [slot for slot in _list(item.get("inputs")) if isinstance(slot, Mapping)]
    inputs: dict[str, Any] = {}
    if isinstance(values, Mapping):
        inputs.update({str(name): value for name, value in values.items()})
    elif isinstance(values, list):
        inputs.update(_named(values, kind, slots))
    for index, slot in enumerate(slots):
        if _linked(slot, links):
            inputs[_name(slot, index)] = links[slot["link"]]
    return inputs


def _named(values: list[Any], kind: str, slots: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Widgets by name. Older files name only those that are inputs as well: then nothing is guessed."""
    names: list[str | None] = list(_WIDGETS.get(kind, ()))
    if not names:
        for slot in slots:
            widget = slot.get("widget")
            if isinstance(widget, Mapping) and isinstance(widget.get("name"), str):
                names.append(widget["name"])
                if "seed" in widget["name"] and len(names) < len(values) and values[len(names)] in _CONTROL:
                    names.append(None)
        if len(names) != len(values):
            names = []
    names += [f"widget {index}" for index in range(len(names), len(values))]
    return {name: value for name, value in zip(names, values, strict=False) if name is not None}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
