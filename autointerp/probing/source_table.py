"""Lines units of Python source up with the subject's tokens: every place that a probe task could mark."""

import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from autointerp.probe_records import ProbeText
from autointerp.probing.drawing import hash_of, is_test_group
from autointerp.probing.python_units import SourceLines, SourceUnits, source_units
from autointerp.probing.source_features import FACTS, FEATURES, UNIT_KINDS
from autointerp.probing.syntax_spans import syntax_spans
from autointerp.probing.text_encoder import TextEncoder, byte_offsets
from autointerp.sampling.corpus import Document
from autointerp.sampling.document_tokens import EncodedDocument

__all__ = ["SourceTable", "source_table"]

_UNPARSABLE = (SyntaxError, ValueError, RecursionError, tokenize.TokenError)


@dataclass(frozen=True, eq=False)
class _File:
    """One file, tokenised by Python and by the subject."""

    document: Document
    encoded: EncodedDocument
    ends: np.ndarray
    """[token] where each ends, in bytes."""
    is_test_file: bool


@dataclass(frozen=True, eq=False)
class _Marks:
    """Of one file: the units that lie whole in one context and end with a token, one entry each."""

    piece: np.ndarray
    position: np.ndarray
    token: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class SourceTable:
    """All contexts of some files, and all places in them that can be marked."""

    encoder: TextEncoder
    files: tuple[_File, ...]
    file: Int[np.ndarray, " context"]
    """Of every context: its file, and the slice of that file's tokens."""
    begin: Int[np.ndarray, " context"]
    end: Int[np.ndarray, " context"]
    key: Int[np.ndarray, " context"]
    """A hash of the document and of where the context lies in it."""
    facts: Bool[np.ndarray, "context fact"]
    is_test: Bool[np.ndarray, " context"]
    """Whether the context's document is on the test side."""
    from_tests: Bool[np.ndarray, " context"]
    """Whether it is one of the library's own tests."""
    context: Int[np.ndarray, " mark"]
    position: Int[np.ndarray, " mark"]
    token: Int[np.ndarray, " mark"]
    features: Bool[np.ndarray, "mark feature"]
    skipped_count: int
    """Files that this interpreter cannot parse."""

    def text(self, context: int) -> ProbeText | None:
        """A context as the subject reads it; None where the offsets cannot be verified by decoding."""
        file = self.files[self.file[context]]
        begin, end = int(self.begin[context]), int(self.end[context])
        start = int(file.ends[begin - 1]) if begin else 0
        ids = file.encoded.ids[begin:end]
        content = file.document.text.encode()
        if not self.encoder.offsets_hold(ids, file.ends[begin:end], start, content):
            return None
        return self.encoder.text(ids, file.document.id)


def source_table(library: Iterable[Document], tests: Iterable[Document], encoder: TextEncoder) -> SourceTable:
    """The contexts and marks of files; each file is parsed and tokenised once.

    Args:
        library: modules.
        tests: tests of the library.
        encoder: how contexts are cut.
    """
    files: list[_File] = []
    marks: list[_Marks] = []
    facts: list[list[bool]] = []
    skipped = 0
    for is_test_file, documents in ((False, library), (True, tests)):
        for document in documents:
            analysed = _analysed(document)
            if analysed is None:
                skipped += 1
                continue
            units, features, known = analysed
            encoded = encoder.encode(document)
            file = _File(document, encoded, np.cumsum(encoded.byte_count), is_test_file)
            files.append(file)
            marks.append(_aligned(file, units, features, encoder))
            facts.append([fact in known or (fact == "is_test" and is_test_file) for fact in FACTS])
    return _joined(encoder, files, marks, facts, skipped)


def _analysed(document: Document) -> tuple[SourceUnits, np.ndarray, set[str]] | None:
    """Units, [unit, feature] and the facts of a file; None if it is no source of this Python."""
    lines = SourceLines(document.text)
    try:
        syntax = syntax_spans(document.text, lines)
        units = source_units(document.text, lines, syntax.docstrings)
    except _UNPARSABLE:
        return None
    features = np.zeros((len(units.start), len(FEATURES)), dtype=bool)
    features[np.arange(len(units.start)), units.kind] = True
    for column, name in enumerate(FEATURES[len(UNIT_KINDS) :], start=len(UNIT_KINDS)):
        spans = units.spans.get(name, []) + syntax.spans.get(name, [])
        if spans:
            features[:, column] = _covered(units.start, np.asarray(spans, dtype=np.int64))
    return units, features, syntax.facts


def _covered(starts: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Which starts, in order, lie in one of the spans."""
    change = np.zeros(len(starts) + 1, dtype=np.int64)
    np.add.at(change, np.searchsorted(starts, spans[:, 0]), 1)
    np.add.at(change, np.searchsorted(starts, spans[:, 1]), -1)
    return np.cumsum(change)[:-1] > 0


def _aligned(file: _File, units: SourceUnits, features: np.ndarray, encoder: TextEncoder) -> _Marks:
    """Units whose last token ends with them, and whose tokens are all in one context."""
    starts = byte_offsets(file.document.text, units.start)
    ends = byte_offsets(file.document.text, units.end)
    last = np.searchsorted(file.ends, ends, side="right") - 1
    first = np.searchsorted(file.ends, starts, side="right")
    room = encoder.cutter.room
    whole = (last >= 0) & (file.ends[last] == ends) & (first // room == last // room)
    last = last[whole]
    return _Marks(last // room, last % room + len(encoder.first), file.encoded.ids[last], features[whole])


def _joined(
    encoder: TextEncoder,
    files: Sequence[_File],
    marks: Sequence[_Marks],
    facts: Sequence[list[bool]],
    skipped: int,
) -> SourceTable:
    owner, begins, ends, keys, context_of = [], [], [], [], []
    seen: set[bytes] = set()
    cutter = encoder.cutter
    for place, file in enumerate(files):
        count = -(-len(file.encoded.ids) // cutter.room)
        number = np.full(count, -1)
        for piece in cutter.pieces([file.encoded]):
            content = piece.ids.tobytes()
            if content in seen:  # a licence, say: it would stand on both sides of the split
                continue
            seen.add(content)
            number[piece.start // cutter.room] = len(owner)
            owner.append(place)
            begins.append(piece.start)
            ends.append(piece.start + len(piece.ids))
            keys.append(hash_of(file.document.id, piece.start))
        context_of.append(number[marks[place].piece])
    context = np.concatenate([np.zeros(0, dtype=np.int64), *context_of]).astype(np.int64)
    in_one = context >= 0
    owners = np.asarray(owner, dtype=np.int64)
    tests = np.array([is_test_group(file.document.id) for file in files], dtype=bool)
    return SourceTable(
        encoder=encoder,
        files=tuple(files),
        file=owners,
        begin=np.asarray(begins, dtype=np.int64),
        end=np.asarray(ends, dtype=np.int64),
        key=np.asarray(keys, dtype=np.int64),
        facts=np.asarray(facts, dtype=bool).reshape(-1, len(FACTS))[owners],
        is_test=tests[owners],
        from_tests=np.array([file.is_test_file for file in files], dtype=bool)[owners],
        context=context[in_one],
        position=_column(marks, "position")[in_one],
        token=_column(marks, "token")[in_one],
        features=np.concatenate(
            [np.zeros((0, len(FEATURES)), dtype=bool), *(mark.features for mark in marks)]
        )[in_one],
        skipped_count=skipped,
    )


def _column(marks: Sequence[_Marks], name: str) -> np.ndarray:
    columns = [getattr(mark, name) for mark in marks]
    return np.concatenate([np.zeros(0, dtype=np.int64), *columns]).astype(np.int64)
