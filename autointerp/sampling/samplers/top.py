"""Peaks -> the contexts in which a latent's peak is largest in magnitude."""

import polars as pl

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.reservoir import ReservoirSampler
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["TopSampler"]


class TopSampler(ReservoirSampler):
    """The `count` contexts of largest |value| at the peak, largest first.

    Ties go to the smaller context id, then to the smaller position. Ids are hashes, and the order of the
    corpus is not known to a sampler: among equals that is an arbitrary choice, but the same one in every run.
    No probability sample, so the weight is null. Memory and cost are those of a `Reservoir`.
    """

    name = "top"
    is_silent = False

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's peaks in."""
        peaks = of_latents(chunk.peaks, self._latents)
        key = -pl.col("value").cast(pl.Float64).abs()
        self._reservoir.add(peaks.with_columns(key=key, stratum=pl.lit(0, dtype=pl.Int16)))
