"""Turns documents into batches of token contexts, chunk by chunk; the tokenizer is the only model it knows.

A context begins with the tokenizer's BOS token, unless that is switched off, and holds text of one document
(or, packed, of several joined by EOS). A document lies wholly inside one chunk, so whatever is summed up per
document is complete when its chunk is done.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from autointerp.errors import CorpusError
from autointerp.sampling.context_cutting import ContextOptions, Cutter, Piece
from autointerp.sampling.corpus import Document
from autointerp.sampling.document_tokens import DocumentEncoder, EncodedDocument, bos_id, eos_id

__all__ = [
    "ContextOptions",
    "CorpusChunk",
    "DocumentSource",
    "Split",
    "TokenBatch",
    "corpus_chunks",
    "describe_contexts",
    "split_of",
]

Split = Literal["calibration", "evaluation"]


@runtime_checkable
class DocumentSource(Protocol):
    """What gives documents; `corpus.open_corpus` makes one."""

    def documents(self) -> Iterator[Document]:
        """The documents, one at a time, in the same order every time."""
        ...


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Contexts of about equal length; index 0 of a row is position 0 of its context."""

    tokens: Int[Tensor, "batch position"]
    attention_mask: Bool[Tensor, "batch position"]
    """False on padding, which is only ever on the right."""
    document_index: Int[Tensor, "batch position"]
    """Index into `document_ids`; -1 where nothing is scored."""
    is_scored: Bool[Tensor, "batch position"]
    """A token of a document's text: not BOS, not EOS, not padding, not the chat template's."""
    byte_count: Int[Tensor, "batch position"]
    """UTF-8 bytes of the document that the token stands for, 0 where not scored.

    Over a whole document they sum up to its size. Where several tokens share one character, the first
    has all of its bytes.
    """
    start: Int[Tensor, " batch"]
    """Where each context begins among the tokens of its document or, packed, of its bundle; no BOS counts."""
    document_ids: tuple[str, ...]
    """Of the whole chunk, in order."""

    def to(self, device: str | torch.device) -> "TokenBatch":
        """The same batch on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            attention_mask=self.attention_mask.to(device),
            document_index=self.document_index.to(device),
            is_scored=self.is_scored.to(device),
            byte_count=self.byte_count.to(device),
            start=self.start.to(device),
        )


@dataclass(frozen=True, eq=False)
class CorpusChunk:
    """Whole documents, as batches; what is held in memory at a time."""

    index: int
    batches: tuple[TokenBatch, ...]
    document_ids: tuple[str, ...]
    """Documents with at least one token in the chunk, in order of the corpus."""
    token_count: int
    """Tokens the subject sees: BOS and EOS included, padding not."""
    dropped_token_count: int
    """Text tokens of the documents read that are in no context: remainders, and what is over a limit."""
    sha256: str
    """Hash over the document ids."""


def split_of(document_id: str, *, calibration_fraction: float) -> Split:
    """The side on which a document stands, by its hash alone, so in every run and order the same.

    Args:
        document_id: content hash of the document.
        calibration_fraction: in [0, 1]; about that share of all documents calibrates.
    """
    # Hashed once more, so that the choice does not lean on the id's own digits, which others sort by.
    digest = hashlib.sha256(f"split {document_id}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "calibration" if share < calibration_fraction else "evaluation"


def describe_contexts(options: ContextOptions, tokenizer: Any) -> dict[str, Any]:
    """The choices as plain values, with the ids that they come to for this tokenizer."""
    bos = bos_id(tokenizer) if options.prepend_bos else None
    return asdict(options) | {
        "bos_token_id": bos,
        "bos_token": None if bos is None else str(tokenizer.convert_ids_to_tokens(bos)),
        "joining_token_id": eos_id(tokenizer) if options.packing == "packed" else None,
    }


def corpus_chunks(
    corpus: DocumentSource,
    tokenizer: Any,
    options: ContextOptions,
    *,
    batch_tokens: int,
    chunk_tokens: int,
    max_tokens: int | None = None,
    split: Split | None = None,
    calibration_fraction: float = 0.1,
) -> Iterator[CorpusChunk]:
    """Chunks of the corpus, made one at a time; the sizes of batches and chunks change no context.

    At most one document is read ahead of a chunk; packed, one bundle of documents (`ContextOptions.packing`).

    Args:
        corpus: gives the documents.
        tokenizer: a fast Hugging Face tokenizer.
        options: how documents become contexts.
        batch_tokens: positions of one batch, padding included; a single context may exceed it.
        chunk_tokens: a chunk ends before the document or bundle that would exceed it; a single one may.
        max_tokens: no more tokens in all (counted as `CorpusChunk.token_count`); the last document may be
            cut short, at a context's end.
        split: only the documents on this side; None for all.
        calibration_fraction: as in `split_of`.

    Raises:
        CorpusError: the tokenizer lacks what the options need, no document is on the side asked for, or not
            one context comes out.
    """
    encoder = DocumentEncoder(
        tokenizer, special_tokens=options.special_tokens, chat_template=options.chat_template
    )
    cutter = Cutter(options, bos_id=bos_id(tokenizer), eos_id=eos_id(tokenizer))
    tally = _Tally()
    documents = map(encoder.encode, _chosen(corpus, split, calibration_fraction, tally))
    bundles = _bundles(documents, cutter, max_tokens=max_tokens)
    spent = index = 0
    for group in _groups(bundles, chunk_tokens=chunk_tokens):
        pieces = _fitting(cutter, group, None if max_tokens is None else max_tokens - spent)
        if pieces:
            whole = [document for bundle in group for document in bundle.documents]
            chunk = _chunk(index, whole, pieces, cutter, batch_tokens=batch_tokens)
            yield chunk
            spent += chunk.token_count
            index += 1
    if index == 0:
        raise _nothing(split, tally)


@dataclass
class _Tally:
    """How many documents went by, and how many of them were on the side asked for."""

    read: int = 0
    chosen: int = 0


def _nothing(split: Split | None, tally: _Tally) -> CorpusError:
    if split and tally.read and not tally.chosen:
        documents = "one document" if tally.read == 1 else f"{tally.read} documents"
        return CorpusError(
            f"the corpus has {documents}, none of them in the {split} split; two splits are needed, for "
            "calibration and for evaluation, and a document is in one of them",
            where="corpus",
            remedy="give it more documents, or set corpus.separator to cut text files into documents",
        )
    return CorpusError(
        f"not one context came out for the {split} split" if split else "not one context came out",
        where="corpus",
        remedy="give it more or longer documents, a smaller context_length or more tokens",
    )


def _chosen(
    source: DocumentSource, split: Split | None, calibration_fraction: float, tally: _Tally
) -> Iterator[Document]:
    for document in source.documents():
        tally.read += 1
        if split is None or split_of(document.id, calibration_fraction=calibration_fraction) == split:
            tally.chosen += 1
            yield document


class _Bundle(NamedTuple):
    """Documents that are cut up together: one, or several that are packed."""

    documents: Sequence[EncodedDocument]
    token_count: int


def _bundles(
    documents: Iterable[EncodedDocument], cutter: Cutter, *, max_tokens: int | None
) -> Iterator[_Bundle]:
    """The documents in bundles that depend on nothing but them and the options; ends at `max_tokens`."""
    bundle: list[EncodedDocument] = []
    spent = load = 0
    for document in documents:
        bundle.append(document)
        load = cutter.grown(load, document)
        token_count = cutter.token_count(load)
        if max_tokens is not None and spent + token_count >= max_tokens:
            break
        if cutter.is_full(load):
            yield _Bundle(bundle, token_count)
            spent += token_count
            bundle, load = [], 0
    if bundle:
        yield _Bundle(bundle, cutter.token_count(load))


def _groups(bundles: Iterable[_Bundle], *, chunk_tokens: int) -> Iterator[list[_Bundle]]:
    """The bundles of one chunk at a time."""
    group: list[_Bundle] = []
    held = 0
    for bundle in bundles:
        if group and held + bundle.token_count > chunk_tokens:
            yield group
            group, held = [], 0
        group.append(bundle)
        held += bundle.token_count
    if group:
        yield group


def _fitting(cutter: Cutter, bundles: Sequence[_Bundle], room: int | None) -> list[Piece]:
    """The bundles' first pieces, as many as have `room` tokens."""
    fitting: list[Piece] = []
    total = place = 0
    for bundle in bundles:
        for piece in cutter.pieces(bundle.documents, first_place=place):
            total += len(piece.ids) + cutter.options.prepend_bos
            if room is not None and total > room:
                return fitting
            fitting.append(piece)
        place += len(bundle.documents)
    return fitting


def _chunk(
    index: int,
    documents: Sequence[EncodedDocument],
    pieces: Sequence[Piece],
    cutter: Cutter,
    *,
    batch_tokens: int,
) -> CorpusChunk:
    used = np.unique(np.concatenate([piece.document_index for piece in pieces]))
    used = used[used >= 0]
    new_index = np.full(len(documents) + 1, -1)  # its last entry answers for index -1
    new_index[used] = np.arange(len(used))
    pieces = [replace(piece, document_index=new_index[piece.document_index]) for piece in pieces]
    ids = tuple(documents[place].document_id for place in used)
    text_token_count = sum(int(document.is_text.sum()) for document in documents)
    return CorpusChunk(
        index=index,
        batches=tuple(_batch(rows, cutter, ids) for rows in _rows(pieces, cutter, batch_tokens)),
        document_ids=ids,
        token_count=sum(len(piece.ids) + cutter.options.prepend_bos for piece in pieces),
        dropped_token_count=text_token_count - sum(int(piece.is_text.sum()) for piece in pieces),
        sha256=hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    )


def _rows(pieces: Sequence[Piece], cutter: Cutter, batch_tokens: int) -> Iterator[Sequence[Piece]]:
    """Batches of pieces, longest first, so that the rows of a batch are about equally long."""
    ordered = sorted(pieces, key=lambda piece: -len(piece.ids))
    start = 0
    while start < len(ordered):
        width = len(ordered[start].ids) + cutter.options.prepend_bos
        count = max(1, batch_tokens // width)
        yield ordered[start : start + count]
        start += count


def _batch(pieces: Sequence[Piece], cutter: Cutter, document_ids: tuple[str, ...]) -> TokenBatch:
    bos = int(cutter.options.prepend_bos)
    shape = (len(pieces), bos + len(pieces[0].ids))
    padding = cutter.eos_id if cutter.eos_id is not None else 0  # any id would do: it is masked
    tokens = np.full(shape, padding, dtype=np.int64)
    attention_mask, is_scored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    document_index, byte_count = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    if bos:
        tokens[:, 0] = cutter.bos_id
    for row, piece in enumerate(pieces):
        end = bos + len(piece.ids)
        attention_mask[row, :end] = True
        tokens[row, bos:end] = piece.ids
        document_index[row, bos:end] = piece.document_index
        is_scored[row, bos:end] = piece.is_text
        byte_count[row, bos:end] = piece.byte_count
    return TokenBatch(
        tokens=torch.from_numpy(tokens),
        attention_mask=torch.from_numpy(attention_mask),
        document_index=torch.from_numpy(document_index),
        is_scored=torch.from_numpy(is_scored),
        byte_count=torch.from_numpy(byte_count),
        start=torch.tensor([piece.start for piece in pieces]),
        document_ids=document_ids,
    )
