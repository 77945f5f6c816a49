"""Chunks of text in, shuffled blocks of activations out: one pass over the text for all autoencoders.

A block is a bounded number of tokens from consecutive chunks, in random order. Blocks are the unit of
resuming: which chunks were used up is all that has to be remembered, and a resumed run skips them without
running the subject. Knows nothing of autoencoders.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.errors import CorpusError

__all__ = ["ActivationBlock", "ActivationSource", "ReadableSubject", "StreamPosition", "TokenChunk"]


@runtime_checkable
class _Tokens(Protocol):
    @property
    def tokens(self) -> Int[Tensor, "batch position"]: ...
    @property
    def attention_mask(self) -> Bool[Tensor, "batch position"]: ...


@runtime_checkable
class TokenChunk(Protocol):
    """What is used of a `CorpusChunk`."""

    @property
    def batches(self) -> Sequence[_Tokens]:
        """Batches of contexts."""
        ...


@runtime_checkable
class ReadableSubject(Protocol):
    """What is used of a `SubjectModel`."""

    name: str
    sha256: str

    def read(
        self,
        tokens: Int[Tensor, "batch position"],
        sites: Sequence[str],
        attention_mask: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """Activations by site; runs no block above the deepest site."""
        ...


class StreamPosition(NamedTuple):
    """How much of the text was used up."""

    epoch: int
    chunks: int
    """Chunks taken in this epoch, the held-out ones included."""


class ActivationBlock(NamedTuple):
    """Activations to train on."""

    activations: Float[Tensor, "token d_model"]
    """In random order."""
    after: StreamPosition
    """Where the stream stands once this block is used."""


@dataclass(frozen=True)
class ActivationSource:
    """Where activations come from.

    All tokens that are not padding are used, a beginning-of-text token too: a dictionary that replaces the
    residual stream meets it in every context.
    """

    subject: ReadableSubject
    site: str
    chunks: Callable[[], Iterable[TokenChunk]]
    """Starts the text from its beginning, the same text each time it is called."""
    held_out_chunks: int = 1
    """First chunks of the text that are kept for `held_out` and never trained on."""
    block_tokens: int = 131_072
    """A block holds at least so many tokens, at most one chunk more; d_model * 4 bytes each."""
    least_tokens: int = 1
    """What is left at the end of the text is dropped when it is less than this: a batch."""
    seed: int = 0

    def held_out(self, limit: int) -> Float[Tensor, "token d_model"]:
        """At most `limit` tokens' activations from the chunks that are never trained on, in reading order.

        Raises:
            CorpusError: there is no text at all.
        """
        parts: list[Tensor] = []
        for chunk, _ in zip(self.chunks(), range(self.held_out_chunks), strict=False):
            for part in self._read(chunk):
                parts.append(part)
                if sum(map(len, parts)) >= limit:
                    return torch.cat(parts)[:limit]
        if not parts:
            raise CorpusError(
                "there is no text", where="training corpus", remedy="give a corpus with some text"
            )
        return torch.cat(parts)

    def blocks(self, start: StreamPosition) -> Iterator[ActivationBlock]:
        """Blocks from `start` on, without end: the text is begun again when it is used up.

        Raises:
            CorpusError: less than a batch is left of the text beside the held-out chunks.
        """
        epoch, skip = start
        while True:
            block_count = 0
            for block in self._epoch(epoch, skip):
                block_count += 1
                yield block
            if skip == 0 and block_count == 0:
                raise CorpusError(
                    f"fewer than {self.least_tokens} tokens are left to train on beside the "
                    f"{self.held_out_chunks} held-out chunk(s)",
                    where="training corpus",
                    remedy="give more text, or smaller chunks and batches",
                )
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[ActivationBlock]:
        parts: list[Tensor] = []
        for index, chunk in enumerate(self.chunks()):
            if index < max(skip, self.held_out_chunks):
                continue
            parts.extend(self._read(chunk))
            if sum(map(len, parts)) >= max(self.block_tokens, self.least_tokens):
                yield self._shuffled(parts, StreamPosition(epoch, index + 1))
                parts = []
        if sum(map(len, parts)) >= self.least_tokens:
            yield self._shuffled(parts, StreamPosition(epoch + 1, 0))

    @torch.no_grad()
    def _read(self, chunk: TokenChunk) -> Iterator[Float[Tensor, "token d_model"]]:
        for batch in chunk.batches:
            mask = batch.attention_mask.bool()
            read = self.subject.read(batch.tokens, [self.site], attention_mask=batch.attention_mask)
            yield read[self.site][mask.to(read[self.site].device)].float()

    def _shuffled(self, parts: list[Tensor], after: StreamPosition) -> ActivationBlock:
        # Seeded by the place in the text, so that a resumed run shuffles as the uninterrupted one did.
        entropy = np.random.SeedSequence([self.seed, *after]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
        everything = torch.cat(parts)
        order = torch.randperm(everything.shape[0], generator=generator)
        return ActivationBlock(everything[order.to(everything.device)], after)
