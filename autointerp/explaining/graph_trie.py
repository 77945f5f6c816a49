"""A latent's graph: paths of tokens, backwards from where it fires, as a trie; its walk, its JSON form."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

from autointerp.errors import BadInputError

__all__ = ["ANY", "GRAPH_VERSION", "MOST_NODES", "START", "Graph", "Node", "Path", "graph_of"]

GRAPH_VERSION = 1
"""Of the JSON form; another number is another form."""
ANY = -1
"""In place of a token's id: any token."""
START = -2
"""In place of a token's id: the text begins here."""
MOST_NODES = 100_000
"""A graph that is read back with more nodes is refused."""

Match = Literal["first", "longest"]


class Path(NamedTuple):
    """What one activation became."""

    tokens: tuple[int, ...]
    """Ids or `ANY`, backwards: the first one is the token on which the latent fires."""
    needs_start: bool
    """Whether the text must begin with the last of them."""
    value: float
    """The latent's strength on the suffix; positive."""


class Node(NamedTuple):
    """One token of a path, or its start mark."""

    parent: int
    """Place of the node nearer to the firing token; -1 for the one that is that token."""
    token: int
    """Id, `ANY` or `START`."""
    value: float | None
    """Of the path that ends here; None where none does."""
    count: int
    """How many activations ended here; the last one's value stays."""


@dataclass(frozen=True)
class Graph:
    """A trie in the order in which its nodes were made: parents come before children."""

    nodes: tuple[Node, ...]
    match: Match = "first"

    @property
    def paths(self) -> Iterator[tuple[Path, int]]:
        """Every path, with the number of activations that ended it, in the order of its last node."""
        for place, node in enumerate(self.nodes):
            if node.value is not None:
                tokens = tuple(self._back(place))[::-1]
                needs_start = node.token == START
                yield Path(tokens[: len(tokens) - needs_start], needs_start, node.value), node.count

    def _back(self, place: int) -> Iterator[int]:
        while place >= 0:
            yield self.nodes[place].token
            place = self.nodes[place].parent

    def predict(self, tokens: Sequence[int]) -> list[float]:
        """The strength that the graph expects on each token of a text.

        From each token backwards: an exact token before a wildcard, no second try. With match `first` the
        first path that ends counts, with `longest` the last; where the text begins before a path ends, its
        start mark must be next. 0 where nothing matches. The reference for `graph_walk`, which does it for
        many latents at once.
        """
        children = self._children()
        return [self._value_at(tokens, place, children) for place in range(len(tokens))]

    def _value_at(
        self, tokens: Sequence[int], place: int, children: Mapping[int, Mapping[int, int]]
    ) -> float:
        node, best = -1, 0.0
        for token in tokens[place::-1]:
            below = children.get(node, {})
            found = below.get(token, below.get(ANY))
            if found is None:
                return best
            node = found
            value = self.nodes[node].value
            if value is not None:
                best = value
                if self.match == "first":
                    return best
        mark = children.get(node, {}).get(START)
        return best if mark is None else self.nodes[mark].value or 0.0

    def _children(self) -> dict[int, dict[int, int]]:
        found: dict[int, dict[int, int]] = {}
        for place, node in enumerate(self.nodes):
            found.setdefault(node.parent, {})[node.token] = place
        return found

    def relabelled(self, names: Mapping[int, int]) -> "Graph":
        """The graph with other ids; paths that become equal are one, with the later one's value."""
        made = _Trie()
        for path, count in self.paths:
            made.add(path._replace(tokens=tuple(names.get(token, token) for token in path.tokens)), count)
        return Graph(made.frozen(), self.match)

    def to_json(self, texts: Mapping[int, str]) -> dict[str, Any]:
        """The graph as JSON-able data, with the text of each of its tokens."""
        used = sorted({node.token for node in self.nodes if node.token >= 0})
        return {
            "kind": "neuron_graph",
            "version": GRAPH_VERSION,
            "match": self.match,
            "nodes": [[*node[:2], _rounded(node.value), node.count] for node in self.nodes],
            "texts": [[token, texts[token]] for token in used],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> tuple["Graph", dict[int, str]]:
        """The graph that `to_json` wrote, and its tokens' texts.

        Raises:
            BadInputError: it is no such graph, of another version, or damaged.
        """
        if data.get("kind") != "neuron_graph" or data.get("version") != GRAPH_VERSION:
            raise BadInputError(
                f"no neuron graph of version {GRAPH_VERSION}", remedy="build the graphs again"
            )
        try:
            nodes = _checked_nodes(data["nodes"])
            texts = _checked_texts(data["texts"])
            if data["match"] not in ("first", "longest"):
                raise ValueError("match")
            if not {node.token for node in nodes if node.token >= 0} <= texts.keys():
                raise ValueError("a token has no text")
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            raise BadInputError(
                f"a damaged neuron graph ({type(fault).__name__})", remedy="build the graphs again"
            ) from fault
        return Graph(nodes, data["match"]), texts


def graph_of(paths: Iterable[Path], *, match: Match = "first") -> Graph:
    """The trie of some paths, in their order: of equal paths the last one's value stays."""
    made = _Trie()
    for path in paths:
        made.add(path, 1)
    return Graph(made.frozen(), match)


class _Trie:
    """A trie in the making."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], int] = {}
        self._ends: dict[int, tuple[float, int]] = {}

    def add(self, path: Path, count: int) -> None:
        node = -1
        for token in (*path.tokens, *((START,) if path.needs_start else ())):
            node = self._places.setdefault((node, token), len(self._places))
        self._ends[node] = (path.value, count + self._ends.get(node, (0.0, 0))[1])

    def frozen(self) -> tuple[Node, ...]:
        return tuple(
            Node(parent, token, *self._ends.get(place, (None, 0)))
            for (parent, token), place in self._places.items()
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _checked_nodes(rows: Any) -> tuple[Node, ...]:
    if not isinstance(rows, list) or len(rows) > MOST_NODES:
        raise ValueError("nodes")
    nodes: list[Node] = []
    seen: set[tuple[int, int]] = set()
    for place, (parent, token, value, count) in enumerate(rows):
        if not (type(parent) is type(token) is type(count) is int):
            raise TypeError("not a whole number")
        if not (-1 <= parent < place and START <= token < 2**31 and 0 <= count < 2**31):
            raise ValueError("out of range")
        if (parent, token) in seen or (parent >= 0 and nodes[parent].token == START):
            raise ValueError("no trie")
        if value is None and token == START:
            raise ValueError("a start mark without a value")
        seen.add((parent, token))
        nodes.append(Node(parent, token, None if value is None else _checked_value(value), count))
    return tuple(nodes)


def _checked_value(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("no number")
    if not (isfinite(value) and value > 0):
        raise ValueError("out of range")
    return float(value)


def _checked_texts(rows: Any) -> dict[int, str]:
    if not isinstance(rows, list) or len(rows) > MOST_NODES:
        raise ValueError("texts")
    if any(type(token) is not int or type(text) is not str for token, text in rows):
        raise TypeError("no text")
    return dict(rows)
