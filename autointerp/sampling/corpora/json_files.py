"""JSON lines, or JSON lists, of strings or of objects with a text field, as a corpus."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import (
    LARGEST_DOCUMENT_BYTES,
    CorpusFile,
    decoded,
    hash_files,
    list_files,
    opened,
)

__all__ = ["JsonFiles"]

_SUFFIXES = (".jsonl", ".ndjson", ".json")
_LARGEST_LIST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class JsonFiles:
    """One file, or all .jsonl, .ndjson and .json files below a folder, by name, in the files' own order."""

    path: Path
    text_field: str = "text"
    """Which field of an object holds the text."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name (file and line or entry) and text of every document; null counts as empty.

        Raises:
            CorpusError: a line is no JSON, an object has no such field, or the field holds no text.
        """
        for file in list_files(self.path, _SUFFIXES):
            entries = self._list_entries(file) if _holds_list(file) else self._line_entries(file)
            for place, entry in entries:
                yield f"{file.name}:{place}", self._text(entry, where=f"{file.path}:{place}")

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over."""
        yield self.text_field.encode()
        yield from hash_files(list_files(self.path, _SUFFIXES))

    def _line_entries(self, file: CorpusFile) -> Iterator[tuple[int, Any]]:
        number = 0
        with opened(file) as stream:
            while line := stream.readline(LARGEST_DOCUMENT_BYTES + 1):
                number += 1
                where = f"{file.path}:{number}"
                if len(line) > LARGEST_DOCUMENT_BYTES:
                    size = LARGEST_DOCUMENT_BYTES >> 20
                    raise CorpusError(
                        f"the line is longer than {size} MiB", where=where, remedy="split it up"
                    )
                if line.strip():
                    yield number, _parsed(line, where=where)

    def _list_entries(self, file: CorpusFile) -> Iterator[tuple[int, Any]]:
        if file.path.stat().st_size > _LARGEST_LIST_BYTES:
            size = _LARGEST_LIST_BYTES >> 20
            raise CorpusError(
                f"the list is larger than {size} MiB", where=file.path, remedy="convert it to JSON lines"
            )
        with opened(file) as stream:
            entries = _parsed(stream.read(), where=str(file.path))
        yield from enumerate(entries)

    def _text(self, entry: Any, *, where: str) -> str:
        text = entry
        if isinstance(entry, dict):
            if self.text_field not in entry:
                fields = ", ".join(sorted(entry)) or "none"
                raise CorpusError(
                    f"there is no field {self.text_field!r}; the fields are {fields}",
                    where=where,
                    remedy="set text_field",
                )
            text = entry[self.text_field]
        if text is None:
            return ""
        if not isinstance(text, str):
            raise CorpusError(
                f"{type(text).__name__} where text is expected", where=where, remedy="set text_field"
            )
        return text


def _holds_list(file: CorpusFile) -> bool:
    """Whether the file is one JSON list; many .json files hold JSON lines in fact."""
    with opened(file) as stream:
        start = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return file.path.suffix == ".json" and start.startswith(b"[")


def _parsed(content: bytes, *, where: str) -> Any:
    try:
        return json.loads(decoded(content, where=where))
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"is no JSON ({error.msg}, column {error.colno})",
            where=where,
            remedy="check the file and the kind",
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError("is no usable JSON", where=where, remedy="check the file") from error
