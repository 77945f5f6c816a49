"""A matrix -> the largest entries of each row in order, ties to the lowest column.

Whole, or block by block from entries that are off by a little: then what can be among the largest.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int16
from torch import Tensor

from autointerp.checkpoints.topk_functions import largest_indices

__all__ = ["Entries", "Largest", "Shortlist", "largest_of", "places_by_row"]


_LEAST = -2.0  # less than any cosine


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
    """Entries that can be among the `count` largest of their row, where values are off by a little.

    A value v is off by at most error + relative |v|. With t = v - 2 (1 + 2 relative) (error + relative |v|)
    what shows as less than t is truly less than what shows as v or more, since

        relative (|v| + |t|) + 2 error <= v - t    where relative <= 1/2, as |t| <= |v| + (v - t)

    An entry is dropped only where `count` others of its row, each in its own column, are truly larger by that
    rule. What is left holds the truly largest, ties included.

    Memory: 20 bytes per entry; by `limit`, at most that many and a block's.
    """

    def __init__(
        self,
        row_count: int,
        *,
        count: int,
        error: float,
        relative: float = 0.0,
        limit: int,
        device: torch.device | str,
    ) -> None:
        """Start empty.

        Args:
            row_count: of the matrix.
            count: how many of each row are wanted.
            error: of a value, above or below; all values lie in [-1, 1] but for what they are off by.
            relative: part of a value's size by which it can be off on top of that; at most 0.1.
            limit: entries held before the list is made shorter.
            device: of the blocks.
        """
        self._row_count, self._count, self._limit = row_count, count, limit
        self._error, self._relative = error, relative
        self.floor = torch.full((row_count,), _LEAST, device=device)
        """By row: what is below cannot be among the largest."""
        self._parts: list[Entries] = []
        self._held = 0

    def is_full(self) -> bool:
        """Whether it holds more than the limit."""
        return self._held > self._limit

    def passing(
        self, block: Float[Tensor, "row column"], first: int
    ) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """Row and column in a block of the entries that can be among the largest, in no certain order.

        The block may be a transposed view, and in bfloat16 where it lies in main memory. Its rows lie one
        after another, from row `first`.
        """
        floor = self.floor[first : first + len(block)]
        is_open = floor <= _LEAST
        if block.shape[1] > self._count and is_open.any():
            edge = block[is_open].topk(self._count, dim=1, sorted=False).values.amin(dim=1).float()
            floor[is_open] = self._below(edge).clamp_(min=_LEAST)
        is_transposed = not block.is_contiguous()
        matrix, limits = (block.T, floor) if is_transposed else (block, floor[:, None])
        if block.dtype == torch.bfloat16:
            matrix, limits = matrix.view(torch.int16), _as_bfloat16_bits(limits)
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
        self.floor[rows] = torch.maximum(self.floor[rows], self._below(values))
        self.replace(entries.at(entries.values >= self.floor[entries.rows]))
        return self._parts[0]

    def replace(self, entries: Entries) -> None:
        """Hold these instead."""
        self._parts, self._held = [entries], len(entries.rows)

    def _below(self, values: Float32[Tensor, " entry"]) -> Float32[Tensor, " entry"]:
        """What is less than this is truly less than what shows as these values."""
        slack = 2 * (1 + 2 * self._relative) * (self._error + self._relative * values.abs())
        return values - slack


def _as_bfloat16_bits(limits: Float32[Tensor, "*shape"]) -> Int16[Tensor, "*shape"]:
    """Bits that those of a bfloat16 number at or above the limit are not below, where both are read as int16.

    Above zero bits sort as numbers do, and the upper half of a float32 is the bfloat16 next below. Where a
    limit is not above zero everything passes.
    """
    bits = limits.view(torch.int32) >> 16
    return torch.where(limits > 0, bits, torch.iinfo(torch.int16).min).to(torch.int16)
