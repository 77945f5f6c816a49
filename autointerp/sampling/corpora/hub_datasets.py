"""A data set of the Hugging Face hub, or one that `datasets` loads from disk, as a corpus; streamed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import refuse_huge

__all__ = ["HubDataset"]


@dataclass(frozen=True)
class HubDataset:
    """One split of a data set, in its own order; needs the optional package `datasets`."""

    path: str
    """Name on the hub, e.g. `roneneldan/TinyStories`."""
    text_field: str = "text"
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit or tag; without it the data may change between runs unseen."""

    @property
    def name(self) -> str:
        """Name on the hub (of local data: the last part of the path), with configuration and split."""
        path = Path(self.path).expanduser()
        is_local = path.is_absolute() or self.path.startswith((".", "~")) or path.exists()
        name = path.resolve().name if is_local else self.path
        return ":".join(part for part in (name, self.config, self.split) if part)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name (split and row) and text of every document; null counts as empty.

        Raises:
            CorpusError: `datasets` is not installed, the data set cannot be loaded, has no such field, or
                a text is larger than is held in memory.
        """
        try:
            for number, row in enumerate(self._rows()):
                yield f"{self.split}:{number}", self._text(row, number)
        except (OSError, ValueError) as error:  # while streaming: the network, or damaged data
            raise self._unreadable(error) from error

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over: the name, since the data lie elsewhere."""
        yield json.dumps(asdict(self), sort_keys=True).encode()

    def _rows(self) -> Any:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise CorpusError(
                "the package `datasets` is not installed",
                where=f"corpus {self.path}",
                remedy="pip install 'autointerp-suite[datasets]', or use text, JSON lines or Parquet files",
            ) from error
        try:
            return load_dataset(
                self.path, self.config, split=self.split, revision=self.revision, streaming=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise self._unreadable(error) from error

    def _text(self, row: dict[str, Any], number: int) -> str:
        where = f"{self.name}:{number}"
        if self.text_field not in row:
            raise CorpusError(
                f"there is no field {self.text_field!r}; the fields are {', '.join(sorted(row)) or 'none'}",
                where=where,
                remedy="set text_field",
            )
        text = row[self.text_field]
        if text is None:
            return ""
        if not isinstance(text, str):
            raise CorpusError(
                f"{type(text).__name__} where text is expected", where=where, remedy="set text_field"
            )
        return refuse_huge(text, where=where)

    def _unreadable(self, error: Exception) -> CorpusError:
        reason = str(error).strip().splitlines()
        return CorpusError(
            f"the data set cannot be read ({reason[0][:200] if reason else type(error).__name__})",
            where=f"corpus {self.name}",
            remedy="check its name, configuration, split and the connection",
        )
