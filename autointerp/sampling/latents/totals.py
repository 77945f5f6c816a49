"""A chunk's firings -> totals of every latent: how often, how strongly, first, last, in how many clusters."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Integer, UInt8, UInt32, UInt64

from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["CLUSTER_LIMIT", "TOTALS_SCHEMA", "ContextRows", "LatentTotals"]

TOTALS_SCHEMA = {
    "latent": pl.UInt32,
    "tokens_fired": pl.UInt64,
    "mass": pl.Float64,  # sum of |value|
    "square_sum": pl.Float64,  # sum of value^2
    "mean": pl.Float64,  # of value, sign and all; null where it never fires, as are the next five
    "maximum": pl.Float64,  # of |value|
    "first_context": pl.UInt64,  # in the order of the corpus
    "first_position": pl.UInt32,
    "last_context": pl.UInt64,
    "last_position": pl.UInt32,
    "explain_documents": pl.UInt32,  # distinct clusters of documents
    "validate_documents": pl.UInt32,
    "score_documents": pl.UInt32,
}
"""One row per latent of the dictionary, those that never fire included."""

CLUSTER_LIMIT = 2**30
"""Codes of clusters lie below this: a latent, a cluster and a split share one 64-bit number."""

_SPLIT_BITS = 2  # len(SPLITS) <= 4
_LATENT_SHIFT = 32
_PENDING_PAIRS = 1 << 20
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class ContextRows:
    """What is known of a chunk's contexts, in the order of the corpus: `row` of a firing is an index here."""

    context: UInt64[np.ndarray, " context_row"]
    """Ids."""
    cluster: Integer[np.ndarray, " context_row"]
    """Code of the document's cluster, the same in every chunk; 0 <= code < CLUSTER_LIMIT."""
    split: UInt8[np.ndarray, " context_row"]
    """Index into SPLITS."""
    reaches_over: Bool[np.ndarray, " context_row"]
    """Whether the cluster has documents in several chunks: the same for all its rows in all chunks."""

    def __post_init__(self) -> None:
        """Refuse codes that would run into each other.

        Raises:
            ValueError: a cluster or a split lies out of range.
        """
        if self.cluster.size and not (self.cluster.min() >= 0 and self.cluster.max() < CLUSTER_LIMIT):
            raise ValueError(f"codes of clusters must lie in [0, {CLUSTER_LIMIT})")
        if self.split.size and self.split.max() >= len(SPLITS):
            raise ValueError(f"splits must lie in [0, {len(SPLITS)})")


class LatentTotals:
    """Totals of all latents of one dictionary over the chunks seen; chunks may come in any order.

    Counts, ends and maxima do not depend on the order at all, sums of floats not beyond rounding (64-bit
    sums, about 1e-15 of `mass` per chunk).

    A cluster within one chunk is counted there and forgotten. Of a cluster that reaches over chunks every
    (latent, cluster) pair is kept, 8 bytes each, and counted once at the end. So memory is about 100 bytes
    per latent plus those pairs; the cost of a chunk is one sort of its distinct (latent, context) pairs and a
    few passes over its firings.
    """

    def __init__(self, latent_count: int) -> None:
        """Start with no firing."""
        self._latent_count = latent_count
        self._tokens = np.zeros(latent_count, np.int64)
        self._sum, self._mass, self._squares, self._maximum = np.zeros((4, latent_count))
        self._first = _Outermost(latent_count)
        self._last = _Outermost(latent_count)
        self._clusters = np.zeros(latent_count << _SPLIT_BITS, np.int64)  # by latent and split
        self._pairs = _PairSet()

    def add(
        self,
        latent: UInt32[np.ndarray, " firing"],
        row: UInt32[np.ndarray, " firing"],
        position: UInt32[np.ndarray, " firing"],
        value: np.ndarray,
        *,
        chunk_index: int,
        contexts: ContextRows,
    ) -> None:
        """Take in a chunk's firings, sorted by latent, then row, then position.

        All firings of a latent in a chunk must come in one call; a chunk may be handed over in blocks of
        latents, the same `contexts` with each.

        Args:
            latent: index in the dictionary.
            row: index into `contexts`.
            position: in the context.
            value: the activation (float32): finite, not 0.
            chunk_index: place of the chunk in the corpus; 0 or more.
            contexts: all contexts of the chunk.

        Raises:
            ValueError: the firings are not sorted by latent.
        """
        if not latent.size:
            return
        if (latent[1:] < latent[:-1]).any():
            raise ValueError("firings must be sorted by latent")
        starts = _run_starts(latent)
        ends = np.append(starts[1:], latent.size) - 1
        fired = latent[starts]
        self._tokens[fired] += ends - starts + 1
        self._add_values(fired, starts, value)
        self._first.offer(fired, chunk_index, contexts.context[row[starts]], position[starts])
        self._last.offer(fired, -chunk_index, contexts.context[row[ends]], position[ends])
        self._add_clusters(latent, row, contexts)

    def merge(self, other: "LatentTotals") -> None:
        """Take in the totals of other chunks of the same dictionary.

        Raises:
            ValueError: the dictionaries have not the same number of latents.
        """
        if other._latent_count != self._latent_count:
            raise ValueError(f"totals of {other._latent_count} latents do not add to {self._latent_count}")
        self._tokens += other._tokens
        self._sum += other._sum
        self._mass += other._mass
        self._squares += other._squares
        np.maximum(self._maximum, other._maximum, out=self._maximum)
        self._first.merge(other._first)
        self._last.merge(other._last)
        self._clusters += other._clusters
        self._pairs.merge(other._pairs)

    def frame(self) -> pl.DataFrame:
        """TOTALS_SCHEMA, by latent."""
        clusters = self._clusters + _by_latent_and_split(self._pairs.keys(), self._latent_count)
        by_split = clusters.reshape(self._latent_count, 1 << _SPLIT_BITS)
        columns = {
            "latent": np.arange(self._latent_count),
            "tokens_fired": self._tokens,
            "mass": self._mass,
            "square_sum": self._squares,
            "mean": self._sum / np.maximum(self._tokens, 1),
            "maximum": self._maximum,
            "first_context": self._first.context,
            "first_position": self._first.position,
            "last_context": self._last.context,
            "last_position": self._last.position,
            **{f"{split}_documents": by_split[:, index] for index, split in enumerate(SPLITS)},
        }
        unknown = ["mean", "maximum", "first_context", "first_position", "last_context", "last_position"]
        return (
            pl.DataFrame(columns)
            .cast(TOTALS_SCHEMA)  # type: ignore[arg-type]
            .with_columns(pl.when(pl.col("tokens_fired") > 0).then(pl.col(name)) for name in unknown)
        )

    def _add_values(
        self, fired: UInt32[np.ndarray, " fired"], starts: Int64[np.ndarray, " fired"], value: np.ndarray
    ) -> None:
        size = np.abs(value)
        self._sum[fired] += np.add.reduceat(value, starts, dtype=np.float64)
        self._mass[fired] += np.add.reduceat(size, starts, dtype=np.float64)
        self._squares[fired] += np.add.reduceat(np.square(size, dtype=np.float64), starts)
        self._maximum[fired] = np.maximum(self._maximum[fired], np.maximum.reduceat(size, starts))

    def _add_clusters(
        self,
        latent: UInt32[np.ndarray, " firing"],
        row: UInt32[np.ndarray, " firing"],
        contexts: ContextRows,
    ) -> None:
        """Count the chunk's own clusters; put by the pairs of those that reach over."""
        is_new = np.append(True, (latent[1:] != latent[:-1]) | (row[1:] != row[:-1]))
        rows = row[is_new]
        group = contexts.cluster.astype(np.uint64) << _SPLIT_BITS | contexts.split.astype(np.uint64)
        keys = latent[is_new].astype(np.uint64) << _LATENT_SHIFT | group[rows]
        reaches_over = contexts.reaches_over[rows]
        own = _distinct(keys[~reaches_over])
        self._clusters += _by_latent_and_split(own, self._latent_count)
        self._pairs.add(_distinct(keys[reaches_over]))


class _Outermost:
    """Of each latent the firing of smallest `order`: the first, or by negative order the last."""

    def __init__(self, latent_count: int) -> None:
        self.order = np.full(latent_count, _NEVER)
        self.context = np.zeros(latent_count, np.uint64)
        self.position = np.zeros(latent_count, np.uint32)

    def offer(
        self,
        latent: UInt32[np.ndarray, " fired"],
        order: int | Int64[np.ndarray, " fired"],
        context: UInt64[np.ndarray, " fired"],
        position: UInt32[np.ndarray, " fired"],
    ) -> None:
        """Take one firing of each of some distinct latents."""
        is_better = order < self.order[latent]
        where = latent[is_better]
        self.order[where] = np.broadcast_to(order, latent.shape)[is_better]
        self.context[where] = context[is_better]
        self.position[where] = position[is_better]

    def merge(self, other: "_Outermost") -> None:
        """Keep the better of the two for each latent."""
        every = np.arange(len(self.order), dtype=np.uint32)
        self.offer(every, other.order, other.context, other.position)


class _PairSet:
    """A set of 64-bit keys; sorted anew only when what came in since is as large as what was there."""

    def __init__(self) -> None:
        self._parts = [np.zeros(0, np.uint64)]

    def add(self, keys: UInt64[np.ndarray, " pair"]) -> None:
        self._parts.append(keys)
        pending = sum(part.size for part in self._parts[1:])
        if pending > max(_PENDING_PAIRS, self._parts[0].size):
            self.keys()

    def merge(self, other: "_PairSet") -> None:
        self.add(other.keys())

    def keys(self) -> UInt64[np.ndarray, " pair"]:
        """The distinct keys, sorted."""
        if len(self._parts) > 1:
            self._parts = [_distinct(np.concatenate(self._parts))]
        return self._parts[0]


def _run_starts(ordered: np.ndarray) -> Int64[np.ndarray, " run"]:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: ordered.size])


def _distinct(keys: UInt64[np.ndarray, " key"]) -> UInt64[np.ndarray, " distinct"]:
    ordered = np.sort(keys)
    return ordered[_run_starts(ordered)]


def _by_latent_and_split(keys: UInt64[np.ndarray, " pair"], latent_count: int) -> Int64[np.ndarray, " cell"]:
    """How many of the pairs each latent and split has."""
    split = keys & np.uint64((1 << _SPLIT_BITS) - 1)
    cell = (keys >> _LATENT_SHIFT) << _SPLIT_BITS | split
    return np.bincount(cell.astype(np.int64), minlength=latent_count << _SPLIT_BITS)
