"""Follows a graph's links by the rules of the node classes: to a value as ComfyUI computed it, or unknown."""

from __future__ import annotations

from collections.abc import Iterator

from core.checks import MAX_TEXT
from core.recipes.readers.graph import Graph, Link, Node
from core.recipes.readers.node_inputs import NodeInputs, UnknownValueError, named
from core.recipes.readers.node_rules import RULES, Rule

_MOST_HOPS = 200  # of links, one after the other
_MOST_NESTED = 50  # rules whose inputs are computed by rules: far from Python's limit


class NodeValues:
    """The values on the links of a graph. Each output is computed once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[Link, object] = {}
        self._depth = 0

    def value(self, value: object) -> object:
        """A typed value as it is; of a link, what arrives: a value, a bundle, or the link to its maker.

        Raises UnknownValueError.
        """
        if not isinstance(value, Link):
            return value
        if value not in self._known:
            *_, self._known[value] = self.path(value)
        return self._known[value]

    def path(self, value: object) -> Iterator[object]:
        """A link, and what each node on its way passes on, to the maker's link or the value.

        Raises UnknownValueError where a node's class or output is not known.
        """
        for _ in range(_MOST_HOPS):
            rule = self._rule(value) if isinstance(value, Link) else None
            yield value
            if rule is None or not isinstance(value, Link):
                return
            value = self.computed(self.graph.nodes[value.node], rule)
        raise UnknownValueError("through too many nodes")

    def nodes(self, value: object) -> Iterator[Node]:
        """The nodes on the way of a link, nearest first, to the one that makes what it carries."""
        for step in self.path(value):
            if isinstance(step, Link):
                yield self.graph.nodes[step.node]

    def computed(self, node: Node, rule: Rule) -> object:
        """What a rule of a node gives: a value or another link. Raises UnknownValueError."""
        inputs = NodeInputs(node, self.value)
        if self._depth >= _MOST_NESTED:
            raise UnknownValueError("through too many nodes")
        self._depth += 1
        try:
            found = inputs.raw(rule) if isinstance(rule, str) else rule(inputs) if rule else None
        finally:
            self._depth -= 1
        if isinstance(found, str) and len(found) > MAX_TEXT:
            raise UnknownValueError("with a text that is too long")
        return found

    def upstream(self, *starts: object) -> Iterator[Node]:
        """All nodes before these links, nearest first, each once; behind a switch only the chosen ones."""
        return self.graph.upstream(*starts, chosen=self._chosen)

    def _chosen(self, link: Link) -> Link | None:
        try:
            rule = self._rule(link)
            found = self.computed(self.graph.nodes[link.node], rule) if rule is not None else None
        except UnknownValueError:
            return None
        return found if isinstance(found, Link) else None

    def _rule(self, link: Link) -> Rule:
        node = self.graph.nodes.get(link.node)
        if node is None:
            raise UnknownValueError(f"from node {link.node}, which is not in the graph")
        outputs = RULES.get(node.kind)
        if outputs is None:
            raise UnknownValueError(f"from {named(node)}, a class that is not known here")
        if not 0 <= link.slot < len(outputs):
            raise UnknownValueError(f"from an output of {named(node)} that is not known here")
        return outputs[link.slot]
