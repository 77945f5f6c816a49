"""(group, item, count) -> the most common items of each group, in bounded memory, with bounds on the error.

Counts of a group are exact until it has more distinct items than a cap; then the rarest are dropped, and what
they can have been is remembered. Related: lossy counting (Manku and Motwani 2002), and mergeable summaries
(Agarwal et al. 2013), whose bounds hold, as here, for any order and any tree of merges.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, UInt64

__all__ = ["BoundedCounts"]

_PENDING_ROWS = 1 << 20
_SMALL = 7  # counts up to here are common
_BITS: dict[Any, int] = {pl.UInt8: 8, pl.UInt16: 16, pl.UInt32: 32}


class BoundedCounts:
    """Counts of items by group: `count <= true count <= count + undercount`, 0 where nothing was dropped.

    Why that holds. A summary has a bound M for each group, 0 at first, and for each item that it keeps a
    count c and an undercount d <= M. Let t be the item's true count in all that the summary was fed. It holds
    that

        c <= t <= c + d  for every item kept,    t <= M  for every item not kept.              (*)

    - What is added is itself such a summary: its counts are exact, M = 0 and d = 0.
    - Merging adds up true counts t = t1 + t2. The new M is M1 + M2; counts of an item add up, with c = 0 on a
      side that does not keep it; undercounts add up, with M of its side in place of d where a side does not
      keep it. Adding the inequalities of (*) for the two sides gives (*) for the sum, and d <= M.
    - Dropping items of a group raises M to M' = max(M, max over dropped items of c + d). A dropped item has
      t <= c + d <= M'; for all others (*) is as it was, as M only grew.

    So (*) holds after any steps in any order. `undercount` is d: it is 0 for an item that was there before
    the first drop of its group and was never dropped. Without any drop every M is 0 and every count exact,
    whatever the order.

    The code keeps M - d, the credit, in place of d: it is 0 for what is added, and merging adds credits up
    with 0 on a side that does not keep the item, so that one sum by group and item does all.

    Memory: 32 bytes per item kept, at most `cap` items a group, and as many rows again, or a million, that
    wait to be added up; three times that for a moment. Cost: a sort of 8-byte numbers, one per row, whenever
    what waits is added up, and another where items are dropped.
    """

    def __init__(self, groups: Mapping[str, Any], *, keep: int, cap: int) -> None:
        """Start empty.

        Args:
            groups: names and types of the columns, one or more, that tell groups apart: UInt8, UInt16 or
                UInt32, of 64 bits at most together.
            keep: how many items of a group, the most common of them, are left after a drop.
            cap: how many items a group may have before items are dropped; at least `keep`.

        Raises:
            ValueError: there is no group column, their types are others, or not 1 <= keep <= cap.
        """
        if not groups or not 1 <= keep <= cap:
            raise ValueError(f"needs a group column and 1 <= keep <= cap, got keep {keep}, cap {cap}")
        if sum(_BITS.get(kind, 65) for kind in groups.values()) > 64:
            raise ValueError(f"group columns must be unsigned, of 64 bits together, got {dict(groups)}")
        self._groups = dict(groups)
        self._names = list(groups)
        self._keep = keep
        self._cap = cap
        self._kept = _Counts.none()
        self._bounds = _Counts.none()  # M of groups where it is above 0, as the count of item 0
        self._pending: list[_Counts] = []
        self._pending_rows = 0

    def add(self, frame: pl.DataFrame, *, is_distinct: bool = False) -> None:
        """Count occurrences.

        Args:
            frame: the group columns, `item` (any integer) and `count` (>= 1). Pairs may occur more than once.
            is_distinct: whether they do not, which saves time.
        """
        item, count = (frame[name].cast(pl.Int64).to_numpy() for name in ("item", "count"))
        rows = _Counts(self._packed_groups(frame), item, count, np.zeros(0, np.int64))
        self._pending.append(rows if is_distinct else _with_waiting(_Counts.none(), [rows]))
        self._pending_rows += len(self._pending[-1].item)
        if self._pending_rows > max(_PENDING_ROWS, len(self._kept.item)):
            self._settle()

    def merge(self, other: "BoundedCounts") -> None:
        """Take in what another one counted.

        Raises:
            ValueError: its group columns are others.
        """
        if other._groups != self._groups:
            raise ValueError(f"counts by {other._names} do not add to counts by {self._names}")
        other._settle()
        # Bounds of two parts add up; pending rows have none, so that it is no matter when they are added.
        self._bounds = _added_up([self._bounds, other._bounds])
        self._kept = _added_up([self._kept, other._kept])
        self._settle()

    def counts(self, *, is_sorted: bool = True) -> pl.DataFrame:
        """Every item kept: the group columns, `item`, `count`, `undercount` (Int64).

        By group, from the largest count to the smallest, of equal counts by item; else in any order.
        """
        self._settle()
        counts = self._frame(self._kept)
        return self._in_order(counts) if is_sorted else counts

    def top(self, n: int) -> pl.DataFrame:
        """The n items of each group with the largest counts: as `counts`, and `rank` (UInt32) from 0.

        Of equal counts the smaller item comes first. Truly as common as what is listed can be an item with a
        smaller count and an undercount, or one that is not kept, up to the group's bound: see `dropped`.
        """
        self._settle()
        starts = _run_starts(self._kept.group)
        sizes = np.diff(starts, append=len(self._kept.group))
        is_leading = _are_leading(self._kept.count, starts, np.minimum(sizes, n))
        rank = pl.int_range(pl.len(), dtype=pl.UInt32).over(self._names)
        return self._in_order(self._frame(self._kept.at(is_leading))).with_columns(rank=rank)

    def dropped(self) -> pl.DataFrame:
        """Groups of which items were dropped, with `bound`: no item that is not kept occurred more often."""
        self._settle()
        return pl.DataFrame({**self._group_columns(self._bounds.group), "bound": self._bounds.count})

    def _packed_groups(self, frame: pl.DataFrame) -> UInt64[np.ndarray, " row"]:
        """The group columns as one number, which sorts as they do."""
        group = np.zeros(frame.height, np.uint64)
        for name, kind in self._groups.items():
            group <<= np.uint64(_BITS[kind])
            group |= frame[name].cast(kind).to_numpy()
        return group

    def _group_columns(self, group: UInt64[np.ndarray, " row"]) -> dict[str, pl.Series]:
        columns = {}
        shift = 0
        for name, kind in reversed(self._groups.items()):
            part = group >> np.uint64(shift) & np.uint64(2 ** _BITS[kind] - 1)
            columns[name] = pl.Series(part).cast(kind)
            shift += _BITS[kind]
        return {name: columns[name] for name in self._names}

    def _frame(self, rows: "_Counts") -> pl.DataFrame:
        columns = {"item": rows.item, "count": rows.count, "undercount": self._bounds_of(rows) - rows.credit}
        return pl.DataFrame({**self._group_columns(rows.group), **columns})

    def _bounds_of(self, rows: "_Counts") -> Int64[np.ndarray, " row"]:
        known = self._bounds.group
        if not len(known):
            return np.zeros(len(rows.group), np.int64)
        starts = _run_starts(rows.group)
        groups = rows.group[starts]
        place = np.minimum(np.searchsorted(known, groups), len(known) - 1)
        bound = np.where(known[place] == groups, self._bounds.count[place], 0)
        return np.repeat(bound, np.diff(starts, append=len(rows.group)))

    def _in_order(self, counts: pl.DataFrame) -> pl.DataFrame:
        descending = [*(False for _ in self._names), True, False]
        return counts.sort(*self._names, "count", "item", descending=descending)

    def _settle(self) -> None:
        """Add up what waits, then drop what is too much."""
        if self._pending:
            self._kept = _with_waiting(self._kept, self._pending)
            self._pending, self._pending_rows = [], 0
        self._drop_rarest()

    def _drop_rarest(self) -> None:
        """Leave `keep` items of each group that has more than `cap`; raise its bound."""
        group, _, count, credit = self._kept
        starts = _run_starts(group)
        sizes = np.diff(starts, append=len(group))
        is_crowded = sizes > self._cap
        if not is_crowded.any():
            return
        stays = _are_leading(count, starts, np.where(is_crowded, self._keep, sizes))
        # M' - M = max(0, c + d - M) = max(0, c - credit)
        growth = np.maximum.reduceat(np.where(stays, 0, count - credit), starts)
        credit += np.repeat(growth, sizes)  # d stays, M grew
        self._kept = self._kept.at(stays)
        grown = np.flatnonzero(growth)
        none = np.zeros(len(grown), np.int64)
        self._bounds = _added_up([self._bounds, _Counts(group[starts[grown]], none, growth[grown], none)])


class _Counts(NamedTuple):
    """Rows of a summary, by group and item, each once; in any order and repeated while they wait."""

    group: UInt64[np.ndarray, " row"]
    item: Int64[np.ndarray, " row"]
    count: Int64[np.ndarray, " row"]
    credit: Int64[np.ndarray, " some"]
    """Empty for rows that wait, where it would be 0."""

    @classmethod
    def none(cls) -> "_Counts":
        zeros = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.uint64), zeros, zeros, zeros)

    def at(self, chosen: Bool[np.ndarray, " row"]) -> "_Counts":
        return _Counts(*(part[chosen] for part in self))


def _with_waiting(kept: _Counts, waiting: list[_Counts]) -> _Counts:
    """Kept rows and rows that wait, added up.

    NumPy sorts numbers many times faster than it says in which order they are. So group, item and count of a
    row that waits are sorted as one number. A kept row has the count 0 there and gets its own back at the
    end: kept rows are in order before, and so among themselves they still are.
    """
    parts = [kept, *waiting]
    group, item = (np.concatenate(columns) for columns in zip(*(part[:2] for part in parts), strict=True))
    count = np.concatenate([np.zeros(len(kept.count), np.int64), *(part.count for part in waiting)])
    if not len(group):
        return kept
    least = int(item.min())
    item_bits, count_bits = (int(number).bit_length() for number in (int(item.max()) - least, count.max()))
    if int(group.max()).bit_length() + item_bits + count_bits > 64:
        return _added_up([kept, *(part._replace(credit=np.zeros_like(part.count)) for part in waiting)])
    packed = group
    packed <<= np.uint64(item_bits)
    packed |= (item - least).view(np.uint64)
    packed <<= np.uint64(count_bits)
    packed |= count.view(np.uint64)
    packed.sort()
    count = (packed & np.uint64(2**count_bits - 1)).view(np.int64)
    packed >>= np.uint64(count_bits)
    starts = _run_starts(packed)
    was_kept = count == 0
    count[was_kept] = kept.count
    credit = np.zeros(len(starts), np.int64)
    credit[was_kept[starts]] = kept.credit  # of equal numbers that of the kept row comes first
    distinct = packed[starts]
    item = (distinct & np.uint64(2**item_bits - 1)).view(np.int64) + least
    return _Counts(distinct >> np.uint64(item_bits), item, np.add.reduceat(count, starts), credit)


def _added_up(parts: list[_Counts]) -> _Counts:
    """The same for rows with credits, and for any numbers."""
    group, item, count, credit = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not len(group):
        return _Counts.none()
    order = np.lexsort((item, group))
    group, item = group[order], item[order]
    starts = np.flatnonzero(np.append(True, (group[1:] != group[:-1]) | (item[1:] != item[:-1])))
    sums = (np.add.reduceat(numbers[order], starts) for numbers in (count, credit))
    return _Counts(group[starts], item[starts], *sums)


def _are_leading(
    count: Int64[np.ndarray, " row"], starts: Int64[np.ndarray, " group"], limits: Int64[np.ndarray, " group"]
) -> Bool[np.ndarray, " row"]:
    """Whether each row is among the first of its group by count, the largest first, of equals by place.

    Args:
        count: at least 1.
        starts: where groups begin.
        limits: how many of each group are wanted: 1 to all.
    """
    if not len(starts):
        return np.zeros(0, bool)
    sizes = np.diff(starts, append=len(count))
    owner = np.repeat(np.arange(len(starts)), sizes)
    edge = _edges(count, owner, limits)
    above_edge = count - edge[owner]
    is_above = above_edge > 0
    room = limits - np.add.reduceat(is_above, starts, dtype=np.int64)
    is_equal = above_edge == 0
    place = np.cumsum(is_equal)
    before = place[starts] - is_equal[starts]
    return is_above | (is_equal & (place <= (before + room)[owner]))


def _edges(
    count: Int64[np.ndarray, " row"], owner: Int64[np.ndarray, " row"], limits: Int64[np.ndarray, " group"]
) -> Int64[np.ndarray, " group"]:
    """The smallest count among the `limits` largest ones of each group.

    Most counts are small, and how many there are of each is counted; only where an edge lies above these are
    the larger counts sorted.
    """
    cells = owner * (_SMALL + 1)
    cells += np.minimum(count, _SMALL)
    table = np.bincount(cells, minlength=len(limits) * (_SMALL + 1)).reshape(len(limits), _SMALL + 1)
    as_large = np.cumsum(table[:, ::-1], axis=1)[:, ::-1]
    edge = (as_large >= limits[:, None]).sum(axis=1) - 1
    is_large = edge == _SMALL
    rows = np.flatnonzero((count >= _SMALL) & is_large[owner])
    if not len(rows):
        return edge
    some, group = count[rows], owner[rows]
    starts = _run_starts(group)
    groups = group[starts]
    bits = int(some.max()).bit_length()
    if len(limits).bit_length() + bits < 64:
        mask = 2**bits - 1
        ordered = mask - (np.sort(group << bits | (mask - some)) & mask)
    else:
        ordered = some[np.lexsort((-some, group))]
    edge[groups] = ordered[starts + limits[groups] - 1]
    return edge


def _run_starts(ordered: np.ndarray) -> Int64[np.ndarray, " run"]:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: ordered.size])
