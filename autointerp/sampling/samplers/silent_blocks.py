"""Keys of (latent, context) pairs, block by block -> the silent pairs that can enter a reservoir.

Nothing of the size latents times contexts is ever held: a block has at most 2**20 entries, or one
latent's contexts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64, UInt32

from autointerp.sampling.samplers.chunk_contexts import ChunkContexts, rows_in
from autointerp.sampling.samplers.reservoir import GROUP, Reservoir
from autointerp.sampling.samplers.sampler import SPLITS, ChunkView

__all__ = ["PairKeys", "SilentBlocks", "SilentPairs"]

_BLOCK = 2**20  # entries: larger ones leave the cache and gain nothing

PairKeys = Callable[[slice, int, Int64[np.ndarray, " context"]], Float64[np.ndarray, "latent context"]]
"""(rows of latents, split, rows of contexts) -> a fresh array of keys; NaN where there can be no sample."""


@dataclass(frozen=True, eq=False)
class SilentPairs:
    """Some pairs of one split whose keys are small."""

    split: int
    latent_row: Int64[np.ndarray, " pair"]
    context_row: Int64[np.ndarray, " pair"]
    key: Float64[np.ndarray, " pair"]


class SilentBlocks:
    """The silent pairs of one chunk."""

    def __init__(self, chunk: ChunkView, latents: UInt32[np.ndarray, " latent"]) -> None:
        """Look up where the latents fire. Memory: 8 bytes per peak of theirs."""
        self.contexts = ChunkContexts.of(chunk)
        self._latents = latents
        width = max(len(self.contexts.ids), 1)
        firing = self.contexts.firing(chunk.peaks, latents)
        self._firing_latent, self._firing_context = firing // width, firing % width

    def population(self, is_usable: Bool[np.ndarray, "latent split"] | None = None) -> pl.DataFrame:
        """GROUP and `population`: silent contexts of each latent and split, where there are any."""
        counts = self._silent_counts()
        if is_usable is not None:
            counts = np.where(is_usable, counts, 0)
        latent_row, split = np.nonzero(counts)
        columns = {
            "latent": self._latents[latent_row],
            "split": split,
            "population": counts[latent_row, split],
        }
        return (
            pl.DataFrame(columns).with_columns(stratum=pl.lit(0, dtype=pl.Int16)).select(*GROUP, "population")
        )

    def candidates(
        self, reservoir: Reservoir, *, count: int, keys: PairKeys, slack: float = 0.0
    ) -> Iterator[SilentPairs]:
        """The silent pairs whose key may be among the `count + 1` smallest of their latent and split.

        A pair that is not given cannot be; a few are given that are not.

        Args:
            reservoir: Where they go; its thresholds cut off most pairs early.
            count: Rows kept.
            keys: Of a block of pairs.
            slack: By how much keys may be off, where they are approximate.

        Cost: one key per pair of latent and context. While thresholds are still loose a partial sort of each
        block.
        """
        limits = self._limits(reservoir)
        for split in range(len(SPLITS)):
            members = np.flatnonzero(self.contexts.split == split)
            column_of = np.full(len(self.contexts.ids), -1)
            column_of[members] = np.arange(len(members))
            step = max(1, _BLOCK // max(len(members), 1))
            for start in range(0, len(self._latents) if len(members) else 0, step):
                rows = slice(start, min(start + step, len(self._latents)))
                block = keys(rows, split, members)
                self._blot_out_firing(block, rows, column_of)
                row, column = _small(block, limits[rows, split], count=count, slack=slack)
                yield SilentPairs(split, row + start, members[column], block[row, column])

    def _silent_counts(self) -> Int64[np.ndarray, "latent split"]:
        splits, shape = len(SPLITS), (len(self._latents), len(SPLITS))
        cells = self._firing_latent * splits + self.contexts.split[self._firing_context]
        fired = np.bincount(cells, minlength=shape[0] * splits).reshape(shape)
        return np.bincount(self.contexts.split, minlength=splits) - fired

    def _limits(self, reservoir: Reservoir) -> Float64[np.ndarray, "latent split"]:
        thresholds = reservoir.thresholds()
        limits = np.full((len(self._latents), len(SPLITS)), np.inf)
        row = rows_in(self._latents, thresholds["latent"].to_numpy())
        limits[row, thresholds["split"].to_numpy()] = thresholds["key"].to_numpy()
        return limits

    def _blot_out_firing(
        self,
        block: Float64[np.ndarray, "latent context"],
        rows: slice,
        column_of: Int64[np.ndarray, " any_context"],
    ) -> None:
        begin, end = np.searchsorted(self._firing_latent, [rows.start, rows.stop])
        column = column_of[self._firing_context[begin:end]]
        is_member = column >= 0
        block[self._firing_latent[begin:end][is_member] - rows.start, column[is_member]] = np.nan


def _small(
    block: Float64[np.ndarray, "latent context"],
    limits: Float64[np.ndarray, " latent"],
    *,
    count: int,
    slack: float,
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """Row and column of the keys up to the limit, or up to the block's own (count + 1)-th smallest."""
    passing = block <= (limits + slack)[:, None]  # never true of NaN
    if block.shape[1] > count + 1 and np.count_nonzero(passing) > 2 * (count + 1) * len(block):
        own = np.partition(block, count, axis=1)[:, count]  # NaN sorts last, and fmin passes it over
        passing = block <= (np.fmin(limits, own) + 2 * slack)[:, None]
    row, column = np.nonzero(passing)
    return row, column
