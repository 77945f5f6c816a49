"""Embeddings of the contexts in which a latent fires -> what text like theirs is looked for with."""

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int64
from scipy import sparse

from autointerp.sampling.samplers.sampler import SPLITS, ChunkView

__all__ = ["ContextQueries"]


class ContextQueries:
    """Mean embedding of each latent's contexts on each side, and of all contexts.

    Memory: 3 x latents x width numbers, whatever the text. Order of chunks matters to rounding only.
    """

    def __init__(self, latents: np.ndarray) -> None:
        """Nothing seen yet.

        Args:
            latents: the sampled ones, ascending.
        """
        self._latents = latents
        self._sums: Float64[np.ndarray, "latent_and_split width"] | None = None
        self._counts = np.zeros(len(latents) * len(SPLITS))
        self._centre: Float64[np.ndarray, " width"] | None = None
        self._context_count = 0

    def add(self, chunk: ChunkView) -> None:
        """Add the contexts of a chunk; one without embeddings adds nothing."""
        if chunk.embeddings is None:
            return
        if self._sums is None or self._centre is None:
            width = chunk.embeddings.shape[1]
            self._sums, self._centre = np.zeros((len(self._counts), width)), np.zeros(width)
        self._centre += chunk.embeddings.sum(axis=0, dtype=np.float64)
        self._context_count += len(chunk.embeddings)
        peaks = chunk.peaks.filter(pl.col("latent").is_in(pl.Series(self._latents).implode()))
        row = np.searchsorted(chunk.contexts["context"].to_numpy(), peaks["context"].to_numpy())
        group = self._groups(peaks)
        shape = (len(self._counts), len(chunk.embeddings))
        fires = sparse.csr_matrix((np.ones(len(row)), (group, row)), shape=shape)
        self._sums += fires @ chunk.embeddings.astype(np.float64)
        self._counts += np.bincount(group, minlength=len(self._counts))

    def _groups(self, peaks: pl.DataFrame) -> Int64[np.ndarray, " peak"]:
        place = np.searchsorted(self._latents, peaks["latent"].to_numpy())
        return place.astype(np.int64) * len(SPLITS) + peaks["split"].to_numpy()

    def queries(self) -> Float32[np.ndarray, "latent split width"]:
        """Per latent and side the mean less that of all contexts; zeros where it fires in none there."""
        if self._sums is None or self._centre is None:
            return np.zeros((len(self._latents), len(SPLITS), 1), dtype=np.float32)
        counts = self._counts[:, None]
        mean = self._sums / np.maximum(counts, 1) - self.centre()
        found = np.where(counts > 0, mean, 0.0).astype(np.float32)
        return found.reshape(len(self._latents), len(SPLITS), found.shape[1])

    def centre(self) -> Float32[np.ndarray, " width"]:
        """Mean embedding of all contexts."""
        if self._centre is None:
            return np.zeros(1, dtype=np.float32)
        return (self._centre / max(self._context_count, 1)).astype(np.float32)
