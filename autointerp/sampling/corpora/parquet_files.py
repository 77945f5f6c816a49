"""A text column of Parquet files as a corpus: one document per row."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import CorpusFile, hash_files, list_files, refuse_huge

__all__ = ["ParquetFiles"]

_ROWS_AT_A_TIME = 1024
# Polars panics on some damaged pages; that exception is no `Exception`.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class ParquetFiles:
    """One file, or all .parquet files below a folder, by name, in the files' own order."""

    path: Path
    text_field: str = "text"
    """Which column holds the text."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name (file and row) and text of every document; null counts as empty.

        Raises:
            CorpusError: a file is no Parquet, has no such column, the column holds no text, or
                a text is larger than is held in memory.
        """
        for file in list_files(self.path, [".parquet"]):
            row = 0
            for rows in self._slices(file):
                for text in rows:
                    yield f"{file.name}:{row}", refuse_huge(text or "", where=f"{file.path}:{row}")
                    row += 1

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over."""
        yield self.text_field.encode()
        yield from hash_files(list_files(self.path, [".parquet"]))

    def _slices(self, file: CorpusFile) -> Iterator[pl.Series]:
        self._check_column(file)
        table = pl.scan_parquet(file.path).select(self.text_field)
        start = 0
        while True:
            try:
                rows = table.slice(start, _ROWS_AT_A_TIME).collect()[self.text_field]
            except _UNREADABLE as error:
                raise _unreadable(file, error) from error
            if not len(rows):
                return
            yield rows
            start += len(rows)

    def _check_column(self, file: CorpusFile) -> None:
        try:
            schema = pl.read_parquet_schema(file.path)
        except _UNREADABLE as error:
            raise _unreadable(file, error) from error
        if self.text_field not in schema:
            raise CorpusError(
                f"there is no column {self.text_field!r}; the columns are {', '.join(schema) or 'none'}",
                where=file.path,
                remedy="set text_field",
            )
        if schema[self.text_field] not in (pl.String, pl.Categorical):
            raise CorpusError(
                f"column {self.text_field!r} holds {schema[self.text_field]}, not text",
                where=file.path,
                remedy="set text_field",
            )


def _unreadable(file: CorpusFile, error: BaseException) -> CorpusError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorpusError(
        f"is no readable Parquet file ({reason})", where=file.path, remedy="get an undamaged copy"
    )
