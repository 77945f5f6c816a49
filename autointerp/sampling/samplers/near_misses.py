"""Near misses -> the silent contexts in which a latent came closest to firing."""

import polars as pl

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.reservoir import ReservoirSampler
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["NearMissSampler"]


class NearMissSampler(ReservoirSampler):
    """The `count` silent contexts of smallest margin, smallest first; the focus is where it was smallest.

    It chooses among the near misses that chunks bring, and its population counts those. Whether they are the
    same however text is cut into chunks is up to who puts them there. Ties go to the smaller context id. No
    probability sample, so the weight is null. A latent that a chunk brings none of (its dictionary may have
    no threshold to miss) gets no row.
    """

    name = "near_misses"
    is_silent = True

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's near misses in, those aside in whose context the latent fires after all."""
        misses = of_latents(chunk.near_misses, self._latents)
        silent = misses.join(chunk.peaks, on=["latent", "context"], how="anti")
        self._reservoir.add(
            silent.with_columns(
                key=pl.col("margin").cast(pl.Float64),
                value=pl.lit(None, dtype=pl.Float32),
                stratum=pl.lit(0, dtype=pl.Int16),
            )
        )
