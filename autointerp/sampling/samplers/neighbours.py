"""Peaks of a latent's neighbours -> contexts in which a neighbour fires and the latent is silent."""

import numpy as np
import polars as pl
from jaxtyping import UInt32

from autointerp.sampling.samplers.chunk_contexts import ChunkContexts, rows_in, silent_rows
from autointerp.sampling.samplers.fan_out import FanOut
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import ReservoirSampler
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["NeighbourSampler"]


class NeighbourSampler(ReservoirSampler):
    """`count` random contexts of each latent and split in which some neighbour of it fires and it does not.

    All such contexts are equally likely, however many neighbours fire there; the focus is the peak of one of
    them, chosen by hash. The population is the number of such contexts. They are hard negatives, not text as
    it comes, so the weight is null. Cost: one hash per neighbour's peak and latent that it is a neighbour of.
    Memory: the blocks of a `FanOut`, and a `Reservoir`.
    """

    name = "neighbours"
    is_silent = True

    def __init__(
        self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int, neighbours: pl.DataFrame
    ) -> None:
        """Start empty.

        Args:
            latents: The chosen ones, sorted.
            count: Rows kept per latent and split.
            seed: Of the draw.
            neighbours: `latent`, `other`; chunks must bring the peaks of every `other`.
        """
        super().__init__(latents=latents, count=count, seed=seed)
        pairs = neighbours.select(pl.col("latent", "other").cast(pl.UInt32)).unique()
        row = rows_in(latents, pairs["latent"].to_numpy())
        other = pairs["other"].to_numpy()[row >= 0]
        self._fan = FanOut(other, row[row >= 0], latent_count=len(latents))

    def add(self, chunk: ChunkView) -> None:
        """Take in the contexts in which neighbours fire."""
        contexts = ChunkContexts.of(chunk)
        firing = contexts.firing_by_context(chunk.peaks, self._latents)
        other, position = (chunk.peaks[name].to_numpy() for name in ("latent", "position"))
        context = rows_in(contexts.ids, chunk.peaks["context"].to_numpy())
        source = rows_in(self._fan.sources, other)
        chance = hashed(self._seed, f"{self.name} focus", other, chunk.peaks["context"].to_numpy())
        order = np.lexsort((chance, context))
        order = order[(context[order] >= 0) & (source[order] >= 0)]
        context, position = context[order], position[order].astype(np.int64)
        for entry, latent_row in self._fan.silent_pairs(source[order], context, firing):
            latent, ids = self._latents[latent_row], contexts.ids[context[entry]]
            rows = silent_rows(
                latent=latent,
                split=contexts.split[context[entry]],
                context=ids,
                position=position[entry],
                key=uniform(hashed(self._seed, self.name, latent, ids)),
            )
            self._reservoir.add(rows)
