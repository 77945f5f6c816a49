"""Turns texts into token ids with exact byte offsets, as a run makes contexts, and checks the offsets."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from autointerp.probe_records import ProbeText
from autointerp.probing.drawing import hash_of
from autointerp.sampling.context_cutting import Cutter
from autointerp.sampling.contexts import ContextOptions
from autointerp.sampling.corpus import Document
from autointerp.sampling.document_tokens import DocumentEncoder, EncodedDocument, bos_id, eos_id

__all__ = ["TextEncoder", "byte_offsets", "context_id"]


def byte_offsets(text: str, places: Int[np.ndarray, " place"]) -> Int[np.ndarray, " place"]:
    """UTF-8 byte offsets of character offsets."""
    if text.isascii():
        return places
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])[places]


def context_id(group: str, tokens: tuple[int, ...]) -> str:
    """The id of a text of so many tokens."""
    return f"{hash_of(group, *tokens):016x}"


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A tokenizer with the choices that a run makes for its contexts.

    Texts are cut document by document, whatever the run's packing, and without the chat template: a text has
    one group, and its marks are tokens of its own.
    """

    tokenizer: Any
    options: ContextOptions
    _encoder: DocumentEncoder
    _token_texts: dict[int, str]

    @classmethod
    def of(cls, tokenizer: Any, options: ContextOptions) -> "TextEncoder":
        """The encoder of a run.

        Raises:
            CorpusError: the tokenizer is a slow one, or lacks the token that contexts begin with.
        """
        options = replace(options, packing="document", chat_template=False)
        return cls(tokenizer, options, DocumentEncoder(tokenizer, special_tokens=options.special_tokens), {})

    @property
    def cutter(self) -> Cutter:
        """What cuts documents into contexts."""
        return Cutter(self.options, bos_id=bos_id(self.tokenizer), eos_id=eos_id(self.tokenizer))

    @property
    def first(self) -> tuple[int, ...]:
        """What stands before the tokens of every text: BOS, or nothing."""
        bos = bos_id(self.tokenizer)
        return (bos,) if self.options.prepend_bos and bos is not None else ()

    def encode(self, document: Document) -> EncodedDocument:
        """The document's tokens, without BOS."""
        return self._encoder.encode(document)

    def text(self, ids: np.ndarray, group: str) -> ProbeText:
        """The text that the subject reads."""
        tokens = self.first + tuple(ids.tolist())
        return ProbeText(context_id(group, tokens), tokens, group)

    def offsets_hold(self, ids: np.ndarray, ends: np.ndarray, start: int, content: bytes) -> bool:
        """Whether tokens, decoded alone, are the text that their offsets say, but for blanks and case.

        Tokens that end at the same byte (a blank put before the text, parts of a character) count as one.

        Args:
            ids: [token].
            ends: [token] where each ends in `content`, in bytes.
            start: where the first begins.
            content: the document in UTF-8.
        """
        last = np.flatnonzero(np.diff(ends, append=-1))
        begin, first = start, 0
        for place, end in zip(last.tolist(), ends[last].tolist(), strict=True):
            covered = content[begin:end].decode(errors="replace")
            alone = "".join(map(self._token_text, ids[first : place + 1].tolist()))
            begin, first = end, place + 1
            # A part of a character decodes to U+FFFD, and says nothing of where it lies.
            if "\ufffd" not in alone and covered.strip().casefold() != alone.strip():
                return False
        return True

    def _token_text(self, token: int) -> str:
        if token not in self._token_texts:
            text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
            self._token_texts[token] = text.casefold()
        return self._token_texts[token]
