"""A data set of the Hugging Face hub, or one that `datasets` loads from disk, as a corpus; streamed."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from autointerp.errors import CorpusError
from autointerp.sampling.corpora.local_files import refuse_huge

__all__ = ["HubDataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class HubDataset:
    """One split of a data set, in its own order; needs the optional package `datasets`."""

    path: str
    """Name on the hub, e.g. `roneneldan/TinyStories`."""
    text_field: str = "text"
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit, branch or tag; without it the newest commit is read."""

    @property
    def name(self) -> str:
        """Name on the hub (of local data: the last part of the path), with configuration and split."""
        name = Path(self.path).expanduser().resolve().name if self._is_local else self.path
        return ":".join(part for part in (name, self.config, self.split) if part)

    @property
    def _is_local(self) -> bool:
        path = Path(self.path).expanduser()
        return path.is_absolute() or self.path.startswith((".", "~")) or path.exists()

    @cached_property
    def commit(self) -> str:
        """What is read, however the branch moves on; empty where the hub cannot tell, or has no part."""
        if self._is_local or (self.revision and _COMMIT.fullmatch(self.revision)):
            return self.revision or ""
        from huggingface_hub import HfApi

        try:
            return (
                HfApi().dataset_info(self.path, revision=self.revision, timeout=_PATIENCE_SECONDS).sha or ""
            )
        except Exception:  # no network, no such data set: reading it says so
            return ""

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
        """What the fingerprint is taken over: name and commit, since the data lie elsewhere."""
        yield json.dumps(asdict(self) | {"revision": self.commit or self.revision}, sort_keys=True).encode()

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
            revision = self.commit or self.revision
            return load_dataset(self.path, self.config, split=self.split, revision=revision, streaming=True)
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
