"""Places of a latent's typical tokens -> those in contexts where the latent is silent."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64, UInt32
from scipy import sparse

from autointerp.sampling.samplers.chunk_contexts import ChunkContexts, rows_in, silent_rows
from autointerp.sampling.samplers.fan_out import FanOut
from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.reservoir import ReservoirSampler, as_sample
from autointerp.sampling.samplers.sampler import SPLITS, ChunkView
from autointerp.sampling.samplers.text_places import TextPlaces

__all__ = ["SameTokenSampler"]

_LEVELS = 40  # a pool can be thinned to 2**-39 of all places
_POOL = 16  # places looked at per row kept


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the tokens stand in a chunk, by context and key."""

    source: Int64[np.ndarray, " place"]
    context: Int64[np.ndarray, " place"]
    position: Int64[np.ndarray, " place"]
    key: Float64[np.ndarray, " place"]
    level: Int64[np.ndarray, " place"]
    split: Int64[np.ndarray, " place"]

    def where(self, chosen: np.ndarray) -> "_Places":
        columns = (self.source, self.context, self.position, self.key, self.level, self.split)
        return type(self)(*(column[chosen] for column in columns))


class SameTokenSampler(ReservoirSampler):
    """`count` places of each latent and split with a token at which it typically peaks, where it is silent.

    The key of a place is u, uniform in (0, 1) by the hash of (seed, context, position) and so the same for
    all latents; its level is floor(-log2 u). How many places of each token lie on each level is counted
    exactly. A latent's pool in a split are the places of its tokens, firing or not, from the highest level
    down to the first one at which they are at least 16 * count: a random part, of about 16 to 32 * count, of
    all of them. The sample is the silent places of smallest key in that pool, one per context; the focus is
    that token.

    As counts only grow, the final pool is part of every earlier one, so the result depends neither on chunks
    nor on their order, and places outside the pool of the moment need no look at who fires there. What that
    costs: a latent that fires wherever its token stands may get fewer than `count` rows (all of them where
    there are few places), and latents with the same token get much the same places. A common token outweighs
    a rare one of the same latent, as it does in text.

    The population is the number of silent contexts in the pool. They are hard negatives, not text as it
    comes, so the weight is null. A document that is twice in the corpus counts twice, but is drawn at most
    once.

    Cost: one hash per place of a watched token; one look-up per latent and place in its pool, about 32 *
    count * log(chunks) per latent in all. Memory: 960 bytes per token and per latent, for a moment
    three times as much, the blocks of a `FanOut`, and a `Reservoir`.
    """

    name = "same_token"
    is_silent = True

    def __init__(
        self, *, latents: UInt32[np.ndarray, " latent"], count: int, seed: int, tokens: pl.DataFrame
    ) -> None:
        """Start empty.

        Args:
            latents: The chosen ones, sorted.
            count: Rows kept per latent and split.
            seed: Of the draw.
            tokens: `latent`, `token`: at which the latent typically peaks.
        """
        super().__init__(latents=latents, count=count, seed=seed)
        self._pool = _POOL * count
        pairs = tokens.select(pl.col("latent").cast(pl.UInt32), pl.col("token").cast(pl.Int32)).unique()
        row = rows_in(latents, pairs["latent"].to_numpy())
        token, row = pairs["token"].to_numpy()[row >= 0], row[row >= 0]
        self._fan = FanOut(token, row, latent_count=len(latents))
        ones = np.ones(len(row), dtype=np.int64)
        shape = (len(latents), len(self._fan.sources))
        self._has_token = sparse.csr_array((ones, (row, rows_in(self._fan.sources, token))), shape=shape)
        self._places = np.zeros((shape[1], len(SPLITS), _LEVELS), dtype=np.int64)
        self._silent = np.zeros((shape[0], len(SPLITS), _LEVELS), dtype=np.int64)

    def add(self, chunk: ChunkView) -> None:
        """Take in the places of the tokens."""
        contexts = ChunkContexts.of(chunk)
        firing = contexts.firing_by_context(chunk.peaks, self._latents)
        places = self._places_in(chunk, contexts)
        _count_up(self._places, places.source, places.split, places.level)
        lowest = self._lowest_levels()
        places = places.where(places.level >= self._lowest_of_any_latent(lowest)[places.source, places.split])
        for entry, latent_row in self._fan.silent_pairs(places.source, places.context, firing):
            # The first of a context's places, by key: if it is not in the pool, none is.
            is_in_pool = places.level[entry] >= lowest[latent_row, places.split[entry]]
            mine, row = places.where(entry[is_in_pool]), latent_row[is_in_pool]
            _count_up(self._silent, row, mine.split, mine.level)
            rows = silent_rows(
                latent=self._latents[row],
                split=mine.split,
                context=contexts.ids[mine.context],
                position=mine.position,
                key=mine.key,
            )
            self._reservoir.add(rows)

    def merge(self, other: "SameTokenSampler") -> None:
        """Take in what another one kept of other chunks."""
        self._places += other._places
        self._silent += other._silent
        super().merge(other)

    def sample(self) -> pl.DataFrame:
        """SAMPLE_SCHEMA, without values."""
        kept = self._reservoir.kept()
        lowest = self._lowest_levels()
        is_in_pool = np.arange(_LEVELS) >= lowest[:, :, None]
        population = np.where(is_in_pool, self._silent, 0).sum(axis=2)
        row, split = rows_in(self._latents, kept["latent"].to_numpy()), kept["split"].to_numpy()
        kept = kept.with_columns(population=pl.Series(population[row, split], dtype=pl.UInt64))
        return as_sample(kept.filter(pl.Series(_levels(kept["key"].to_numpy()) >= lowest[row, split])))

    def _places_in(self, chunk: ChunkView, contexts: ChunkContexts) -> _Places:
        """Scored places of watched tokens, by context and key."""
        table = chunk.contexts[contexts.chunk_row]
        text = TextPlaces.of(table)
        token = table["tokens"].explode(empty_as_null=False).to_numpy()[text.token]
        context, position = np.repeat(np.arange(len(contexts.ids)), text.count), text.position
        source = rows_in(self._fan.sources, token)
        chosen = source >= 0
        source, context, position = source[chosen], context[chosen], position[chosen]
        key = uniform(hashed(self._seed, self.name, contexts.ids[context], position))
        places = _Places(source, context, position, key, _levels(key), contexts.split[context])
        return places.where(np.lexsort((key, context)))

    def _lowest_levels(self) -> Int64[np.ndarray, "latent split"]:
        """The lowest level in each pool: the highest from which on there are enough places, or 0."""
        flat = self._places.reshape(self._places.shape[0], len(SPLITS) * _LEVELS)
        of_latent = (self._has_token @ flat).reshape(len(self._latents), len(SPLITS), _LEVELS)
        from_level_on = np.cumsum(of_latent[:, :, ::-1], axis=2)[:, :, ::-1]
        return np.maximum((from_level_on >= self._pool).sum(axis=2) - 1, 0)

    def _lowest_of_any_latent(
        self, lowest: Int64[np.ndarray, "latent split"]
    ) -> Int64[np.ndarray, "source split"]:
        of_source = np.full((len(self._fan.sources), len(SPLITS)), _LEVELS)
        pairs = self._has_token.tocoo()
        np.minimum.at(of_source, pairs.col, lowest[pairs.row])
        return of_source


def _levels(key: Float64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """floor(-log2 key), at most the last level: 2**-(level + 1) <= key < 2**-level up to the end points."""
    return np.clip(-np.frexp(key)[1], 0, _LEVELS - 1).astype(np.int64)


def _count_up(
    counts: Int64[np.ndarray, "row split level"],
    row: Int64[np.ndarray, " entry"],
    split: Int64[np.ndarray, " entry"],
    level: Int64[np.ndarray, " entry"],
) -> None:
    cells = np.ravel_multi_index((row, split, level), counts.shape)
    counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
