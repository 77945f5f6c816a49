"""Cuts encoded documents into the pieces that become contexts; knows no tensors and no batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autointerp.errors import CorpusError
from autointerp.sampling.document_tokens import EncodedDocument

__all__ = ["ContextOptions", "Cutter", "Piece"]

_SMALLEST_CONTEXT = 2
_PACKED_CONTEXTS = 16
"""Contexts' worth of tokens that are packed together: so many that a remainder matters little, and a number
of its own, so that contexts do not depend on how large chunks are."""


@dataclass(frozen=True)
class ContextOptions:
    """How documents become contexts. Every field changes the numbers, so every field is reported."""

    context_length: int = 64
    """Positions in a context, BOS included. The paper uses 64 everywhere (section 2.1)."""
    prepend_bos: bool = True
    """Whether each context begins with the tokenizer's BOS token (its EOS token if it has no BOS)."""
    packing: Literal["document", "packed"] = "document"
    """`document`: a context holds text of one document. `packed`: documents joined by EOS, as many as have at
    least 16 x context_length tokens, are cut up together; what is left over is one shorter context."""
    drop_remainder: bool = False
    """Whether the last, shorter piece is dropped; else it is padded on the right."""
    max_contexts_per_document: int | None = None
    """Take at most so many contexts' tokens from a document, its first ones."""
    special_tokens: Literal["text", "parse"] = "text"
    """`text`: a special token spelled out in a document is ordinary text. `parse`: it is the token."""
    chat_template: bool = False
    """Whether each document stands as one user turn in the tokenizer's chat template."""

    def __post_init__(self) -> None:
        """Refuse what no context can be made with."""
        if self.context_length < _SMALLEST_CONTEXT:
            raise CorpusError(
                f"context_length = {self.context_length} is too short", remedy="choose at least 2 tokens"
            )
        if self.max_contexts_per_document is not None and self.max_contexts_per_document < 1:
            raise CorpusError("max_contexts_per_document must be at least 1", remedy="or leave it out")


@dataclass(frozen=True, eq=False)
class Piece:
    """The tokens of one context, without BOS and padding; all arrays have one entry per token."""

    ids: np.ndarray
    document_index: np.ndarray
    """Index of the document among those cut together; -1 where not text."""
    is_text: np.ndarray
    byte_count: np.ndarray
    start: int = 0
    """Where it begins among the tokens of its document or, packed, of its bundle."""

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The arrays, in order."""
        return self.ids, self.document_index, self.is_text, self.byte_count


@dataclass(frozen=True)
class Cutter:
    """Cuts documents as the options say."""

    options: ContextOptions
    bos_id: int | None
    eos_id: int | None

    def __post_init__(self) -> None:
        """Refuse options that the tokenizer has no token for."""
        if self.options.prepend_bos and self.bos_id is None:
            raise CorpusError(
                "the tokenizer has neither a BOS nor an EOS token",
                where="corpus",
                remedy="set prepend_bos = false",
            )
        if self.options.packing == "packed" and self.eos_id is None:
            raise CorpusError(
                "the tokenizer has no EOS token to join documents with",
                where="corpus",
                remedy='set packing = "document"',
            )

    @property
    def room(self) -> int:
        """Tokens of a document (or, packed, of the joined documents) that one context takes."""
        return self.options.context_length - self.options.prepend_bos

    def grown(self, load: int, document: EncodedDocument) -> int:
        """What a bundle holds after one more document, starting from 0; `token_count` makes tokens of it."""
        length = self._kept_length(document)
        if self.options.packing == "packed":
            return load + length + (1 if load else 0)
        return load + self._contexts_token_count(length)

    def token_count(self, load: int) -> int:
        """How many tokens, BOS and EOS included, the contexts of a bundle of `load` have."""
        return self._contexts_token_count(load) if self.options.packing == "packed" else load

    def is_full(self, load: int) -> bool:
        """Whether a bundle of `load` takes no further document; not packed, one is all it takes."""
        return self.options.packing == "document" or load >= _PACKED_CONTEXTS * self.options.context_length

    def pieces(self, documents: Sequence[EncodedDocument], *, first_place: int = 0) -> Iterator[Piece]:
        """A bundle's pieces in order; those with nothing to score are left out.

        Args:
            documents: those of one bundle.
            first_place: index of the first of them in the pieces' `document_index`.
        """
        joined = self.options.packing == "packed"
        streams = [
            self._stream(place, document, joined=joined and place > first_place)
            for place, document in enumerate(documents, start=first_place)
        ]
        if joined:
            columns = zip(*(stream.columns for stream in streams), strict=True)
            streams = [Piece(*(np.concatenate(parts) for parts in columns))]
        for stream in streams:
            for start in range(0, len(stream.ids), self.room):
                piece = Piece(*(column[start : start + self.room] for column in stream.columns), start=start)
                if self._takes(len(piece.ids)) and piece.is_text.any():
                    yield piece

    def _stream(self, place: int, document: EncodedDocument, *, joined: bool) -> Piece:
        kept = slice(self._kept_length(document))
        is_text = document.is_text[kept]
        stream = Piece(document.ids[kept], np.where(is_text, place, -1), is_text, document.byte_count[kept])
        if not joined:
            return stream
        eos = (self.eos_id, -1, False, 0)
        return Piece(
            *(np.insert(column, 0, value) for column, value in zip(stream.columns, eos, strict=True))
        )

    def _kept_length(self, document: EncodedDocument) -> int:
        limit = self.options.max_contexts_per_document
        return len(document.ids) if limit is None else min(len(document.ids), limit * self.room)

    def _takes(self, length: int) -> bool:
        """Whether a piece of so many tokens becomes a context."""
        if self.options.drop_remainder:
            return length == self.room
        return length + self.options.prepend_bos >= _SMALLEST_CONTEXT

    def _contexts_token_count(self, length: int) -> int:
        full, rest = divmod(length, self.room)
        remainder = rest + self.options.prepend_bos if rest and self._takes(rest) else 0
        return full * self.options.context_length + remainder
