"""Peaks -> uniformly random ones within strata of their magnitude."""

import numpy as np
import polars as pl
from jaxtyping import UInt32

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import SHARE_OF_POPULATION, ReservoirSampler, as_sample
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["QuantileSampler"]


class QuantileSampler(ReservoirSampler):
    """`count` peaks of each latent, split and stratum, uniformly random.

    A peak lies in the stratum with lower <= |value| < upper, compared in float64; a latent's stratum of
    largest `lower` has no upper end. A peak below all strata, between two, or of a latent without edges is
    passed over. The weight is population / kept, within the stratum. Memory: that of a `Reservoir`, times the
    strata.
    """

    name = "quantiles"
    is_silent = False

    def __init__(
        self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int, edges: pl.DataFrame
    ) -> None:
        """Start empty.

        Args:
            latents: The chosen ones, sorted.
            count: Rows kept per latent, split and stratum.
            seed: Of the draw.
            edges: `latent`, `stratum` (from 0), `lower`, `upper`: of each latent, strata that do not overlap.
        """
        super().__init__(latents=latents, count=count, seed=seed)
        is_highest = pl.col("lower") == pl.col("lower").max().over("latent")
        self._edges = edges.select(
            pl.col("latent").cast(pl.UInt32),
            pl.col("stratum").cast(pl.Int16),
            pl.col("lower").cast(pl.Float64),
            pl.when(is_highest).then(float("inf")).otherwise(pl.col("upper").cast(pl.Float64)).alias("upper"),
        ).sort("lower")

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's peaks in."""
        peaks = (
            of_latents(chunk.peaks, self._latents)
            .with_columns(size=pl.col("value").cast(pl.Float64).abs())
            .sort("size")
            .join_asof(self._edges, left_on="size", right_on="lower", by="latent", check_sortedness=False)
            .filter((pl.col("size") < pl.col("upper")) | (pl.col("upper") == float("inf")))
        )
        columns = (peaks[name].to_numpy() for name in ("latent", "context", "position"))
        key = pl.Series(uniform(hashed(self._seed, self.name, *columns)))
        self._reservoir.add(peaks.with_columns(key=key))

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA; stratum 0 is the weakest where the edges are numbered so."""
        return as_sample(self._reservoir.kept(), weight=SHARE_OF_POPULATION)
