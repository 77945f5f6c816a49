"""A chunk's batches -> its contexts as a table, in the order of the corpus and with ids that last.

The id of a context hashes its first document's id and where the context begins there, so it is the same in
every run, whatever the sizes of batches and chunks. Two documents of equal content give equal contexts with
equal ids.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from autointerp.sampling.contexts import CorpusChunk, TokenBatch
from autointerp.sampling.samplers.hashing import hashed, text_hash

__all__ = ["CONTEXT_SHARD", "ContextTable", "DocumentText"]

CONTEXT_SHARD = {
    "context": pl.UInt64,  # id
    "document": pl.String,  # of its first token of text
    "documents": pl.List(pl.String),  # all that it holds text of; several only where documents are packed
    "start": pl.UInt32,  # where it begins in its document (packed: in its bundle), in tokens
    "first_scored": pl.UInt32,  # position of its first token of text
    "unscored": pl.List(pl.UInt32),  # positions behind it that are no text: EOS (packed), the chat template's
    "tokens": pl.List(pl.Int32),  # BOS included where the run puts one
}
"""One row per context of a chunk, in the order of the corpus; its number names the context in the chunk."""


@dataclass(frozen=True, eq=False)
class DocumentText:
    """The text tokens of a chunk, document after document."""

    tokens: Int64[np.ndarray, " token"]
    document: Int64[np.ndarray, " token"]
    """Place in the chunk's list of documents; ascends."""


@dataclass(frozen=True, eq=False)
class ContextTable:
    """All contexts of a chunk. Memory: that of the chunk's tokens, twice."""

    frame: pl.DataFrame
    """CONTEXT_SHARD."""
    numbers: tuple[Int[Tensor, " _"], ...]
    """By batch, the number in `frame` of each of its contexts."""
    document: Int64[np.ndarray, " context"]
    """Place in the chunk's list of documents of each context's first; ascends."""
    text: DocumentText

    @classmethod
    def of(cls, chunk: CorpusChunk) -> "ContextTable":
        """The table of a chunk."""
        rows = _Rows.of(chunk.batches)
        order = np.lexsort((rows.start, rows.document))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        sizes = [len(batch.start) for batch in chunk.batches]
        numbers = tuple(torch.from_numpy(part.copy()) for part in np.split(place, np.cumsum(sizes)[:-1]))
        tokens, documents = ([values[index] for index in order] for values in (rows.tokens, rows.documents))
        frame = _frame(rows, order, tokens, documents, chunk)
        return cls(frame, numbers, rows.document[order], _text(tokens, documents))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Contexts in the order of the batches; one entry each."""

    tokens: list[np.ndarray]
    documents: list[np.ndarray]
    """Per token; -1 where it is no text."""
    document: np.ndarray
    start: np.ndarray
    first_scored: np.ndarray

    @classmethod
    def of(cls, batches: tuple[TokenBatch, ...]) -> "_Rows":
        tokens: list[np.ndarray] = []
        documents: list[np.ndarray] = []
        for batch in batches:
            lengths = batch.attention_mask.sum(dim=1).tolist()
            scored = torch.where(batch.is_scored, batch.document_index, -1).cpu().numpy()
            ids = batch.tokens.cpu().numpy().astype(np.int32)
            tokens += [row[:length] for row, length in zip(ids, lengths, strict=True)]
            documents += [row[:length] for row, length in zip(scored, lengths, strict=True)]
        first = np.array([int(np.argmax(row >= 0)) for row in documents], dtype=np.int64)
        document = np.array([row[place] for row, place in zip(documents, first, strict=True)], dtype=np.int64)
        start = np.concatenate([batch.start.cpu().numpy() for batch in batches])
        return cls(tokens, documents, document, start, first)


def _frame(
    rows: _Rows, order: np.ndarray, tokens: list[np.ndarray], documents: list[np.ndarray], chunk: CorpusChunk
) -> pl.DataFrame:
    ids = np.array(chunk.document_ids, dtype=object)
    hashes = np.array([text_hash(name) for name in chunk.document_ids], dtype=np.uint64)
    document, start = rows.document[order], rows.start[order]
    return pl.DataFrame(
        {
            "context": hashed(0, "context", hashes[document], start.astype(np.uint64)),
            "document": ids[document].tolist(),
            "documents": [ids[np.unique(row[row >= 0])].tolist() for row in documents],
            "start": start,
            "first_scored": rows.first_scored[order],
            "unscored": [
                np.flatnonzero((row < 0) & (np.cumsum(row >= 0) > 0)).astype(np.uint32) for row in documents
            ],
            "tokens": tokens,
        },
        schema=CONTEXT_SHARD,
    )


def _text(tokens: list[np.ndarray], documents: list[np.ndarray]) -> DocumentText:
    document = np.concatenate(documents)
    is_text = document >= 0
    return DocumentText(np.concatenate(tokens)[is_text].astype(np.int64), document[is_text])
