"""Text files as a corpus: one document per file, or the parts of files between separators."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import (
    LARGEST_DOCUMENT_BYTES,
    CorpusFile,
    decoded,
    hash_files,
    list_files,
    opened,
    shuffled,
)

__all__ = ["TextFiles"]

_SUFFIXES = (".txt", ".md", ".py")
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class TextFiles:
    """One file, or all .txt, .md and .py files below a folder, in the order of their names' hashes."""

    path: Path
    separator: str | None = None
    """What stands between two documents of one file, e.g. `<|endoftext|>` or, for paragraphs, a blank line
    (two line feeds); None: a file is one document."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and text of every document.

        Raises:
            CorpusError: a file cannot be read, is not UTF-8, or a document is larger than is held in memory.
        """
        for file in self._files():
            for number, part in enumerate(self._parts(file), start=1):
                name = file.name if self.separator is None else f"{file.name}#{number}"
                yield (
                    name,
                    decoded(
                        part, where=f"{file.path}" if self.separator is None else f"{file.path}#{number}"
                    ),
                )

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over."""
        yield repr(self.separator).encode()
        yield from hash_files(self._files())

    def _files(self) -> list[CorpusFile]:
        return shuffled(list_files(self.path, _SUFFIXES))

    def _parts(self, file: CorpusFile) -> Iterator[bytes]:
        """The file cut at separators, read block by block; at most one document is held."""
        separator = None if self.separator is None else self.separator.encode()
        rest = b""
        with opened(file) as stream:
            while block := stream.read(_BLOCK_BYTES):
                rest += block
                if separator:
                    *complete, rest = rest.split(separator)
                    yield from complete
                if len(rest) > LARGEST_DOCUMENT_BYTES:
                    raise _too_large(file)
        yield rest


def _too_large(file: CorpusFile) -> CorpusError:
    return CorpusError(
        f"a document is larger than {LARGEST_DOCUMENT_BYTES >> 20} MiB",
        where=file.path,
        remedy="say what separates its documents (separator), or convert it to JSON lines",
    )
