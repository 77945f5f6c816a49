"""Near misses -> the silent contexts in which a latent came closest to firing."""

import numpy as np
import polars as pl
from jaxtyping import UInt32

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.reservoir import Reservoir, as_sample
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["NearMissSampler"]


class NearMissSampler:
    """The `count` silent contexts of smallest margin, smallest first; the focus is where it was smallest.

    It chooses among the near misses that chunks bring, and its population counts those. Whether they are the
    same however text is cut into chunks is up to who puts them there. Ties go to the smaller context id. No
    probability sample, so the weight is null. A latent that a chunk brings none of (its dictionary may have
    no threshold to miss) gets no row.
    """

    name = "near_misses"
    is_silent = True

    def __init__(self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int) -> None:
        """Start empty. `latents` are sorted. Nothing is drawn: the seed is there to be like the others."""
        self._latents = latents
        self._seed = seed
        self._reservoir = Reservoir(count, is_one_per_context=True)

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

    def merge(self, other: "NearMissSampler") -> None:
        """Take in what another one kept of other chunks."""
        self._reservoir.merge(other._reservoir)

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA, without values."""
        return as_sample(self._reservoir.kept())
