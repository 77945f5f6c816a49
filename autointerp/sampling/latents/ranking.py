"""A matrix -> the largest entries of each row in order, ties to the lowest column.

Whole, or block by block from entries that are off by a little: then what can be among the largest.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from autointerp.checkpoints.topk_functions import largest_indices

__all__ = ["Entries", "Largest", "Shortlist", "largest_of", "places_by_row"]


class Largest(NamedTuple):
    """Per row the largest entries, the largest first; equal ones by column."""

    values: Float[Tensor, "row rank"]
    columns: Int[Tensor, "row rank"]


def largest_of(matrix: Float[Tensor, "row column"], count: int) -> Largest:
    """The `count` largest entries of each row, or all of them where a row is shorter."""
    columns = largest_indices(matrix, min(count, matrix.shape[1]))
    values, order = matrix.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return Largest(values, columns.gather(1, order))


class Entries(NamedTuple):
    """Some entries of a matrix."""

    rows: Int[Tensor, " entry"]
    columns: Int[Tensor, " entry"]
    values: Float32[Tensor, " entry"]

    def at(self, chosen: Int[Tensor, " some"] | Bool[Tensor, " entry"]) -> "Entries":
        """Some of them."""
        return Entries(*(part[chosen] for part in self))

    def in_order(self) -> "Entries":
        """By row, and in each from the largest; equal ones as they come."""
        bits = self.values.view(torch.int32).long()
        # Numbers below zero sort backwards by their bits.
        ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        return self.at((self.rows * 2**32 - ascending).argsort(stable=True))


def places_by_row(rows: Int[Tensor, " entry"], row_count: int) -> Int[Tensor, " entry"]:
    """Place of each entry within its row, from 0, where rows are sorted."""
    lengths = torch.bincount(rows, minlength=row_count)
    begins = lengths.cumsum(0) - lengths
    return torch.arange(len(rows), device=rows.device) - begins[rows]


class Shortlist:
    """Entries that can be among the `count` largest of their row, where values are off by at most `error`.

    An entry is dropped only where `count` others of its row, each in its own column, are larger by more than
    2 `error`, and so truly larger. What is left holds the truly largest, ties included.

    Memory: 20 bytes per entry; by `limit`, at most that many and a block's.
    """

    def __init__(
        self, row_count: int, *, count: int, error: float, limit: int, device: torch.device | str
    ) -> None:
        """Start empty.

        Args:
            row_count: of the matrix.
            count: how many of each row are wanted.
            error: of a value, above or below; all values lie in [-1 - error, 1 + error].
            limit: entries held before the list is made shorter.
            device: of the blocks.
        """
        self._row_count, self._count, self._error, self._limit = row_count, count, error, limit
        self.floor = torch.full((row_count,), -2.0, device=device)
        """By row: what is below cannot be among the largest."""
        self._parts: list[Entries] = []
        self._held = 0

    def is_full(self) -> bool:
        """Whether it holds more than the limit."""
        return self._held > self._limit

    def passing(
        self, block: Float32[Tensor, "row column"], first: int
    ) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """Row and column in a block of the entries that can be among the largest, in no certain order.

        The block may be a transposed view. Its rows lie one after another, from row `first`.
        """
        floor = self.floor[first : first + len(block)]
        is_open = floor <= -2
        if block.shape[1] > self._count and is_open.any():
            edge = block[is_open].topk(self._count, dim=1, sorted=False).values.amin(dim=1)
            floor[is_open] = (edge - 2 * self._error).clamp_(min=-2)
        is_transposed = not block.is_contiguous()
        matrix, limits = (block.T, floor) if is_transposed else (block, floor[:, None])
        if block.is_cpu:
            # Few pass: NumPy's single thread is faster than torch's several, above all on a busy machine.
            places = torch.from_numpy(np.flatnonzero(matrix.numpy() >= limits.numpy()))
        else:
            places = (matrix >= limits).flatten().nonzero().squeeze(1)
        outer, inner = places // matrix.shape[1], places % matrix.shape[1]
        return (inner, outer) if is_transposed else (outer, inner)

    def add(self, entries: Entries) -> None:
        """Take in entries, each pair of row and column once."""
        self._parts.append(entries)
        self._held += len(entries.rows)

    def shortened(self) -> Entries:
        """What it holds, by row and from the largest, less what cannot be among the largest by now."""
        entries = Entries(*(torch.cat(parts) for parts in zip(*self._parts, strict=True))).in_order()
        is_edge = places_by_row(entries.rows, self._row_count) == self._count - 1
        rows, values = entries.rows[is_edge], entries.values[is_edge]
        self.floor[rows] = torch.maximum(self.floor[rows], values - 2 * self._error)
        self.replace(entries.at(entries.values >= self.floor[entries.rows]))
        return self._parts[0]

    def replace(self, entries: Entries) -> None:
        """Hold these instead."""
        self._parts, self._held = [entries], len(entries.rows)
