"""Rows with keys -> of each latent, split and stratum the rows of smallest key, and how many there were."""

from typing import Any, ClassVar

import numpy as np
import polars as pl
from jaxtyping import Int64, UInt32

from autointerp.sampling.samplers.sampler import SAMPLE_SCHEMA

__all__ = ["GROUP", "SHARE_OF_POPULATION", "Reservoir", "ReservoirSampler", "as_sample"]

GROUP = ("latent", "split", "stratum")

SHARE_OF_POPULATION = pl.col("population") / pl.len().over(*GROUP)
"""Weight of a row of a uniform sample without replacement: population / kept."""

_GROUP_SCHEMA = {name: SAMPLE_SCHEMA[name] for name in GROUP}
_ROWS: dict[str, Any] = {
    "group": pl.UInt64,  # latent, split and stratum in one number, which sorts and joins faster
    "context": pl.UInt64,
    "position": pl.UInt32,
    "value": pl.Float32,
    "key": pl.Float64,
}
_COUNTS: dict[str, Any] = {"group": pl.UInt64, "population": pl.UInt64}
_LEAST_BUFFER = 2**16  # rows: below, pruning costs more than it saves


class Reservoir:
    """The `count` rows of smallest key of each latent, split and stratum, and the key of the next one.

    Order: key, then context, position and value. A row that comes twice (a document that is twice in the
    corpus) is kept once, with its smaller key; the population counts it as often as it came.

    The state is a function of the set of rows alone: neither their order, nor how they were dealt into frames
    or into reservoirs that were merged, makes a difference.

    Memory: count + 1 rows of 32 bytes per group, as much again in a buffer, and the frame at hand. Cost: a
    join of each frame with the groups' largest keys; the rows that pass it are sorted whenever the buffer is
    as large as the state, so O(log) comparisons per row, amortised. Of n rows in random order, about count *
    (1 + log(n / count)) pass.
    """

    def __init__(self, count: int, *, is_one_per_context: bool = False) -> None:
        """Start empty. Rows of the same context (else: and position) are the same row."""
        self._count = count
        self._identity = ["group", "context"] if is_one_per_context else ["group", "context", "position"]
        self._rows = pl.DataFrame(schema=_ROWS)
        self._limits = pl.DataFrame(schema={"group": pl.UInt64, "limit": pl.Float64})
        self._buffer: list[pl.DataFrame] = []
        self._buffered = 0
        self._populations = pl.DataFrame(schema=_COUNTS)

    def add(self, rows: pl.DataFrame, *, population: pl.DataFrame | None = None) -> None:
        """Take in rows: the columns of GROUP, context, position, value and key.

        Args:
            rows: In any order. No key is null.
            population: GROUP and `population`, where rows that could not enter were left out beforehand. None
                counts the rows.
        """
        packed = rows.select(
            _group().alias("group"), *(pl.col(name).cast(kind) for name, kind in list(_ROWS.items())[1:])
        )
        if population is None:
            counts = packed.group_by("group").agg(population=pl.len().cast(pl.UInt64))
        else:
            counts = population.select(_group().alias("group"), pl.col("population").cast(pl.UInt64))
        self._take(packed, counts)

    def merge(self, other: "Reservoir") -> None:
        """Take in what the other one holds, as if its rows had been added here."""
        if (self._count, self._identity) != (other._count, other._identity):
            raise ValueError("reservoirs of different kinds do not merge")
        self._take(pl.concat([other._rows, *other._buffer]), other._populations)

    def thresholds(self) -> pl.DataFrame:
        """GROUP and `key` of the groups that are full: a row with a larger key cannot enter.

        A row with an equal key can. As of the last pruning, so it may be larger than it has to be.
        """
        return self._limits.select(*_unpacked(), pl.col("limit").alias("key"))

    def kept(self) -> pl.DataFrame:
        """GROUP, context, position, value, key, rank, population and next_key, by group and rank.

        `next_key` is the smallest key that was left out, null where nothing was. A group of which no row came
        has no row, whatever its population.
        """
        self._prune()
        place = _places(self._rows["group"].to_numpy())
        rows = self._rows.with_columns(rank=pl.Series(place, dtype=pl.UInt32))
        following = rows.filter(pl.col("rank") == self._count).select(
            "group", pl.col("key").alias("next_key")
        )
        return (
            rows.filter(pl.col("rank") < self._count)
            .join(following, on="group", how="left", maintain_order="left")
            .join(self._populations, on="group", how="left", maintain_order="left")
            .select(*_unpacked(), *list(_ROWS)[1:], "rank", "population", "next_key")
        )

    def _take(self, rows: pl.DataFrame, counts: pl.DataFrame) -> None:
        self._populations = (
            pl.concat([self._populations, counts]).group_by("group").agg(pl.col("population").sum())
        )
        if self._limits.height:
            limited = rows.join(self._limits, on="group", how="left")
            rows = limited.filter(pl.col("limit").is_null() | (pl.col("key") <= pl.col("limit"))).drop(
                "limit"
            )
        self._buffer.append(rows)
        self._buffered += rows.height
        if self._buffered > max(self._rows.height, _LEAST_BUFFER):
            self._prune()

    def _prune(self) -> None:
        if not self._buffered:
            self._buffer = []
            return
        rows = (
            pl.concat([self._rows, *self._buffer])
            .sort(*_ROW_ORDER)
            .unique(self._identity, keep="first", maintain_order=True)
        )
        place = _places(rows["group"].to_numpy())
        self._rows = rows.filter(pl.Series(place <= self._count))
        last = rows.filter(pl.Series(place == self._count))
        self._limits = last.select("group", pl.col("key").alias("limit"))
        self._buffer, self._buffered = [], 0


class ReservoirSampler:
    """What samplers have in common: a seed, the chosen latents, and a reservoir that merges."""

    is_one_per_context: ClassVar[bool] = True
    """Whether a context is kept once for a latent, split and stratum."""

    def __init__(self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int) -> None:
        """Start empty.

        Args:
            latents: The chosen ones, sorted.
            count: Rows kept per latent, split and stratum.
            seed: Of the draw; of no effect where nothing is drawn.
        """
        self._latents = latents
        self._count = count
        self._seed = seed
        self._reservoir = Reservoir(count, is_one_per_context=self.is_one_per_context)

    def merge(self, other: "ReservoirSampler") -> None:
        """Take in what another one kept of other chunks."""
        self._reservoir.merge(other._reservoir)

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA; weights are null, which stands for no probability sample."""
        return as_sample(self._reservoir.kept())


_ROW_ORDER = ("group", "key", "context", "position", "value")


def as_sample(kept: pl.DataFrame, *, weight: pl.Expr | None = None) -> pl.DataFrame:
    """What `Reservoir.kept` gives -> SAMPLE_SCHEMA; no `weight` stands for null."""
    weights = pl.lit(None) if weight is None else weight
    columns = [pl.col(name).cast(kind) for name, kind in SAMPLE_SCHEMA.items()]
    return kept.with_columns(weight=weights.cast(pl.Float64)).select(columns).sort(*SAMPLE_SCHEMA)


def _group() -> pl.Expr:
    latent, split, stratum = (pl.col(name).cast(pl.UInt64) for name in GROUP)
    return latent * 2**24 + split * 2**16 + stratum


def _unpacked() -> list[pl.Expr]:
    group = pl.col("group")
    parts = (group // 2**24, group // 2**16 % 2**8, group % 2**16)
    return [
        part.cast(kind).alias(name) for part, (name, kind) in zip(parts, _GROUP_SCHEMA.items(), strict=True)
    ]


def _places(groups: np.ndarray) -> Int64[np.ndarray, " row"]:
    """Place of each row in its group, from 0, where groups lie together."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] + np.uint64(1)))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
