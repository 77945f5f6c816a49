"""Finds, reads and hashes the files of a corpus; every fault names the file and what to do."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from autointerp.errors import CorpusError

__all__ = [
    "LARGEST_DOCUMENT_BYTES",
    "CorpusFile",
    "decoded",
    "hash_files",
    "list_files",
    "opened",
    "refuse_huge",
    "shuffled",
]

LARGEST_DOCUMENT_BYTES = 64 * 2**20
"""One document is held in memory, with its tokens about fifty times its size; so there is a limit."""

_HASH_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class CorpusFile:
    """A file, with the name that the report may show."""

    path: Path
    name: str
    """Relative to the corpus, with slashes."""


def list_files(path: Path, suffixes: Sequence[str]) -> list[CorpusFile]:
    """The file itself, or all files below a folder with one of the suffixes, by name; hidden ones left out.

    Raises:
        CorpusError: nothing is there, or the folder has no such file.
    """
    if path.is_file():
        return [CorpusFile(path, path.name)]
    if not path.is_dir():
        raise CorpusError("no such file or folder", where=path, remedy="check the corpus path")
    found = [
        CorpusFile(entry, entry.relative_to(path).as_posix())
        for entry in path.rglob("*")
        if entry.suffix in suffixes and entry.is_file()
        if not any(part.startswith(".") for part in entry.relative_to(path).parts)
    ]
    if not found:
        raise CorpusError(
            f"the folder has no {', '.join(suffixes)} file",
            where=path,
            remedy="choose another folder or another kind of corpus",
        )
    return sorted(found, key=lambda file: file.name)


def shuffled(files: Iterable[CorpusFile]) -> list[CorpusFile]:
    """The files in the order of their names' hashes: the first of them are a random sample of all."""
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def opened(file: CorpusFile) -> BinaryIO:
    """The file, open for reading bytes.

    Raises:
        CorpusError: it cannot be opened.
    """
    try:
        return file.path.open("rb")
    except OSError as error:
        raise CorpusError(f"cannot be read ({error.strerror})", where=file.path) from error


def decoded(content: bytes, *, where: str) -> str:
    """The bytes as UTF-8 text, without a byte order mark.

    Raises:
        CorpusError: they are no UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"is not UTF-8 (byte {error.start} is 0x{content[error.start]:02x})",
            where=where,
            remedy="convert it to UTF-8",
        ) from error


def refuse_huge(text: str, *, where: str) -> str:
    """The text, if it is not larger than is held in memory with its tokens.

    Raises:
        CorpusError: it has more than `LARGEST_DOCUMENT_BYTES` in UTF-8.
    """
    # A character has at most four bytes, so that most texts need not be encoded to know.
    if 4 * len(text) > LARGEST_DOCUMENT_BYTES:
        size = len(text.encode(errors="surrogatepass"))
        if size > LARGEST_DOCUMENT_BYTES:
            raise CorpusError(
                f"the text is larger than {LARGEST_DOCUMENT_BYTES >> 20} MiB",
                where=where,
                remedy="split it up",
            )
    return text


def hash_files(files: Iterable[CorpusFile]) -> Iterator[bytes]:
    """Bytes that identify the files: their names, sizes and contents, a block at a time."""
    for file in files:
        yield f"{file.name}\0{file.path.stat().st_size}\0".encode()
        with opened(file) as stream:
            while block := stream.read(_HASH_BLOCK_BYTES):
                yield block
