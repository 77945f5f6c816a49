"""The spill, read back chunk by chunk: contexts with the side that they stand on, firings, peaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, UInt32

from autointerp.sampling.activation_pass import ShardStore, read_shard
from autointerp.sampling.latents.near_duplicates import clusters
from autointerp.sampling.latents.sides import SplitShares, sides
from autointerp.sampling.latents.totals import ContextRows
from autointerp.sampling.samplers.sampler import NEAR_MISS_ROWS, ROW_SCHEMA, ChunkView
from autointerp.sampling.spill import (
    context_key,
    embedding_key,
    firing_key,
    near_miss_key,
    signature_key,
)

__all__ = ["ChunkContexts", "Firings", "Spilled", "document_sides"]


@dataclass(frozen=True, eq=False)
class ChunkContexts:
    """The contexts of one chunk, in the order of the corpus."""

    frame: pl.DataFrame
    """CONTEXT_SHARD with `cluster` (of its document) and `split` (UInt8)."""
    rows: ContextRows
    """The same as arrays."""


@dataclass(frozen=True, eq=False)
class Firings:
    """A dictionary's firings in one chunk, sorted by latent, row and position."""

    latent: UInt32[np.ndarray, " firing"]
    row: UInt32[np.ndarray, " firing"]
    position: UInt32[np.ndarray, " firing"]
    value: Float32[np.ndarray, " firing"]

    def of(self, wanted: Bool[np.ndarray, " dictionary"]) -> "Firings":
        """Those of some latents."""
        kept = wanted[self.latent]
        return Firings(self.latent[kept], self.row[kept], self.position[kept], self.value[kept])

    def peaks(self) -> "Firings":
        """Of each latent and context the firing of largest |value|, the first of equals."""
        if not len(self.latent):
            return self
        is_new = np.empty(len(self.latent), dtype=bool)
        is_new[0] = True
        is_new[1:] = (self.latent[1:] != self.latent[:-1]) | (self.row[1:] != self.row[:-1])
        group = np.cumsum(is_new) - 1
        strength = np.abs(self.value)
        largest = np.maximum.reduceat(strength, np.flatnonzero(is_new))
        candidates = np.flatnonzero(strength == largest[group])
        chosen = candidates[np.unique(group[candidates], return_index=True)[1]]
        return Firings(self.latent[chosen], self.row[chosen], self.position[chosen], self.value[chosen])

    def rows(self, contexts: ChunkContexts) -> pl.DataFrame:
        """ROW_SCHEMA, sorted by latent, context and position; equal contexts of equal documents once."""
        columns = (
            self.latent,
            contexts.rows.split[self.row],
            contexts.rows.context[self.row],
            self.position,
            self.value,
        )
        frame = pl.DataFrame(dict(zip(ROW_SCHEMA, columns, strict=True)), schema=ROW_SCHEMA)
        return frame.sort("latent", "context", "position").unique(
            ["latent", "context", "position"], keep="first", maintain_order=True
        )


class Spilled:
    """What a pass left, with every document on its side.

    Memory: a cluster's code per document; otherwise one chunk at a time.
    """

    def __init__(self, store: ShardStore, chunk_names: Sequence[str], documents: pl.DataFrame) -> None:
        """Nothing is read yet.

        Args:
            store: what the pass wrote to.
            chunk_names: `PassCost.chunk_names`.
            documents: from `document_sides`.
        """
        self.chunk_names = tuple(chunk_names)
        self._store = store
        self._documents = documents

    def contexts(self, chunk: str) -> ChunkContexts:
        """The contexts of a chunk."""
        shard = read_shard(self._store, context_key(chunk))
        frame = shard.join(self._documents, on="document", how="left", maintain_order="left")
        rows = ContextRows(
            frame["context"].to_numpy(),
            frame["code"].to_numpy(),
            frame["split"].to_numpy(),
            frame["reaches_over"].to_numpy(),
        )
        return ChunkContexts(frame.drop("code", "reaches_over"), rows)

    def firings(self, name: str, chunk: str) -> Firings:
        """All firings of a dictionary in a chunk."""
        frame = read_shard(self._store, firing_key(name, chunk))
        return Firings(*(frame[column].to_numpy() for column in ("latent", "row", "position", "value")))

    def view(
        self,
        name: str,
        chunk: str,
        *,
        site: str,
        firings: Firings,
        contexts: ChunkContexts,
        chosen: Bool[np.ndarray, " dictionary"],
        watched: Bool[np.ndarray, " dictionary"],
    ) -> ChunkView:
        """A chunk as samplers see it.

        Args:
            name: of the dictionary.
            chunk: name of the chunk.
            site: what the dictionary reads.
            firings: of the dictionary in that chunk.
            contexts: of that chunk.
            chosen: by latent, whether it is sampled.
            watched: by latent, whether its peaks are wanted.
        """
        table = contexts.frame.with_row_index("row").unique("context", keep="first").sort("context")
        embeddings = read_shard(self._store, embedding_key(chunk))
        return ChunkView(
            contexts=table.select("context", "split", "tokens", "first_scored", "unscored"),
            firings=firings.of(chosen).rows(contexts),
            peaks=firings.of(watched | chosen).peaks().rows(contexts),
            embeddings=embeddings[site].to_numpy()[table["row"].to_numpy()] if site in embeddings else None,
            near_misses=self._near_misses(name, chunk, contexts, chosen),
        )

    def _near_misses(
        self, name: str, chunk: str, contexts: ChunkContexts, chosen: Bool[np.ndarray, " dictionary"]
    ) -> pl.DataFrame:
        frame = read_shard(self._store, near_miss_key(name, chunk))
        row = frame["row"].to_numpy()
        return (
            frame.with_columns(
                context=pl.Series(contexts.rows.context[row], dtype=pl.UInt64),
                split=pl.Series(contexts.rows.split[row], dtype=pl.UInt8),
            )
            .filter(pl.Series(chosen[frame["latent"].to_numpy()], dtype=pl.Boolean))
            .select(*NEAR_MISS_ROWS)
            .unique(["latent", "context"], keep="first", maintain_order=True)
        )


def document_sides(
    store: ShardStore,
    chunk_names: Sequence[str],
    *,
    shares: SplitShares,
    least_similarity: float,
    seed: int,
) -> pl.DataFrame:
    """Every document with its cluster and side.

    Returns:
        `document`, `cluster` (smallest id among its near-duplicates), `split` (UInt8), `code` (Int64, of the
        cluster) and `reaches_over` (whether the cluster has documents in several chunks), by document.

    Documents that share a packed context are on one side too. Memory: 64 numbers of 4 bytes per document.
    """
    frames = [
        read_shard(store, signature_key(chunk)).with_columns(chunk=pl.lit(number, dtype=pl.UInt32))
        for number, chunk in enumerate(chunk_names)
    ]
    found = pl.concat(frames)
    links = pl.concat([_links(read_shard(store, context_key(chunk))) for chunk in chunk_names])
    grouped = clusters(found.select("document", "signature"), linked=links, least_similarity=least_similarity)
    chunks = found.select("document", "chunk").join(grouped, on="document")
    spread = chunks.group_by("cluster").agg(reaches_over=pl.col("chunk").n_unique() > 1)
    return (
        sides(grouped, shares=shares, seed=seed)
        .join(spread, on="cluster")
        .with_columns(code=pl.col("cluster").rank("dense").cast(pl.Int64) - 1)
        .select("document", "cluster", "split", "code", "reaches_over")
        .sort("document")
    )


def _links(contexts: pl.DataFrame) -> pl.DataFrame:
    """Pairs of documents that share a context, which only packed ones do."""
    packed = contexts.filter(pl.col("documents").list.len() > 1)
    pairs = packed.select("document", other=pl.col("documents")).explode("other")
    return pairs.filter(pl.col("document") != pl.col("other")).unique().sort("document", "other")
