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

__all__ = ["HubDataset", "commit_of", "require_datasets", "stream_split", "unreadable"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE_SECONDS = 20


def require_datasets(*, where: str, remedy: str = "pip install 'autointerp-suite[datasets]'") -> None:
    """Before the package is used.

    Raises:
        CorpusError: it is not installed.
    """
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise CorpusError("the package `datasets` is not installed", where=where, remedy=remedy) from error


def commit_of(name: str, revision: str | None) -> str:
    """The commit that a revision stands for now, or the newest; a commit stands for itself.

    Raises:
        CorpusError: the package that would read it is not installed.
        Exception: the hub cannot be asked, or has none; of whatever packages it is asked with.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    require_datasets(where=name)
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, revision=revision, timeout=_PATIENCE_SECONDS).sha or ""


def unreadable(error: Exception, *, where: str) -> CorpusError:
    """What to say of whatever `datasets`, or a package that it uses, raised."""
    reason = str(error).strip().splitlines()
    return CorpusError(
        f"the data set cannot be read ({reason[0][:200] if reason else type(error).__name__})",
        where=where,
        remedy="check the connection, and the data set's name, configuration and split",
    )


def stream_split(name: str, config: str | None, *, split: str, revision: str, **options: Any) -> Any:
    """The rows of one split, one at a time; without a revision the newest that can be had.

    Raises:
        OSError: a commit is asked for, and only another one can be had; and what else `datasets` raises.
    """
    return _opened(name, config, revision=revision, **options).as_streaming_dataset(split=split)


def _opened(name: str, config: str | None, *, revision: str, **options: Any) -> Any:
    from datasets import load_dataset_builder

    builder = load_dataset_builder(name, config, revision=revision or None, **options)
    # Where it cannot reach the hub, `datasets` takes what it kept last, of whatever commit.
    if all(map(_COMMIT.fullmatch, (revision, builder.hash or ""))) and builder.hash != revision:
        raise OSError(f"commit {revision} cannot be reached, and what is kept here is of {builder.hash}")
    return builder


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
        """What is read, however the branch moves on; empty for data on this machine.

        Raises:
            CorpusError: it is not known, since neither the hub can be asked nor was any of it kept here.
        """
        if self._is_local:
            return ""
        self._require_package()
        try:
            return self._newest_or_kept()
        except Exception as error:  # of whatever packages `datasets` uses
            raise self._unreadable(error) from error

    def _newest_or_kept(self) -> str:
        try:
            return commit_of(self.path, self.revision)
        except Exception:  # no network, no such data set, ...
            if self.revision:
                raise  # nobody knows which commit it stands for
            return _opened(self.path, self.config, revision="").hash or ""

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name (split and row) and text of every document; null counts as empty.

        Raises:
            CorpusError: `datasets` is not installed, the data set cannot be loaded, has no such field, or
                a text is larger than is held in memory.
        """
        try:
            for number, row in enumerate(self._rows()):
                yield f"{self.split}:{number}", self._text(row, number)
        except CorpusError:
            raise
        except Exception as error:  # the network, or damaged data, which each format says in its own way
            raise self._unreadable(error) from error

    def identity(self) -> Iterator[bytes]:
        """What the fingerprint is taken over: name and commit, since the data lie elsewhere."""
        yield json.dumps(asdict(self) | {"revision": self.commit or self.revision}, sort_keys=True).encode()

    def _rows(self) -> Any:
        self._require_package()
        if not self._is_local:
            revision = self.commit or self.revision or ""
            return stream_split(self.path, self.config, split=self.split, revision=revision)
        from datasets import load_dataset

        return load_dataset(self.path, self.config, split=self.split, revision=self.revision, streaming=True)

    def _require_package(self) -> None:
        remedy = "pip install 'autointerp-suite[datasets]', or use text, JSON lines or Parquet files"
        require_datasets(where=f"corpus {self.path}", remedy=remedy)

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
        return unreadable(error, where=f"corpus {self.name}")
