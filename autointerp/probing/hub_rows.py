"""Reads rows of data sets through the optional package `datasets`, or from a file that the user put there."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from autointerp.errors import CorpusError
from autointerp.probing.task_files import RowSource
from autointerp.sampling.corpora.hub_datasets import (
    commit_of,
    require_datasets,
    stream_split,
    unreadable,
)
from autointerp.sampling.corpora.local_files import LARGEST_DOCUMENT_BYTES
from autointerp.sampling.corpus import open_corpus

__all__ = ["HubReader", "InstalledDatasets"]

_LOADERS = ("json", "csv", "parquet", "text")
"""What `datasets` reads files of anywhere with; of those no commit is known."""
_LIBRARY = "stdlib"
_BY_HAND = "by-hand"
_PASSAGE_CHARACTERS = 400
_LARGEST_FIELD = 2**20


@runtime_checkable
class HubReader(Protocol):
    """What gives the rows of data sets."""

    def revision(self, source: RowSource) -> str:
        """The commit that `rows` will read: the one asked for, else the newest; empty where there is none."""
        ...

    def rows(self, source: RowSource, revision: str) -> Iterator[Mapping[str, Any]]:
        """The rows in their own order, one at a time.

        Raises:
            CorpusError: the data cannot be read here; the message says why and what to do.
        """
        ...


@dataclass(frozen=True)
class InstalledDatasets:
    """The hub, through `datasets`.

    `stdlib` is the running interpreter's library, `by-hand` a file that the user fetched.
    """

    folder: Path
    """Where files lie that have to be fetched by hand."""

    def revision(self, source: RowSource) -> str:
        """As `HubReader` says.

        Raises:
            CorpusError: the hub cannot be asked.
        """
        if source.dataset in (*_LOADERS, _LIBRARY, _BY_HAND):
            return source.revision or ""
        try:
            return commit_of(source.dataset, source.revision)
        except CorpusError:
            raise
        except Exception as error:  # no network, no such data set, ...
            raise unreadable(error, where=source.dataset) from error

    def rows(self, source: RowSource, revision: str) -> Iterator[Mapping[str, Any]]:
        """As `HubReader` says.

        Raises:
            CorpusError: as `HubReader` says.
        """
        if source.dataset == _LIBRARY:
            yield from _library_passages()
        elif source.dataset == _BY_HAND:
            yield from _file_rows(self.folder / str(source.data_files))
        else:
            yield from _hub_rows(source, revision)


def _hub_rows(source: RowSource, revision: str) -> Iterator[Mapping[str, Any]]:
    require_datasets(where=source.dataset)
    options: dict[str, Any] = {} if source.data_files is None else {"data_files": source.data_files}
    try:
        yield from stream_split(
            source.dataset, source.config, split=source.split, revision=revision, **options
        )
    except Exception as error:  # of whatever packages `datasets` uses: the task is skipped with the reason
        raise unreadable(error, where=source.dataset) from error


def _library_passages() -> Iterator[Mapping[str, Any]]:
    """The first passage of each module: its text up to a blank line, at least a few words."""
    for document in open_corpus(_LIBRARY).documents():
        for number, passage in enumerate(document.text.split("\n\n")[:4]):
            text = passage.strip()[:_PASSAGE_CHARACTERS]
            if len(text.split()) > 4:
                yield {"text": text, "module": document.id, "number": number}


def _file_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a CSV file with a header."""
    if not path.is_file():
        raise CorpusError(
            "has to be fetched by hand, it is on no hub",
            where=path,
            remedy="the task's source says where it is",
        )
    if path.stat().st_size > 8 * LARGEST_DOCUMENT_BYTES:
        raise CorpusError("is larger than 512 MiB", where=path, remedy="shorten it")
    limit = csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise CorpusError(f"is no readable CSV file ({error})", where=path) from error
    finally:
        csv.field_size_limit(limit)
