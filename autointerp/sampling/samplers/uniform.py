"""Firings -> uniformly random ones."""

import polars as pl

from autointerp.sampling.samplers.chunk_contexts import of_latents
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import SHARE_OF_POPULATION, ReservoirSampler, as_sample
from autointerp.sampling.samplers.sampler import ChunkView

__all__ = ["UniformSampler"]


class UniformSampler(ReservoirSampler):
    """`count` firings of each latent and split, each subset of that size as likely as any other.

    A context may come several times, with different positions. The weight is population / kept, the firings
    that each row stands for; a document that is twice in the corpus counts twice there, but is drawn at most
    once. Memory and cost are those of a `Reservoir`, and one hash per firing.
    """

    name = "uniform"
    is_silent = False
    is_one_per_context = False

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's firings in."""
        firings = of_latents(chunk.firings, self._latents)
        columns = (firings[name].to_numpy() for name in ("latent", "context", "position"))
        key = pl.Series(uniform(hashed(self._seed, self.name, *columns)))
        self._reservoir.add(firings.with_columns(key=key, stratum=pl.lit(0, dtype=pl.Int16)))

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA."""
        return as_sample(self._reservoir.kept(), weight=SHARE_OF_POPULATION)
