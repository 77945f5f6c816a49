"""(group, item, count) -> the most common items of each group, in bounded memory, with bounds on the error.

Counts of a group are exact until it has more distinct items than a cap; then the rarest are dropped, and what
they can have been is remembered. Related: lossy counting (Manku and Motwani 2002), and mergeable summaries
(Agarwal et al. 2013), whose bounds hold, as here, for any order and any tree of merges.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

__all__ = ["BoundedCounts"]

_PENDING_ROWS = 1 << 20


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

    Memory: about 30 bytes per item kept, at most `cap` items a group, and as many rows again, or a million,
    that wait to be added up. Cost: a group-by over what waits, amortised.
    """

    def __init__(self, groups: Mapping[str, Any], *, keep: int, cap: int) -> None:
        """Start empty.

        Args:
            groups: names and types of the columns, one or more, that tell groups apart.
            keep: how many items of a group, the most common of them, are left after a drop.
            cap: how many items a group may have before items are dropped; at least `keep`.

        Raises:
            ValueError: there is no group column, or not 1 <= keep <= cap.
        """
        if not groups or not 1 <= keep <= cap:
            raise ValueError(f"needs a group column and 1 <= keep <= cap, got keep {keep}, cap {cap}")
        self._groups = dict(groups)
        self._names = list(groups)
        self._keep = keep
        self._cap = cap
        self._row_schema = {**groups, "item": pl.Int64, "count": pl.Int64, "credit": pl.Int64}
        self._rows = pl.DataFrame(schema=self._row_schema)
        self._bounds = pl.DataFrame(schema={**groups, "bound": pl.Int64})  # M of groups where it is above 0
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0

    def add(self, frame: pl.DataFrame, *, is_distinct: bool = False) -> None:
        """Count occurrences.

        Args:
            frame: the group columns, `item` (any integer) and `count` (>= 1). Pairs may occur more than once.
            is_distinct: whether they do not, which saves time.
        """
        rows = frame.select(*self._names, "item", "count", credit=pl.lit(0)).cast(self._row_schema)
        self._pending.append(rows if is_distinct else self._added_up([rows]))
        self._pending_rows += self._pending[-1].height
        if self._pending_rows > max(_PENDING_ROWS, self._rows.height):
            self._settle()

    def merge(self, other: "BoundedCounts") -> None:
        """Take in what another one counted.

        Raises:
            ValueError: its group columns are others.
        """
        if other._groups != self._groups:
            raise ValueError(f"counts by {other._names} do not add to counts by {self._names}")
        other._settle()
        bounds = pl.concat([self._bounds, other._bounds])
        self._bounds = bounds.group_by(self._names).agg(pl.col("bound").sum())
        # Bounds of two parts add up; pending rows have none, so that it is no matter when they are added.
        self._pending.append(other._rows)
        self._settle()

    def counts(self, *, is_sorted: bool = True) -> pl.DataFrame:
        """Every item kept: the group columns, `item`, `count`, `undercount` (Int64).

        By group, from the largest count to the smallest, of equal counts by item; else in any order.
        """
        self._settle()
        if self._bounds.height:
            bounded = self._rows.join(self._bounds, on=self._names, how="left")
        else:
            bounded = self._rows.with_columns(bound=pl.lit(0))
        undercount = pl.col("bound").fill_null(0) - pl.col("credit")
        counts = bounded.select(*self._names, "item", "count", undercount=undercount)
        if not is_sorted:
            return counts
        descending = [*(False for _ in self._names), True, False]
        return counts.sort(*self._names, "count", "item", descending=descending)

    def top(self, n: int) -> pl.DataFrame:
        """The n items of each group with the largest counts: as `counts`, and `rank` (UInt32) from 0.

        Of equal counts the smaller item comes first. Truly as common as what is listed can be an item with a
        smaller count and an undercount, or one that is not kept, up to the group's bound: see `dropped`.
        """
        rank = pl.int_range(pl.len(), dtype=pl.UInt32).over(self._names)
        return self.counts().with_columns(rank=rank).filter(pl.col("rank") < n)

    def dropped(self) -> pl.DataFrame:
        """Groups of which items were dropped, with `bound`: no item that is not kept occurred more often."""
        self._settle()
        return self._bounds.sort(self._names)

    def _settle(self) -> None:
        """Add up what waits, then drop what is too much."""
        if self._pending:
            self._rows = self._added_up([self._rows, *self._pending])
            self._pending, self._pending_rows = [], 0
            self._drop_rarest()

    def _added_up(self, parts: list[pl.DataFrame]) -> pl.DataFrame:
        rows = pl.concat(parts)
        return rows.group_by(*self._names, "item").agg(pl.col("count").sum(), pl.col("credit").sum())

    def _drop_rarest(self) -> None:
        """Leave `keep` items of each group that has more than `cap`; raise its bound."""
        crowded = self._rows.group_by(self._names).len().filter(pl.col("len") > self._cap)
        if not crowded.height:
            return
        rank = (-pl.col("count")).rank("ordinal").over(self._names)
        ordered = (
            self._rows.sort("item")
            .join(crowded, on=self._names, how="left", maintain_order="left")
            .with_columns(is_dropped=pl.col("len").is_not_null() & (rank > self._keep))
        )
        # M' - M = max(0, c + d - M) = max(0, c - credit)
        growth = (
            ordered.filter("is_dropped")
            .group_by(self._names)
            .agg(bound=(pl.col("count") - pl.col("credit")).max().clip(lower_bound=0))
        )
        credit = pl.col("credit") + pl.col("bound").fill_null(0)  # d stays, M grew
        self._rows = (
            ordered.filter(~pl.col("is_dropped"))
            .join(growth, on=self._names, how="left")
            .with_columns(credit=credit)
            .select(*self._row_schema)
        )
        bounds = pl.concat([self._bounds, growth])
        self._bounds = bounds.group_by(self._names).agg(pl.col("bound").sum()).filter(pl.col("bound") > 0)
