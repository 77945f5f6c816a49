"""Many latents' graphs as one trie, and where in a text each of them expects what, without a walk per latent.

`Graph.predict` is the reference. Here all places of a text go back together, a token at a time: what is left
of (place, node) pairs after each step is mostly nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from autointerp.explaining.graph_trie import ANY, START, Graph

__all__ = ["GraphHits", "GraphText", "MergedGraphs"]

_BLOCK = 1 << 13
"""Places of a text that are worked on at a time, at most."""
_LOOSE_PAIRS = 1 << 21
"""Pairs of a place and a latent whose first token is a wildcard, at a time."""


class GraphHits(NamedTuple):
    """Where graphs expect something; one entry a place and latent, in any order."""

    place: Int64[np.ndarray, " hit"]
    """Index into the text's tokens."""
    latent: Int64[np.ndarray, " hit"]
    value: Float64[np.ndarray, " hit"]


@dataclass(frozen=True, eq=False)
class GraphText:
    """Texts, one after another."""

    tokens: Int64[np.ndarray, " place"]
    first: Int64[np.ndarray, " place"]
    """Of each token the place where its text begins."""


class MergedGraphs:
    """The graphs of some latents. Memory: about 60 bytes a node."""

    def __init__(self, graphs: Mapping[int, Graph]) -> None:
        """Join them.

        Args:
            graphs: by latent; all with the same match.

        Raises:
            ValueError: matches differ.
        """
        if len({graph.match for graph in graphs.values()}) > 1:
            raise ValueError("graphs of different match cannot be walked together")
        self.latents = np.array(sorted(graphs), dtype=np.int64)
        self._is_longest = any(graph.match == "longest" for graph in graphs.values())
        count = len(self.latents)  # the first nodes are the roots, in the order of latents
        columns = [
            _columns(graphs[latent], root, count + offset)
            for root, (latent, offset) in enumerate(zip(self.latents.tolist(), _offsets(graphs), strict=True))
        ]
        parent, token, value = (
            np.concatenate([part[column] for part in columns]) if columns else np.zeros(0)
            for column in range(3)
        )
        place = count + np.arange(len(token))
        owner = np.repeat(np.arange(count), [len(part[0]) for part in columns])
        size = count + len(token)
        self._value = np.full(size, np.nan)
        self._value[place] = value
        self._any, self._mark = np.full(size, -1, dtype=np.int64), np.full(size, np.nan)
        parent, token = parent.astype(np.int64), token.astype(np.int64)
        is_any, is_mark = token == ANY, token == START
        self._any[parent[is_any]] = place[is_any]
        self._mark[parent[is_mark]] = value[is_mark]
        exact = ~(is_any | is_mark)
        self._width = int(token.max(initial=0)) + 1
        key = parent[exact] * self._width + token[exact]
        order = np.argsort(key)
        self._key, self._child = key[order], place[exact][order]
        # From the roots the other way round: which latents have an edge for a token.
        begins = exact & (parent < count)
        order = np.argsort(token[begins], kind="stable")
        self._begin_token, self._begin = token[begins][order], place[begins][order]
        self._begin_root = owner[begins][order]
        self._loose = np.flatnonzero(self._any[:count] >= 0)
        """Roots with a wildcard: their latents may fire on any token."""

    def hits(self, text: GraphText) -> Iterator[GraphHits]:
        """What the graphs expect, block after block of the text.

        Memory: the pairs of a place and latent that match so far, for 8192 places at a time; latents whose
        first token is a wildcard match everywhere, so where there are many the blocks are smaller.
        """
        block = max(1, min(_BLOCK, _LOOSE_PAIRS // max(1, len(self._loose))))
        for start in range(0, len(text.tokens), block):
            places = np.arange(start, min(start + block, len(text.tokens)))
            place, root, node = self._begun(places, text.tokens[places])
            yield self._walked(text, place, root, node)

    def _begun(
        self, places: Int64[np.ndarray, " place"], tokens: Int64[np.ndarray, " place"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (place, root) with the node that the token at the place leads to."""
        low = np.searchsorted(self._begin_token, tokens, side="left")
        counts = np.searchsorted(self._begin_token, tokens, side="right") - low
        total = int(counts.sum())
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        edge = np.repeat(low, counts) + within
        place, root, node = np.repeat(places, counts), self._begin_root[edge], self._begin[edge]
        if not len(self._loose):
            return place, root, node
        loose_place = np.repeat(places, len(self._loose))
        loose_root = np.tile(self._loose, len(places))
        missing = self._exact(loose_root, np.repeat(tokens, len(self._loose))) < 0
        loose_place, loose_root = loose_place[missing], loose_root[missing]
        return (
            np.concatenate([place, loose_place]),
            np.concatenate([root, loose_root]),
            np.concatenate([node, self._any[loose_root]]),
        )

    def _walked(self, text: GraphText, place: np.ndarray, root: np.ndarray, node: np.ndarray) -> GraphHits:
        best = np.full(len(place), np.nan)
        alive, back = np.arange(len(place)), 0
        while len(alive):
            value = self._value[node]
            ends = ~np.isnan(value)
            best[alive[ends]] = value[ends]
            goes_on = np.ones(len(alive), dtype=bool) if self._is_longest else ~ends
            at = place[alive] - back
            begins = goes_on & (at == text.first[place[alive]])
            mark = self._mark[node[begins]]
            marked = ~np.isnan(mark)
            best[alive[begins][marked]] = mark[marked]
            goes_on &= ~begins
            alive, node = alive[goes_on], node[goes_on]
            back += 1
            token = text.tokens[place[alive] - back]
            child = self._exact(node, token)
            child = np.where(child < 0, self._any[node], child)
            alive, node = alive[child >= 0], child[child >= 0]
        found: Bool[np.ndarray, " pair"] = ~np.isnan(best)
        return GraphHits(place[found], self.latents[root[found]], best[found])

    def _exact(self, node: np.ndarray, token: np.ndarray) -> Int64[np.ndarray, " pair"]:
        """The child by an exact token; -1 where there is none."""
        if not len(self._key):
            return np.full(len(node), -1, dtype=np.int64)
        wanted = node * self._width + token
        at = np.minimum(np.searchsorted(self._key, wanted), len(self._key) - 1)
        # a token beyond the width would be taken for another node's
        return np.where((self._key[at] == wanted) & (token < self._width), self._child[at], -1)


def _offsets(graphs: Mapping[int, Graph]) -> Iterator[int]:
    """Of each graph, by latent, how many nodes those before it have."""
    total = 0
    for latent in sorted(graphs):
        yield total
        total += len(graphs[latent].nodes)


def _columns(graph: Graph, root: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parent, token and value of its nodes, numbered from `first`."""
    parent = np.array([node.parent for node in graph.nodes], dtype=np.int64)
    token = np.array([node.token for node in graph.nodes], dtype=np.int64)
    value = np.array([np.nan if node.value is None else node.value for node in graph.nodes])
    return np.where(parent < 0, root, parent + first), token, value
