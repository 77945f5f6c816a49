"""What a chunk leaves on disk for the latents: its contexts, every firing, and what hard negatives need.

    contexts/CHUNK                  tokens and document of each context
    signatures/CHUNK                of documents, against near-duplicates
    embeddings/CHUNK                of contexts, by site
    firings/DICTIONARY/CHUNK        every firing on a scored token
    near_misses/DICTIONARY/CHUNK    where silent latents came closest

DICTIONARY is a short, safe form of its name (`slug`), CHUNK the chunk's number and hash. Nothing here is a
sample: statistics are exact, and whoever has another question can ask it of the files.

Bytes: 16 per firing in memory, so 16 k per token and dictionary of the chunk at work; about 6 on disk. 4 more
per token of a context, 260 per document, 4 x 64 per context and site, and 16 per document and latent that is
followed for near misses.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.latents.near_duplicates import signatures
from autointerp.sampling.near_misses import NearMisses, has_margins
from autointerp.sampling.readings import Checkpoint, TokenTable

__all__ = [
    "EMBEDDING_WIDTH",
    "FIRING_SHARD",
    "SIGNATURE_SHARD",
    "ChunkSpill",
    "DictionarySpill",
    "SpillPlan",
    "context_key",
    "embedding_key",
    "firing_key",
    "near_miss_key",
    "signature_key",
    "slug",
]

FIRING_SHARD = {
    "latent": pl.UInt32,
    "row": pl.UInt32,  # number of the context in the chunk's `contexts`
    "position": pl.UInt32,  # in the context
    "value": pl.Float32,
}
"""Every firing on a scored token, sorted by latent, row and position."""

SIGNATURE_SHARD = {"document": pl.String, "signature": pl.Array(pl.UInt32, 64)}
EMBEDDING_WIDTH = 64
"""Dimensions that a context's mean activation is projected to; distances between contexts keep within about
12 % (1 / sqrt(64), Johnson and Lindenstrauss 1984), a hundredth of the storage of GPT-2's 768 for a batch."""

_SLUG_LENGTH = 80


@dataclass(frozen=True)
class SpillPlan:
    """What a pass leaves for the latents."""

    followed: Mapping[str, Int64[np.ndarray, " latent"]] = field(default_factory=dict)
    """By dictionary, the latents whose near misses are looked for."""


def slug(name: str) -> str:
    """A dictionary's name as a part of a file's name: legible, at most 89 characters, one to one.

    `sweep/topk 8` becomes `sweep-topk-8-` and eight digits of its hash.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', name)[:_SLUG_LENGTH]}-{digest}"


def context_key(chunk: str) -> str:
    """Where a chunk's contexts lie."""
    return f"contexts/{chunk}"


def signature_key(chunk: str) -> str:
    """Where the MinHash signatures of a chunk's documents lie."""
    return f"signatures/{chunk}"


def embedding_key(chunk: str) -> str:
    """Where the embeddings of a chunk's contexts lie."""
    return f"embeddings/{chunk}"


def firing_key(name: str, chunk: str) -> str:
    """Where a dictionary's firings in a chunk lie."""
    return f"firings/{slug(name)}/{chunk}"


def near_miss_key(name: str, chunk: str) -> str:
    """Where a dictionary's near misses in a chunk lie."""
    return f"near_misses/{slug(name)}/{chunk}"


class DictionarySpill:
    """One dictionary's firings and near misses in one chunk. Memory: the shard, twice while it is sorted."""

    def __init__(self, checkpoint: Checkpoint, plan: SpillPlan, table: ContextTable) -> None:
        """Nothing fired yet."""
        self._name = checkpoint.name
        self._parts: list[tuple[np.ndarray, ...]] = []
        followed = plan.followed.get(checkpoint.name, np.zeros(0, dtype=np.int64))
        if not has_margins(checkpoint.sae.activation):
            followed = followed[:0]
        self._near_misses = NearMisses(followed, table.document, device=checkpoint.sae.device)
        self._sae = checkpoint.sae

    def update(
        self,
        x: Float[Tensor, "token d_model"],
        tokens: TokenTable,
        latents: SparseLatents,
        numbers: Int[Tensor, " batch"],
    ) -> None:
        """Take in what fired on the scored tokens of a batch.

        Args:
            x: what the dictionary read.
            tokens: where the rows of `x` come from.
            latents: what fired.
            numbers: number in the chunk of each context of the batch.
        """
        token = latents.token_indices()
        kept = tokens.is_scored[token]
        token = token[kept]
        row = numbers.to(tokens.row)[tokens.row[token]]
        columns = (latents.indices[kept], row, tokens.position[token], latents.values[kept].float())
        types = (np.uint32, np.uint32, np.uint32, np.float32)
        self._parts.append(
            tuple(part.cpu().numpy().astype(kind) for part, kind in zip(columns, types, strict=True))
        )
        self._near_misses.update(self._sae, x, tokens, latents, numbers)

    def shards(self, chunk: str) -> dict[str, pl.DataFrame]:
        """What is kept, by key."""
        empty = tuple(np.zeros(0, dtype=kind) for kind in (np.uint32, np.uint32, np.uint32, np.float32))
        columns = [np.concatenate(parts) for parts in zip(empty, *self._parts, strict=True)]
        firings = pl.DataFrame(dict(zip(FIRING_SHARD, columns, strict=True)), schema=FIRING_SHARD)
        return {
            firing_key(self._name, chunk): firings.sort("latent", "row", "position"),
            near_miss_key(self._name, chunk): self._near_misses.frame(),
        }


class ChunkSpill:
    """What a chunk leaves whatever the dictionaries: contexts, documents' signatures, embeddings by site."""

    def __init__(self, table: ContextTable, document_ids: Sequence[str], sites: Iterable[str]) -> None:
        """Prepare for the sites that dictionaries read."""
        self.table = table
        self._document_ids = document_ids
        self._sums: dict[str, Tensor | None] = dict.fromkeys(sites)

    def update(
        self,
        site: str,
        x: Float[Tensor, "token d_model"],
        tokens: TokenTable,
        numbers: Int[Tensor, " batch"],
    ) -> None:
        """Add a batch's activations at a site, each of unit norm, to the sums of their contexts."""
        x = x.float()
        x = torch.nn.functional.normalize(x - x.mean(dim=1, keepdim=True), dim=1)
        low = (x @ _projection(x.shape[1]).to(x))[tokens.is_scored]
        row = numbers.to(tokens.row)[tokens.row[tokens.is_scored]]
        sums = self._sums[site]
        if sums is None:
            sums = low.new_zeros(self.table.frame.height, low.shape[1] + 1)
            self._sums[site] = sums
        sums.index_add_(0, row, torch.cat([low, low.new_ones(len(low), 1)], dim=1))

    def shards(self, chunk: str) -> dict[str, pl.DataFrame]:
        """What is kept, by key."""
        text = self.table.text
        found = signatures(text.tokens, text.document, len(self._document_ids))
        documents = pl.DataFrame(
            {"document": list(self._document_ids), "signature": found}, schema=SIGNATURE_SHARD
        )
        return {
            context_key(chunk): self.table.frame,
            signature_key(chunk): documents.unique("document", keep="first", maintain_order=True),
            embedding_key(chunk): self._embeddings(),
        }

    def _embeddings(self) -> pl.DataFrame:
        """One column per site, one row per context."""
        columns = {}
        for site, sums in self._sums.items():
            if sums is not None:
                mean = (sums[:, :-1] / sums[:, -1:].clamp_min(1)).cpu().numpy()
                columns[site] = pl.Series(site, mean, dtype=pl.Array(pl.Float32, mean.shape[1]))
        return pl.DataFrame(columns)


def _projection(width: int) -> Float[Tensor, "width low"]:
    """Random Gaussian directions, the same in every run; none where the site is narrow anyway."""
    if width <= EMBEDDING_WIDTH:
        return torch.eye(width)
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, EMBEDDING_WIDTH, generator=generator) / EMBEDDING_WIDTH**0.5
