"""A chunk -> its contexts as arrays, and the pairs of latent and context in which the latent fires."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64, Integer, UInt32, UInt64

from autointerp.sampling.samplers.hashing import hashed, uniform
from autointerp.sampling.samplers.sampler import ChunkView
from autointerp.sampling.samplers.text_places import TextPlaces

__all__ = ["ChunkContexts", "of_latents", "rows_in", "silent_rows"]


def rows_in(
    sorted_values: Integer[np.ndarray, " value"], wanted: Integer[np.ndarray, " wanted"]
) -> Int64[np.ndarray, " wanted"]:
    """Index of each wanted number among sorted, distinct ones of the same type; -1 where it is not there."""
    if not len(sorted_values):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[place] == wanted, place, -1).astype(np.int64)


def of_latents(rows: pl.DataFrame, latents: UInt32[np.ndarray, " latent"]) -> pl.DataFrame:
    """The rows whose `latent` is one of these, in the order that they came in."""
    return rows.filter(pl.Series(rows_in(latents, rows["latent"].to_numpy()) >= 0))


@dataclass(frozen=True, eq=False)
class ChunkContexts:
    """The contexts of a chunk that have scored tokens, each once, by id."""

    ids: UInt64[np.ndarray, " context"]
    chunk_row: Int64[np.ndarray, " context"]
    """Its (first) row in `ChunkView.contexts`."""
    split: Int64[np.ndarray, " context"]
    text: TextPlaces
    """Its scored tokens; all others count as absent."""

    @classmethod
    def of(cls, chunk: ChunkView) -> "ChunkContexts":
        """Contexts without a scored token are left out: nothing can fire there, and there is no focus."""
        table = chunk.contexts
        ids, row = np.unique(table["context"].to_numpy(), return_index=True)
        text = TextPlaces.of(table[row])
        has_text = text.count > 0
        # Those without text have no places, so the flat arrays stay as they are.
        text = replace(text, begin=text.begin[has_text], count=text.count[has_text])
        split = table["split"].to_numpy()[row].astype(np.int64)
        return cls(ids[has_text], row.astype(np.int64)[has_text], split[has_text], text)

    def firing(
        self, peaks: pl.DataFrame, latents: UInt32[np.ndarray, " latent"]
    ) -> Int64[np.ndarray, " pair"]:
        """`latent_row * len(ids) + context_row` of each pair in which the latent fires, sorted.

        Rows are those of `latents` (sorted) and of this table. A context lies wholly in one chunk, so a pair
        that is not here is silent. Memory: 8 bytes per peak.
        """
        latent_row = rows_in(latents, peaks["latent"].to_numpy())
        context_row = rows_in(self.ids, peaks["context"].to_numpy())
        is_known = (latent_row >= 0) & (context_row >= 0)
        codes = np.sort(latent_row[is_known] * len(self.ids) + context_row[is_known])
        return codes[
            np.diff(codes, prepend=-1) != 0
        ]  # np.unique hashes, which is much slower on sorted numbers

    def firing_by_context(
        self, peaks: pl.DataFrame, latents: UInt32[np.ndarray, " latent"]
    ) -> Int64[np.ndarray, " pair"]:
        """The same pairs as `context_row * len(latents) + latent_row`, sorted."""
        latent_row, context_row = np.divmod(self.firing(peaks, latents), max(len(self.ids), 1))
        return np.sort(context_row * len(latents) + latent_row)

    def random_positions(
        self,
        seed: int,
        salt: str,
        latents: UInt32[np.ndarray, " pair"],
        context_row: Int64[np.ndarray, " pair"],
    ) -> Int64[np.ndarray, " pair"]:
        """A scored position of each context, uniform by the hash of (seed, salt, latent, context)."""
        number: Float64[np.ndarray, " pair"] = uniform(hashed(seed, salt, latents, self.ids[context_row]))
        place = (number * self.text.count[context_row]).astype(np.int64)
        return self.text.position[self.text.begin[context_row] + place]


def silent_rows(
    *,
    latent: UInt32[np.ndarray, " row"],
    split: Int64[np.ndarray, " row"],
    context: UInt64[np.ndarray, " row"],
    position: Int64[np.ndarray, " row"],
    key: Float64[np.ndarray, " row"],
) -> pl.DataFrame:
    """Rows for a reservoir, of one stratum and without a value."""
    columns = {"latent": latent, "split": split, "context": context, "position": position, "key": key}
    empty = {"stratum": pl.lit(0, dtype=pl.Int16), "value": pl.lit(None, dtype=pl.Float32)}
    return pl.DataFrame(columns).with_columns(**empty)
