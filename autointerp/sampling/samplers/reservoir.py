"""Rows with keys -> of each latent, split and stratum the rows of smallest key, and how many there were."""

from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Float64, Int64, UInt32, UInt64

from autointerp.sampling.samplers.sampler import SAMPLE_SCHEMA
from autointerp.sampling.samplers.sorting import bits_in_order, order_of, run_starts

__all__ = ["GROUP", "SHARE_OF_POPULATION", "Reservoir", "ReservoirSampler", "as_sample"]

GROUP = ("latent", "split", "stratum")

SHARE_OF_POPULATION = pl.col("population") / pl.len().over(*GROUP)
"""Weight of a row of a uniform sample without replacement: population / kept."""

_LEAST_BUFFER = 2**16  # rows: below, pruning costs more than it saves
_SPLIT_SHIFT, _LATENT_SHIFT = 16, 24  # of a group's number
_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


class Reservoir:
    """The `count` rows of smallest key of each latent, split and stratum, and the key of the next one.

    Order: key, then context, position and value. A row that comes twice (a document that is twice in the
    corpus) is kept once, with its smaller key; the population counts it as often as it came.

    The state is a function of the set of rows alone: neither their order, nor how they were dealt into frames
    or into reservoirs that were merged, makes a difference.

    Memory: count + 1 rows of 32 bytes per group, as much again in a buffer, and the frame at hand. Cost: a
    look-up of each row's group among those that are full; the rows that pass are sorted, by numbers of 8
    bytes, whenever the buffer is as large as the state, so O(log) comparisons per row, amortised. Of n rows
    in random order, about count * (1 + log(n / count)) pass.
    """

    def __init__(self, count: int, *, is_one_per_context: bool = False) -> None:
        """Start empty. Rows of the same context (else: and position) are the same row."""
        self._count = count
        self._is_one_per_context = is_one_per_context
        self._rows = _Rows.none()
        self._full = np.zeros(0, np.uint64)  # groups, ascending
        self._limits = np.zeros(0, np.float64)  # of these
        self._buffer: list[_Rows] = []
        self._buffered = 0
        self._populations = _Populations()

    def add(self, rows: pl.DataFrame, *, population: pl.DataFrame | None = None) -> None:
        """Take in rows: the columns of GROUP, context, position, value and key.

        Args:
            rows: In any order. No key is null or NaN; a value that is NaN counts as null.
            population: GROUP and `population`, where rows that could not enter were left out beforehand. None
                counts the rows.
        """
        taken = _Rows.of(rows)
        if population is None:
            self._populations.count(taken.group)
        else:
            self._populations.add(_groups(population), population["population"].cast(pl.Int64).to_numpy())
        self._take(taken)

    def merge(self, other: "Reservoir") -> None:
        """Take in what the other one holds, as if its rows had been added here."""
        if (self._count, self._is_one_per_context) != (other._count, other._is_one_per_context):
            raise ValueError("reservoirs of different kinds do not merge")
        self._populations.add(*other._populations.all())
        self._take(_Rows.joined([other._rows, *other._buffer]))

    def thresholds(self) -> pl.DataFrame:
        """GROUP and `key` of the groups that are full: a row with a larger key cannot enter.

        A row with an equal key can. As of the last pruning, so it may be larger than it has to be.
        """
        return pl.DataFrame({**_unpacked(self._full), "key": self._limits})

    def kept(self) -> pl.DataFrame:
        """GROUP, context, position, value, key, rank, population and next_key, by group and rank.

        `next_key` is the smallest key that was left out, null where nothing was. A group of which no row came
        has no row, whatever its population.
        """
        self._prune()
        rows = self._rows
        starts = run_starts(rows.group)
        sizes = np.diff(starts, append=len(rows.group))
        place = np.arange(len(rows.group)) - np.repeat(starts, sizes)
        is_full = sizes > self._count
        following = np.full(len(starts), np.nan)
        following[is_full] = rows.key[starts[is_full] + self._count]
        per_group = {"population": self._populations.of(rows.group[starts]), "next_key": following}
        is_kept = place < self._count
        repeats = np.minimum(sizes, self._count)
        columns = {
            **_unpacked(rows.group[is_kept]),
            "context": rows.context[is_kept],
            "position": rows.position[is_kept],
            "value": rows.value[is_kept],
            "key": rows.key[is_kept],
            "rank": pl.Series(place[is_kept], dtype=pl.UInt32),
            **{name: np.repeat(numbers, repeats) for name, numbers in per_group.items()},
        }
        missing = pl.col("value", "next_key").fill_nan(None)
        return pl.DataFrame(columns).with_columns(missing, pl.col("population").cast(pl.UInt64))

    def _take(self, rows: "_Rows") -> None:
        if len(self._full):
            place = np.minimum(np.searchsorted(self._full, rows.group), len(self._full) - 1)
            rows = rows.at((self._full[place] != rows.group) | (rows.key <= self._limits[place]))
        self._buffer.append(rows)
        self._buffered += len(rows.group)
        if self._buffered > max(len(self._rows.group), _LEAST_BUFFER):
            self._prune()

    def _prune(self) -> None:
        if not self._buffered:
            self._buffer = []
            return
        rows = _Rows.joined([self._rows, *self._buffer]).in_order()
        rows = rows.at(_is_first(rows, is_one_per_context=self._is_one_per_context))
        starts = run_starts(rows.group)
        sizes = np.diff(starts, append=len(rows.group))
        is_full = sizes > self._count
        self._full = rows.group[starts[is_full]]
        self._limits = rows.key[starts[is_full] + self._count]
        place = np.arange(len(rows.group)) - np.repeat(starts, sizes)
        self._rows = rows.at(place <= self._count)
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


def as_sample(kept: pl.DataFrame, *, weight: pl.Expr | None = None) -> pl.DataFrame:
    """What `Reservoir.kept` gives -> SAMPLE_SCHEMA; no `weight` stands for null."""
    weights = pl.lit(None) if weight is None else weight
    columns = [pl.col(name).cast(kind) for name, kind in SAMPLE_SCHEMA.items()]
    sample = kept.with_columns(weight=weights.cast(pl.Float64)).select(columns)
    # No two rows of a group have the same context and position, so this is the order by all columns.
    return sample[order_of(_groups(sample), *(sample[name].to_numpy() for name in ("context", "position")))]


class _Rows(NamedTuple):
    """Rows with their groups as numbers."""

    group: UInt64[np.ndarray, " row"]
    context: UInt64[np.ndarray, " row"]
    position: UInt32[np.ndarray, " row"]
    value: Float32[np.ndarray, " row"]
    """NaN for null."""
    key: Float64[np.ndarray, " row"]

    @classmethod
    def none(cls) -> "_Rows":
        kinds = (np.uint64, np.uint64, np.uint32, np.float32, np.float64)
        return cls(*(np.zeros(0, kind) for kind in kinds))

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "_Rows":
        kinds = {"context": pl.UInt64, "position": pl.UInt32, "value": pl.Float32, "key": pl.Float64}
        columns = (frame[name].cast(kind).to_numpy() for name, kind in kinds.items())
        return cls(_groups(frame), *columns)

    @classmethod
    def joined(cls, parts: "list[_Rows]") -> "_Rows":
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def at(self, chosen: Bool[np.ndarray, " row"] | Int64[np.ndarray, " some"]) -> "_Rows":
        return _Rows(*(column[chosen] for column in self))

    def in_order(self) -> "_Rows":
        """By group, key, context, position and value, null first."""
        value = np.where(np.isnan(self.value), np.float32(-np.inf), self.value)
        return self.at(order_of(self.group, bits_in_order(self.key), self.context, self.position, value))


class _Populations:
    """How many rows came of each group. Memory: 16 bytes per group, and twice that while parts wait."""

    def __init__(self) -> None:
        self._groups: list[UInt64[np.ndarray, " group"]] = [np.zeros(0, np.uint64)]
        self._counts: list[Int64[np.ndarray, " group"]] = [np.zeros(0, np.int64)]

    def count(self, groups: UInt64[np.ndarray, " row"]) -> None:
        """One of each, in any order."""
        ordered = np.sort(groups)
        starts = run_starts(ordered)
        self.add(ordered[starts], np.diff(starts, append=len(ordered)))

    def add(self, groups: UInt64[np.ndarray, " group"], counts: Int64[np.ndarray, " group"]) -> None:
        self._groups.append(groups)
        self._counts.append(counts)
        if sum(map(len, self._groups[1:])) > max(len(self._groups[0]), _LEAST_BUFFER):
            self.all()

    def all(self) -> tuple[UInt64[np.ndarray, " group"], Int64[np.ndarray, " group"]]:
        """Groups, ascending, and their counts."""
        if len(self._groups) > 1:
            groups = np.concatenate(self._groups)
            order = np.argsort(groups)
            groups, counts = groups[order], np.concatenate(self._counts)[order]
            starts = run_starts(groups)
            self._groups = [groups[starts]]
            self._counts = [np.add.reduceat(counts, starts) if len(starts) else counts]
        return self._groups[0], self._counts[0]

    def of(self, groups: UInt64[np.ndarray, " group"]) -> Int64[np.ndarray, " group"]:
        """The counts of groups that all came."""
        known, counts = self.all()
        return counts[np.searchsorted(known, groups)]


def _groups(frame: pl.DataFrame) -> UInt64[np.ndarray, " row"]:
    """Latent, split and stratum in one number."""
    latent, split, stratum = (frame[name].to_numpy().astype(np.uint64) for name in GROUP)
    return (latent << np.uint64(_LATENT_SHIFT)) | (split << np.uint64(_SPLIT_SHIFT)) | stratum


def _unpacked(group: UInt64[np.ndarray, " row"]) -> dict[str, pl.Series]:
    split = group >> np.uint64(_SPLIT_SHIFT) & np.uint64(2 ** (_LATENT_SHIFT - _SPLIT_SHIFT) - 1)
    parts = (group >> np.uint64(_LATENT_SHIFT), split, group & np.uint64(2**_SPLIT_SHIFT - 1))
    return {name: pl.Series(part).cast(SAMPLE_SCHEMA[name]) for name, part in zip(GROUP, parts, strict=True)}


def _is_first(rows: _Rows, *, is_one_per_context: bool) -> Bool[np.ndarray, " row"]:
    """Whether no row before is the same one.

    Rows that are the same have the same hash. So where no hash comes twice, which is nearly always and is
    seen from a sort of the hashes alone, all are first; else those with such a hash are looked at.
    """
    hashes = rows.group * np.uint64(_ODD[0]) + rows.context
    hashes ^= hashes >> np.uint64(29)
    if not is_one_per_context:
        hashes += rows.position * np.uint64(_ODD[1])
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    is_first = np.ones(len(hashes), bool)
    if not len(repeated):
        return is_first
    # Both are sorted or few; a look-up of all rows costs less than a sort that says where they come from.
    place = np.minimum(np.searchsorted(repeated, hashes), len(repeated) - 1)
    some = np.flatnonzero(repeated[place] == hashes)
    columns = [rows.group[some], rows.context[some]]
    if not is_one_per_context:
        columns.append(rows.position[some])
    order = np.lexsort(columns)  # stable
    is_same = np.ones(len(some) - 1, bool)
    for column in columns:
        is_same &= column[order][1:] == column[order][:-1]
    is_first[some[order[1:][is_same]]] = False
    return is_first
