"""Contexts -> uniformly random ones in which a latent is silent."""

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from autointerp.sampling.samplers.chunk_contexts import silent_rows
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import SHARE_OF_POPULATION, ReservoirSampler, as_sample
from autointerp.sampling.samplers.sampler import ChunkView
from autointerp.sampling.samplers.silent_blocks import SilentBlocks

__all__ = ["SilentSampler"]


class SilentSampler(ReservoirSampler):
    """`count` contexts of each latent and split in which it fires nowhere, uniformly random.

    The focus is a uniformly random scored position, so that its place tells nothing. The population is the
    number of silent contexts with a scored token, the weight population / kept. A document that is twice in
    the corpus counts twice (once where both copies fall into one chunk), but is drawn at most once.

    Cost: one hash per latent and context. Memory: blocks of 2**20 hashes, and a `Reservoir`.
    """

    name = "silent"
    is_silent = True

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's silent contexts in."""
        blocks = SilentBlocks(chunk, self._latents)
        contexts = blocks.contexts

        def keys(
            rows: slice, _split: int, members: Int64[np.ndarray, " context"]
        ) -> Float64[np.ndarray, "latent context"]:
            return uniform(
                hashed(self._seed, self.name, self._latents[rows, None], contexts.ids[None, members])
            )

        frames = []
        for pairs in blocks.candidates(self._reservoir, count=self._count, keys=keys):
            latent, context = self._latents[pairs.latent_row], pairs.context_row
            position = contexts.random_positions(self._seed, f"{self.name} focus", latent, context)
            frames.append(
                silent_rows(
                    latent=latent,
                    split=np.full(len(latent), pairs.split),
                    context=contexts.ids[context],
                    position=position,
                    key=pairs.key,
                )
            )
        if frames:
            self._reservoir.add(pl.concat(frames), population=blocks.population())

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA, without values."""
        return as_sample(self._reservoir.kept(), weight=SHARE_OF_POPULATION)
