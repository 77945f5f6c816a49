"""(source, latent) pairs, entries with a source -> one entry for each context and latent silent there.

A source is what stands for latents: a token at which they peak, a neighbour of theirs.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Int32, Int64, Integer

__all__ = ["FanOut"]

_PAIRS = 2**20  # pairs of entry and latent in a block
_CELLS = 2**22  # pairs of context and latent in a block
_NONE = np.iinfo(np.int32).max


class FanOut:
    """Which latents each source stands for. Memory: 16 bytes per pair of them."""

    def __init__(
        self,
        source: Integer[np.ndarray, " pair"],
        latent_row: Int64[np.ndarray, " pair"],
        *,
        latent_count: int,
    ) -> None:
        """Sort the pairs; none comes twice."""
        order = np.lexsort((latent_row, source))
        self.sources, first, self._fan = np.unique(source[order], return_index=True, return_counts=True)
        self._first = first.astype(np.int64)
        self._latent_row = latent_row[order]
        self._latent_count = latent_count

    def silent_pairs(
        self,
        source_row: Int64[np.ndarray, " entry"],
        context_row: Int64[np.ndarray, " entry"],
        firing: Int64[np.ndarray, " firing"],
    ) -> Iterator[tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]]:
        """Entries and latent rows, a block of contexts at a time.

        Of each context, and each latent that some source in it stands for and that is silent there, the first
        such entry.

        Args:
            source_row: Row in `sources` of each entry.
            context_row: Sorted.
            firing: `context_row * latent_count + latent_row` where a latent fires, sorted.

        Memory: an array of 2**22 numbers (or of one context's latents) and about six of 2**20 (or of one
        context's pairs). Cost: linear in the pairs of entry and latent, and in latents times contexts for
        clearing the array.
        """
        before = np.cumsum(self._fan[source_row]) - self._fan[source_row]
        for begin, end in pairwise(self._bounds(before, context_row)):
            fan = self._fan[source_row[begin:end]]
            entry = np.repeat(np.arange(begin, end), fan)
            within = np.arange(len(entry)) - (before[entry] - before[begin])
            latent_row = self._latent_row[self._first[source_row[entry]] + within]
            origin = context_row[begin] * self._latent_count
            shape = (int(context_row[end - 1] - context_row[begin] + 1) * self._latent_count,)
            fired = firing[slice(*np.searchsorted(firing, [origin, origin + shape[0]]))] - origin
            cell = context_row[entry] * self._latent_count + latent_row - origin
            first = _first_in_each(cell, shape[0], fired)
            yield entry[first], latent_row[first]

    def _bounds(
        self, before: Int64[np.ndarray, " entry"], context_row: Int64[np.ndarray, " entry"]
    ) -> list[int]:
        """Where blocks begin and end: no context is in two of them."""
        if not len(context_row):
            return []
        starts = np.flatnonzero(np.diff(context_row, prepend=-1))
        by_pairs = before[starts] // _PAIRS
        by_cells = context_row[starts] // max(_CELLS // max(self._latent_count, 1), 1)
        is_new = (np.diff(by_pairs, prepend=-1) != 0) | (np.diff(by_cells, prepend=-1) != 0)
        return [*starts[is_new].tolist(), len(context_row)]


def _first_in_each(
    cell: Int64[np.ndarray, " pair"], cells: int, blocked: Int64[np.ndarray, " blocked"]
) -> Int64[np.ndarray, " first"]:
    """The first pair in each cell that is not blocked, without a sort."""
    number = np.arange(len(cell), dtype=np.int32)
    first: Int32[np.ndarray, " cell"] = np.full(cells, _NONE, dtype=np.int32)
    first[cell[::-1]] = number[::-1]  # of several numbers for a cell the last is assigned: the smallest
    first[blocked] = _NONE
    return np.flatnonzero(first[cell] == number)
