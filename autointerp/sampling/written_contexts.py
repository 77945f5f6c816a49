"""Texts that were not in the corpus -> contexts as those of the corpus, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.sampling.context_cutting import ContextOptions, Cutter
from autointerp.sampling.corpus import document_of
from autointerp.sampling.document_tokens import DocumentEncoder, bos_id, eos_id

__all__ = ["ContextBatch", "ContextRow", "WrittenContexts", "padded", "real_tokens"]


@dataclass(frozen=True, eq=False)
class ContextRow:
    """One context to run."""

    key: int
    """Whose it is, for the caller."""
    ids: tuple[int, ...]
    """BOS and the chat template's tokens included, where the options have them."""
    is_text: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class ContextBatch:
    """Contexts of about equal length, padded on the right."""

    rows: Sequence[ContextRow]
    tokens: Int[Tensor, "batch position"]
    mask: Bool[Tensor, "batch position"]
    """False on padding."""


class WrittenContexts:
    """Makes of each text the first context that the corpus would make of it."""

    def __init__(self, tokenizer: Any, options: ContextOptions, *, batch_tokens: int) -> None:
        """Check that the tokenizer has what the options need.

        Args:
            tokenizer: the subject's.
            options: of the corpus; texts are never packed.
            batch_tokens: positions of one batch, padding included; a single context may exceed it.

        Raises:
            CorpusError: the tokenizer lacks what the options need.
        """
        options = replace(options, packing="document")
        self._encoder = DocumentEncoder(
            tokenizer, special_tokens=options.special_tokens, chat_template=options.chat_template
        )
        self._cutter = Cutter(options, bos_id=bos_id(tokenizer), eos_id=eos_id(tokenizer))
        self._batch_tokens = batch_tokens

    def of_text(self, key: int, text: str) -> ContextRow:
        """The text's first context."""
        coded = self._encoder.encode(document_of(text))
        room = self._cutter.room
        return self._with_bos(key, coded.ids[:room].tolist(), coded.is_text[:room].tolist())

    def of_ids(self, key: int, ids: Sequence[int]) -> ContextRow:
        """A context of these tokens of text."""
        kept = list(ids)[: self._cutter.room]
        return self._with_bos(key, kept, [True] * len(kept))

    def _with_bos(self, key: int, ids: list[int], is_text: list[bool]) -> ContextRow:
        begin = self._cutter.bos_id if self._cutter.options.prepend_bos else None
        if begin is not None:
            ids, is_text = [begin, *ids], [False, *is_text]
        return ContextRow(key, tuple(ids), tuple(is_text))

    def batches(self, rows: Sequence[ContextRow], *, longer_by: int = 0) -> Iterator[ContextBatch]:
        """The rows in batches, longest first; `longer_by`: tokens that each will grow by."""
        ordered = sorted(rows, key=lambda row: -len(row.ids))
        start = 0
        while start < len(ordered):
            count = max(1, self._batch_tokens // (len(ordered[start].ids) + longer_by))
            part = ordered[start : start + count]
            yield ContextBatch(part, *padded([row.ids for row in part]))
            start += count


def padded(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Ids with padding on the right, and where there is none."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(width)[None] < lengths[:, None]


def real_tokens(
    x: Float[Tensor, "batch position width"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "token width"]:
    """The activations at real tokens, at least in float32, as the pass hands them to dictionaries."""
    found = x[mask.to(x.device)]
    return found.to(torch.promote_types(found.dtype, torch.float32))
