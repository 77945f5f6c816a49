"""Sparse latents -> how often, and in how many documents, each latent fired.

Memory: one count per latent, and one 64-bit number per distinct (document, latent) pair of a chunk.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.sampling.readings import TokenTable

__all__ = ["FIRING_SCHEMA", "LatentFiring", "total_firing"]

FIRING_SCHEMA = {
    "checkpoint": pl.String,
    "latent": pl.Int64,
    "tokens_fired": pl.Int64,
    "documents_fired": pl.Int64,
    "only_document": pl.String,  # where documents_fired is 1, else ""
}
"""One row per dictionary and latent that fired at least once; a latent without a row never did."""


class LatentFiring:
    """Counts of one dictionary over one chunk. Every scored token counts, position 0 included."""

    def __init__(self, latent_count: int, documents: Sequence[str]) -> None:
        """Start at zero."""
        self._latent_count = latent_count
        self._documents = np.array(documents, dtype=object)
        self._tokens_fired = torch.zeros(latent_count, dtype=torch.long)
        self._pairs: list[Int[Tensor, " pair"]] = []

    def update(self, tokens: TokenTable, latents: SparseLatents) -> None:
        """Count the latents that are active on a batch's scored tokens."""
        token = latents.token_indices()
        counted = tokens.is_scored[token]
        indices = latents.indices.long()[counted]
        self._tokens_fired += torch.bincount(indices, minlength=self._latent_count).cpu()
        pairs = tokens.document[token[counted]] * self._latent_count + indices
        self._pairs.append(torch.unique(pairs).cpu())

    def frame(self, checkpoint: str) -> pl.DataFrame:
        """The chunk's rows, by latent."""
        pairs = torch.unique(torch.cat(self._pairs)) if self._pairs else torch.zeros(0, dtype=torch.long)
        latent, document = pairs % self._latent_count, pairs // self._latent_count
        documents_fired = torch.bincount(latent, minlength=self._latent_count)
        some_document = torch.zeros_like(documents_fired).scatter_(0, latent, document)
        fired = self._tokens_fired.nonzero().squeeze(1).numpy()
        names = self._documents[some_document.numpy()[fired]] if len(fired) else self._documents[:0]
        once = documents_fired.numpy()[fired] == 1
        columns = {
            "checkpoint": [checkpoint] * len(fired),
            "latent": fired,
            "tokens_fired": self._tokens_fired.numpy()[fired],
            "documents_fired": documents_fired.numpy()[fired],
            "only_document": np.where(once, names, "").tolist(),
        }
        return pl.DataFrame(columns, schema=FIRING_SCHEMA)


def total_firing(frames: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Chunks' rows added up. A document lies within one chunk, so that counts of documents add up too."""
    only = pl.col("only_document").filter(pl.col("only_document") != "").first()
    return (
        frames.lazy()
        .group_by("checkpoint", "latent")
        .agg(pl.col("tokens_fired").sum(), pl.col("documents_fired").sum(), only)
        .with_columns(
            only_document=pl.when(pl.col("documents_fired") == 1).then("only_document").otherwise(pl.lit(""))
        )
        .sort("checkpoint", "latent")
        .select(*FIRING_SCHEMA)
        .collect()
    )
