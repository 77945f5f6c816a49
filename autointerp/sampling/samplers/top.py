"""Peaks -> the contexts in which a latent's peak is largest in magnitude."""

import numpy as np
import polars as pl
from jaxtyping import UInt32

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.reservoir import Reservoir, as_sample
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["TopSampler"]


class TopSampler:
    """The `count` contexts of largest |value| at the peak, largest first.

    Ties go to the smaller context id, then to the smaller position. Ids are hashes, and the order of the
    corpus is not known to a sampler: among equals that is an arbitrary choice, but the same one in every run.
    No probability sample, so the weight is null. Memory and cost are those of a `Reservoir`.
    """

    name = "top"
    is_silent = False

    def __init__(self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int) -> None:
        """Start empty. `latents` are sorted. Nothing is drawn: the seed is there to be like the others."""
        self._latents = latents
        self._seed = seed
        self._reservoir = Reservoir(count, is_one_per_context=True)

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's peaks in."""
        peaks = of_latents(chunk.peaks, self._latents)
        key = -pl.col("value").cast(pl.Float64).abs()
        self._reservoir.add(peaks.with_columns(key=key, stratum=pl.lit(0, dtype=pl.Int16)))

    def merge(self, other: "TopSampler") -> None:
        """Take in what another one kept of other chunks."""
        self._reservoir.merge(other._reservoir)

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA."""
        return as_sample(self._reservoir.kept())
