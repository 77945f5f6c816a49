"""Peaks -> random ones, a peak the likelier the larger its magnitude."""

import polars as pl

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import ReservoirSampler, as_sample
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["ImportanceSampler"]


class ImportanceSampler(ReservoirSampler):
    """Priority sampling of peaks by |value| (Duffield, Lund, Thorup 2007).

    The key is u / |value| with u uniform in (0, 1) by hash, and the `count` smallest are kept. With tau the
    smallest key left out, a kept row stands for 1 / min(1, |value| * tau) rows: the sum over the sample of
    weight * f(row) is an unbiased estimate of the sum of f over the population, for every f (of variance near
    0 for f = |value|). Where nothing was left out each row stands for itself. Memory and cost are those of a
    `Reservoir`, and one hash per peak.
    """

    name = "importance"
    is_silent = False

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's peaks in."""
        peaks = of_latents(chunk.peaks, self._latents)
        columns = (peaks[name].to_numpy() for name in ("latent", "context", "position"))
        numbers = pl.Series(uniform(hashed(self._seed, self.name, *columns)))
        key = numbers / peaks["value"].cast(pl.Float64).abs()
        self._reservoir.add(peaks.with_columns(key=key, stratum=pl.lit(0, dtype=pl.Int16)))

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA. `rank` is the order of priority, not of magnitude."""
        chance = (pl.col("value").cast(pl.Float64).abs() * pl.col("next_key")).clip(upper_bound=1.0)
        weight = pl.when(pl.col("next_key").is_null()).then(1.0).otherwise(1 / chance)
        return as_sample(self._reservoir.kept(), weight=weight)
