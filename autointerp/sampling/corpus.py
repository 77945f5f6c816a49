"""Turns text from wherever it lies into documents with content hashes; knows no tokens.

A document's id depends on its text alone, so the same text has the same id in every run and corpus. Empty
documents and repeated ones are left out and counted: a text that came twice would else stand on both sides
of a split, or count twice as evidence.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.hub_datasets import HubDataset
from autointerp.sampling.corpora.json_files import JsonFiles
from autointerp.sampling.corpora.parquet_files import ParquetFiles
from autointerp.sampling.corpora.stdlib import StandardLibrary
from autointerp.sampling.corpora.text_files import TextFiles

__all__ = ["Corpus", "CorpusKind", "Document", "TextSource", "document_of", "open_corpus"]

CorpusKind = Literal["stdlib", "text", "jsonl", "parquet", "datasets"]


@dataclass(frozen=True)
class Document:
    """One text."""

    id: str
    """First 16 hex digits of the SHA-256 of the text."""
    name: str
    """Where it comes from, for people: a relative path, or a file and line."""
    text: str


@runtime_checkable
class TextSource(Protocol):
    """One kind of corpus."""

    @property
    def name(self) -> str:
        """What the report calls it; no absolute path."""
        ...

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and text of every document, in the same order every time, without holding them all."""
        ...

    def identity(self) -> Iterator[bytes]:
        """Bytes that differ when the texts differ."""
        ...


def document_of(text: str, *, name: str = "") -> Document:
    """The document of a text; half surrogate pairs, which no encoding has, become U+FFFD."""
    try:
        content = text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        content = text.encode()
    return Document(hashlib.sha256(content).hexdigest()[:16], name, text)


class Corpus:
    """The documents of one source."""

    def __init__(self, kind: str, source: TextSource) -> None:
        """Nothing is read yet."""
        self.kind = kind
        self.source = source
        self._fingerprint: str | None = None
        self._seen = {"document_count": 0, "empty_count": 0, "repeated_count": 0}

    def documents(self) -> Iterator[Document]:
        """The documents, each text once, none empty; streamed, in the same order every time.

        Raises:
            CorpusError: the text cannot be read, or there is none.
        """
        counts = self._seen = {"document_count": 0, "empty_count": 0, "repeated_count": 0}
        seen: set[int] = set()
        for name, text in self.source.texts():
            if not text.strip():
                counts["empty_count"] += 1
                continue
            document = document_of(text, name=name)
            key = int(document.id, 16)
            if key in seen:
                counts["repeated_count"] += 1
                continue
            seen.add(key)
            counts["document_count"] += 1
            yield document
        if not counts["document_count"]:
            raise CorpusError(
                f"no text in it ({counts['empty_count']} empty documents)",
                where=f"corpus {self.source.name}",
                remedy="choose another corpus",
            )

    def fingerprint(self) -> str:
        """SHA-256 over what the documents come from; reads all files, once, without parsing them."""
        if self._fingerprint is None:
            digest = hashlib.sha256(self.kind.encode())
            for block in self.source.identity():
                digest.update(block)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def revision(self) -> str:
        """The commit of a data set of the hub that is read; empty for any other text."""
        return self.source.commit if isinstance(self.source, HubDataset) else ""

    def describe(self) -> dict[str, Any]:
        """What a report says of it; the counts are of the latest pass, as far as it was read."""
        return {
            "kind": self.kind,
            "name": self.source.name,
            **({"revision": self.revision} if self.revision else {}),
            "fingerprint": self.fingerprint(),
            **self._seen,
        }


def open_corpus(
    kind: CorpusKind | str,
    *,
    path: str | Path | None = None,
    text_field: str = "text",
    separator: str | None = None,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
) -> Corpus:
    """A corpus; nothing is read before its first document is asked for, but a path must be there.

    Args:
        kind: `stdlib` (the running interpreter's own library), `text`, `jsonl` (also JSON lists), `parquet`
            or `datasets`.
        path: file or folder; for `datasets` the data set's name; `stdlib` needs none.
        text_field: field (`jsonl`, `datasets`) or column (`parquet`) with the text.
        separator: of `text`: what stands between two documents of one file, in a folder of each file; with
            two line feeds a document is a paragraph. Without it a file is one document, so that a
            single file has no second one to calibrate on.
        config: of `datasets`.
        split: of `datasets`.
        revision: of `datasets`; without it the newest commit, which `Corpus.revision` then names.

    Raises:
        CorpusError: the kind is unknown, the path is missing, or the separator is empty.
    """
    if kind == "stdlib":
        return Corpus(kind, StandardLibrary())
    if path is None or not str(path):
        raise CorpusError(f"a corpus of kind {kind!r} needs a path", where="corpus", remedy="set path")
    if kind == "datasets":
        return Corpus(kind, HubDataset(str(path), text_field, config, split, revision))
    if separator == "":
        raise CorpusError("the separator is empty", where="corpus", remedy="leave it out, or name one")
    folder = Path(path).expanduser()
    sources: dict[str, TextSource] = {
        "text": TextFiles(folder, separator),
        "jsonl": JsonFiles(folder, text_field),
        "parquet": ParquetFiles(folder, text_field),
    }
    if kind not in sources:
        raise CorpusError(
            f"unknown kind {kind!r}",
            where="corpus",
            remedy=f"the kinds are stdlib, {', '.join(sources)}, datasets",
        )
    if not folder.exists():
        raise CorpusError("no such file or folder", where=folder, remedy="check the corpus path")
    return Corpus(kind, sources[kind])
