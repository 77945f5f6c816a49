"""Chunks of random tokens, as `sampling.contexts` would make them from text, without text or tokenizer."""

from collections.abc import Sequence

import torch

from autointerp.sampling.contexts import CorpusChunk, TokenBatch

__all__ = ["random_chunk", "random_documents"]

BOS = 0
"""Id that stands before every context and in its padding; documents hold ids from 3 on."""


def random_documents(lengths: Sequence[int], *, vocabulary_size: int, seed: int = 0) -> dict[str, list[int]]:
    """Documents of these lengths, by id; other seeds give other ids."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"document-{seed}-{index:04d}": torch.randint(
            3, vocabulary_size, (length,), generator=generator
        ).tolist()
        for index, length in enumerate(lengths)
    }


def random_chunk(
    documents: dict[str, list[int]],
    *,
    context_length: int = 16,
    rows_per_batch: int | None = 4,
    prepend_bos: bool = True,
    index: int = 0,
) -> CorpusChunk:
    """One chunk with all the documents; each context holds text of one, and is padded on the right.

    Args:
        documents: token ids by document id.
        context_length: positions of a context, a beginning-of-text token included.
        rows_per_batch: contexts in a batch; None for all in one.
        prepend_bos: whether a context begins with the token `BOS`.
        index: of the chunk.
    """
    room = context_length - prepend_bos
    pieces = [
        (place, start, ids[start : start + room])
        for place, ids in enumerate(documents.values())
        for start in range(0, len(ids), room)
    ]
    step = rows_per_batch or max(len(pieces), 1)
    batches = tuple(
        _batch(pieces[start : start + step], tuple(documents), prepend_bos=prepend_bos)
        for start in range(0, len(pieces), step)
    )
    return CorpusChunk(
        index=index,
        batches=batches,
        document_ids=tuple(documents),
        token_count=sum(int(batch.attention_mask.sum()) for batch in batches),
        dropped_token_count=0,
        sha256=f"{index:02d}{len(documents):062d}",
    )


def _batch(
    pieces: Sequence[tuple[int, int, list[int]]], document_ids: tuple[str, ...], *, prepend_bos: bool
) -> TokenBatch:
    width = max(len(ids) for _, _, ids in pieces) + prepend_bos
    tokens = torch.full((len(pieces), width), BOS)
    document_index = torch.full_like(tokens, -1)
    mask = torch.zeros(len(pieces), width, dtype=torch.bool)
    for row, (document, _, ids) in enumerate(pieces):
        text = slice(int(prepend_bos), len(ids) + prepend_bos)
        tokens[row, text] = torch.tensor(ids)
        document_index[row, text] = document
        mask[row, : text.stop] = True
    is_scored = document_index >= 0
    starts = torch.tensor([start for _, start, _ in pieces])
    return TokenBatch(tokens, mask, document_index, is_scored, is_scored.long(), starts, document_ids)
