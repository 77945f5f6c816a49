"""Embeddings of contexts -> the silent ones that are most like a latent's firing contexts."""

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt32

from autointerp.sampling.samplers.chunk_contexts import silent_rows
from autointerp.sampling.samplers.reservoir import ReservoirSampler
from autointerp.sampling.samplers.sampler import ChunkView
from autointerp.sampling.samplers.silent_blocks import SilentBlocks, SilentPairs

__all__ = ["SimilarSampler"]

_DECIMALS = 6  # of the cosine: what float32 embeddings bear out
_SLACK = 1e-4  # a float32 product of unit vectors is off by less
_UNSURE = 1e-4  # units of the last decimal; float64 products of unit vectors are off by far less
_DENSE = 16  # a product of a whole block costs less than so many times fewer sums, each alone
_PAIRS = 2**12  # pairs at a time


class SimilarSampler(ReservoirSampler):
    """The `count` silent contexts of each latent and split whose embedding is nearest to its query.

    Near is a large cosine between the query and the context's embedding less the centre, rounded to six
    decimals; ties go to the smaller context id. The focus is a uniformly random scored position. The
    population is the number of silent contexts with a direction; no probability sample, so the weight is
    null.

    Gives nothing for a latent and split whose query is all zero or not finite, for contexts whose embedding
    is the centre or not finite, and for chunks without embeddings. Cost: a float32 matrix product per chunk,
    which finds the candidates, and their products in float64 (one by one, or as a matrix product where most
    of a block are candidates), which no block size changes. Memory: blocks of 2**20 cosines, and a
    `Reservoir`.
    """

    name = "similar"
    is_silent = True

    def __init__(
        self,
        *,
        latents: UInt32[np.ndarray, " latent"],
        count: int,
        seed: int,
        queries: Float32[np.ndarray, "latent split width"],
        centre: Float32[np.ndarray, " width"],
    ) -> None:
        """Start empty.

        Args:
            latents: The chosen ones, sorted.
            count: Rows kept per latent and split.
            seed: Of the places of the focus.
            queries: One per latent and split, as differences from the centre.
            centre: The mean embedding.
        """
        super().__init__(latents=latents, count=count, seed=seed)
        self._centre = centre.astype(np.float64)
        self._queries, self._has_query = _unit(queries.astype(np.float64))

    def add(self, chunk: ChunkView) -> None:
        """Take the chunk's silent contexts in."""
        if chunk.embeddings is None:
            return
        directions, has_direction = _unit(chunk.embeddings - self._centre)
        usable = ChunkView(
            contexts=chunk.contexts.filter(pl.Series(has_direction)),
            firings=chunk.firings,
            peaks=chunk.peaks,
            embeddings=None,
            near_misses=chunk.near_misses,
        )
        blocks = SilentBlocks(usable, self._latents)
        directions = directions[has_direction][blocks.contexts.chunk_row]
        rough = directions.astype(np.float32)

        def keys(
            rows: slice, split: int, members: Int64[np.ndarray, " context"]
        ) -> Float64[np.ndarray, "latent context"]:
            block = -(self._queries[rows, split].astype(np.float32) @ rough[members].T).astype(np.float64)
            block[~self._has_query[rows, split]] = np.nan
            return block

        candidates = blocks.candidates(self._reservoir, count=self._count, keys=keys, slack=_SLACK)
        frames = [self._rows(pairs, blocks, directions) for pairs in candidates]
        if frames:
            self._reservoir.add(pl.concat(frames), population=blocks.population(self._has_query))

    def _rows(
        self, pairs: SilentPairs, blocks: SilentBlocks, directions: Float64[np.ndarray, "context width"]
    ) -> pl.DataFrame:
        latent, context = self._latents[pairs.latent_row], pairs.context_row
        cosines = _rounded_products(
            self._queries[:, pairs.split], directions, pairs.latent_row, pairs.context_row
        )
        return silent_rows(
            latent=latent,
            split=np.full(len(latent), pairs.split),
            context=blocks.contexts.ids[context],
            position=blocks.contexts.random_positions(self._seed, f"{self.name} focus", latent, context),
            key=-cosines,
        )


def _unit(
    vectors: Float[np.ndarray, "*batch width"],
) -> tuple[Float64[np.ndarray, "*batch width"], Bool[np.ndarray, "*batch"]]:
    """Vectors of length 1, and which of them have a direction; the others are zero."""
    length = np.sqrt((vectors * vectors).sum(axis=-1))
    has_direction = np.isfinite(length) & (length > 0)
    safe = np.where(has_direction, length, 1.0)[..., None]
    return np.where(has_direction[..., None], vectors / safe, 0.0), has_direction


def _rounded_products(
    left: Float64[np.ndarray, "row width"],
    right: Float64[np.ndarray, "column width"],
    row: Int64[np.ndarray, " pair"],
    column: Int64[np.ndarray, " pair"],
) -> Float64[np.ndarray, " pair"]:
    """Products of rows of unit vectors, to six decimals: what a sum of each pair on its own gives.

    Where much of a block is wanted, one matrix product gives them all. How it sums depends on its shape, so
    pairs that this could round to the other side (their product lies at a rounding edge) are summed alone.
    """
    if not len(row):
        return np.zeros(0)
    rows, columns = slice(row.min(), row.max() + 1), np.unique(column)
    height = int(row.max() - row.min()) + 1
    if len(row) * _DENSE < height * len(columns):
        return np.round(_products(left, right, row, column), _DECIMALS)
    place = np.empty(len(right), dtype=np.int64)
    place[columns] = np.arange(len(columns))
    products = (left[rows] @ right[columns].T)[row - rows.start, place[column]]
    scaled = products * 10.0**_DECIMALS
    is_unsure = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5) < _UNSURE
    products[is_unsure] = _products(left, right, row[is_unsure], column[is_unsure])
    return np.round(products, _DECIMALS)


def _products(
    left: Float64[np.ndarray, "row width"],
    right: Float64[np.ndarray, "column width"],
    row: Int64[np.ndarray, " pair"],
    column: Int64[np.ndarray, " pair"],
) -> Float64[np.ndarray, " pair"]:
    """Each summed on its own, so no block size changes it."""
    products = np.empty(len(row))
    for start in range(0, len(row), _PAIRS):
        part = slice(start, start + _PAIRS)
        products[part] = (left[row[part]] * right[column[part]]).sum(axis=1)
    return products
