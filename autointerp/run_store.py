"""The run directory: finished pieces of a run, written so that a killed process leaves no half of one.

Every file appears under its name only when all of its bytes are on the disk: it is written beside it, flushed
and renamed. A piece that cannot be read back is set aside and counts as absent, so that it is computed again.

    identity.json      what the numbers depend on          finished.json   the run is complete
    suite.toml         the resolved suite                  run.jsonl       events, one a line
    chunks/*.parquet   shards, the means of resuming       run.lock        held while a process works here
"""

import errno
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

import polars as pl

from autointerp.atomic_files import append, drop_torn_line, reported, write_atomically
from autointerp.errors import RunStoreError
from autointerp.run_events import new_event, read_events

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs in one directory are then not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["MemoryStore", "RunStore", "read_events"]

_CHUNKS = "chunks"
_LONGEST_SHOWN = 42  # a commit with its quotes, which has to be given to resume where a data set moved on
_OWN_FILES = {"identity.json", "finished.json", "run.lock", "run.jsonl"}
_WRITTEN_BY_RUNS = (
    "finished.json",  # first: what is only half removed must not pass for complete
    *("report.json", "report.html", "report.md", "report.csv"),
    *("observations/*.parquet", "latents/*.parquet", "predictions/*.parquet"),
    *("explanations.jsonl", "scores.jsonl"),  # llm_replies.sqlite stays: answers are good for any run
    *(f"{_CHUNKS}/*.parquet", f"{_CHUNKS}/*.corrupt"),
    *("suite.toml", "run.jsonl"),
)
"""What makes way where another run is replaced; whatever else lies in the folder stays."""
_UNLOCKABLE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


class MemoryStore:
    """The shard methods of `RunStore` for callers who want no files."""

    def __init__(self) -> None:
        self._frames: dict[str, pl.DataFrame] = {}
        self.events: list[dict[str, Any]] = []
        """What `event` was told, in order."""

    def has(self, key: str) -> bool:
        """Whether the shard was written."""
        return key in self._frames

    def write(self, key: str, frame: pl.DataFrame) -> None:
        """Keep a shard; a second one under the same key replaces the first."""
        self._frames[key] = frame

    def read(self, key: str) -> pl.DataFrame:
        """A shard; KeyError if there is none."""
        return self._frames[key]

    def keys(self, prefix: str = "", *, suffix: str = "") -> list[str]:
        """Sorted keys of all shards that begin and end so."""
        return sorted(k for k in self._frames if k.startswith(prefix) and k.endswith(suffix))

    def read_all(self, prefix: str = "", *, suffix: str = "") -> dict[str, pl.DataFrame]:
        """All shards whose keys begin and end so, by sorted key."""
        return {key: self._frames[key] for key in self.keys(prefix, suffix=suffix)}

    def event(self, kind: str, **fields: Any) -> None:
        """Remember an event."""
        self.events.append(new_event(kind, fields))


class RunStore:
    """One run's directory, locked while open. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, identity: Mapping[str, Any], lock: int | None) -> None:
        """Callers use `RunStore.open`."""
        self.path = path
        self.identity = identity
        self._lock = lock
        self._sound: set[str] = set()  # shards that were read back once: `has` need not do so again

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        suite_toml: str,
        identity: Mapping[str, Any],
        replace_other: bool = False,
    ) -> "RunStore":
        """Create a run directory, or resume the run that it holds.

        Args:
            path: the directory; made if absent, and must otherwise be empty, hold this very run, or hold
                another one that has computed nothing yet, which is then taken over.
            suite_toml: the resolved suite, kept as `suite.toml`.
            identity: all that the numbers depend on, JSON-able: hashes of suite, subject, corpus and so on.
            replace_other: where the directory holds another run, remove it and begin anew. Only files that
                a run writes are removed; any others stay.

        Raises:
            RunStoreError: it cannot be written, is in use by another process, holds something else, or
                holds another run; the message names the fields of the identity that differ.
        """
        path = Path(path)
        identity = json.loads(json.dumps(identity, sort_keys=True))
        with reported(path):
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            lock = _take_lock(path)
        store = cls(path, identity, lock)
        try:
            store._begin(suite_toml, replace_other=replace_other)
        except BaseException:
            store.close()
            raise
        return store

    def _begin(self, suite_toml: str, *, replace_other: bool) -> None:
        """With the lock held: check or write the identity, and clear up after a killed predecessor."""
        with reported(self.path):
            (self.path / _CHUNKS).mkdir(exist_ok=True)
            is_resumed = self._holds_this_run(replace_other=replace_other)
            if not is_resumed:
                write_atomically(self.path / "identity.json", _json_bytes(self.identity))
            for leftover in self.path.rglob(".*.tmp"):
                leftover.unlink()
            drop_torn_line(self.path / "run.jsonl")
        self.write_text("suite.toml", suite_toml)
        self.event("resumed" if is_resumed else "started")

    def _holds_this_run(self, *, replace_other: bool) -> bool:
        """Whether this run was begun here; another one is removed where that is allowed, else an error."""
        if not (self.path / "identity.json").exists():
            return False
        try:
            differences = _differences(_read_identity(self.path), self.identity)
        except RunStoreError:
            if not replace_other:
                raise
            differences = ["identity.json is damaged"]
        if not differences:
            return True
        if not replace_other and _has_computed(self.path):
            raise RunStoreError(
                f"the folder holds another run: {_first_of(differences)}",
                where=self.path,
                remedy="name another folder with --out, delete this one, or give its settings to resume it",
            )
        # identity.json goes last, by being replaced: killed in between, this is still the other run
        for pattern in _WRITTEN_BY_RUNS:
            for file in self.path.glob(pattern):
                file.unlink()
        return False

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; the operating system does so too when the process dies."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has(self, key: str) -> bool:
        """Whether the shard is there and can be read; a damaged one is set aside and counts as absent."""
        return key in self._sound or self._load(key) is not None

    def write(self, key: str, frame: pl.DataFrame) -> None:
        """Put a shard on the disk, wholly or not at all; it replaces one of the same key."""
        self._write_frame(self._shard(key), frame)
        self._sound.add(key)

    def read(self, key: str) -> pl.DataFrame:
        """A shard; KeyError if there is none or it is damaged."""
        frame = self._load(key)
        if frame is None:
            raise KeyError(key)
        return frame

    def keys(self, prefix: str = "", *, suffix: str = "") -> list[str]:
        """Sorted keys of all shards that begin and end so, damaged ones included until they are read."""
        names = (file.name.removesuffix(".parquet") for file in (self.path / _CHUNKS).glob("*.parquet"))
        keys = (unquote(name.replace("~", "/")) for name in names)
        return sorted(key for key in keys if key.startswith(prefix) and key.endswith(suffix))

    def read_all(self, prefix: str = "", *, suffix: str = "") -> dict[str, pl.DataFrame]:
        """All shards whose keys begin and end so, by sorted key.

        Raises:
            RunStoreError: one is damaged. It is set aside; going on without it would give a number over
                less than what was measured.
        """
        frames = {}
        for key in self.keys(prefix, suffix=suffix):
            frame = self._load(key)
            if frame is None:
                raise RunStoreError(
                    f"the shard {key} was damaged and is set aside",
                    where=self.path,
                    remedy="run the same command again, which computes it anew",
                )
            frames[key] = frame
        return frames

    def write_table(self, name: str, frame: pl.DataFrame) -> Path:
        """Write a final table, e.g. `observations/reconstruction.parquet`, wholly or not at all."""
        target = self._inside(name)
        self._write_frame(target, frame)
        return target

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file, e.g. `report.html`, wholly or not at all."""
        target = self._inside(name)
        with reported(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, text.encode())
        return target

    def remove(self, pattern: str) -> None:
        """Delete final files that do not belong to the run any more, e.g. `predictions/*.parquet`."""
        self._inside(pattern)
        for file in self.path.glob(pattern):
            with reported(file):
                file.unlink(missing_ok=True)

    def event(self, kind: str, **fields: Any) -> None:
        """Append `{"time", "event": kind, **fields}` to run.jsonl as one line.

        Values of environment variables that hold secrets are blotted out of texts.
        """
        line = json.dumps(new_event(kind, fields), allow_nan=False) + "\n"
        with reported(self.path / "run.jsonl"):
            append(self.path / "run.jsonl", line)

    def events(self) -> list[dict[str, Any]]:
        """All events; a line that a dying process left unfinished is passed over."""
        return read_events(self.path / "run.jsonl")

    def finish(self) -> None:
        """Mark the run as complete: nothing of it is to be computed again."""
        self.event("finished")
        with reported(self.path):
            write_atomically(self.path / "finished.json", _json_bytes({"identity": self.identity}))

    def reopen(self) -> None:
        """Take the finished mark away, so that what is made of the shards is made again."""
        with reported(self.path):
            (self.path / "finished.json").unlink(missing_ok=True)
        self.event("reopened")

    @property
    def is_finished(self) -> bool:
        """Whether this very run was completed here."""
        try:
            marker = json.loads((self.path / "finished.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(marker, dict) and marker.get("identity") == self.identity

    def _shard(self, key: str) -> Path:
        name = "~".join(quote(part, safe="").replace("~", "%7E") for part in key.split("/")) + ".parquet"
        if not key or len(name) > 200:
            raise ValueError(f"a shard's key must be 1 to about 190 characters, got {key!r}")
        return self.path / _CHUNKS / name

    def _inside(self, name: str) -> Path:
        target = self.path / name
        parts = Path(name).parts
        if Path(name).is_absolute() or not parts or ".." in parts or parts[0] in {*_OWN_FILES, _CHUNKS}:
            raise ValueError(f"not a name for a file of a run: {name!r}")
        return target

    def _write_frame(self, target: Path, frame: pl.DataFrame) -> None:
        content = io.BytesIO()
        frame.write_parquet(content)
        with reported(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content.getvalue())

    def _load(self, key: str) -> pl.DataFrame | None:
        """The shard, or None; a file that is no whole Parquet file is renamed to `*.corrupt`."""
        file = self._shard(key)
        with reported(file):
            content = file.read_bytes() if file.exists() else None
        if content is None:
            return None
        try:
            frame = pl.read_parquet(io.BytesIO(content))
        except _UNREADABLE as error:
            with reported(file):
                file.replace(file.with_suffix(".corrupt"))
            self._sound.discard(key)
            self.event("shard_damaged", key=key, error=type(error).__name__)
            return None
        self._sound.add(key)
        return frame


def _refuse_foreign(path: Path) -> None:
    """A folder must be empty, hold a run, what a run killed at its start left, or kept answers to replay."""
    names = {entry.name for entry in path.iterdir()}
    if "identity.json" in names:
        return
    if _CHUNKS in names:
        names |= {f"{_CHUNKS}/{entry.name}" for entry in (path / _CHUNKS).iterdir()}
    leftovers = {name for name in names if name.startswith(".") and name.endswith(".tmp")}
    answers = {name for name in names if name.startswith("llm_replies.sqlite")}
    if names - leftovers - answers - {"run.lock", _CHUNKS}:
        raise RunStoreError(
            "the folder is not empty and holds no run", where=path, remedy="name a new folder with --out"
        )


def _take_lock(path: Path) -> int | None:
    """An exclusive lock that ends with the process; None where the file system knows no locks."""
    descriptor = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    if fcntl is None:
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNLOCKABLE:
            return descriptor
        os.close(descriptor)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        raise RunStoreError(
            "another process is working in this run directory",
            where=path,
            remedy="wait until it ends, or name another folder with --out",
        ) from None
    return descriptor


def _has_computed(path: Path) -> bool:
    """Whether the run here has anything to lose."""
    return (path / "finished.json").exists() or any((path / _CHUNKS).glob("*.parquet"))


def _read_identity(path: Path) -> Any:
    try:
        return json.loads((path / "identity.json").read_text())
    except ValueError as error:
        raise RunStoreError(
            "identity.json is damaged",
            where=path,
            remedy="name another folder with --out, or delete this one",
        ) from error


def _first_of(differences: Sequence[str], *, shown: int = 4) -> str:
    more = f"; and {len(differences) - shown} more" if len(differences) > shown else ""
    return "; ".join(differences[:shown]) + more


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """One line for each field in which two identities differ."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return [
            line
            for field in sorted(found.keys() | wanted.keys())
            for line in _differences(
                found.get(field), wanted.get(field), f"{name}.{field}" if name else field
            )
        ]
    if found == wanted:
        return []
    there, here = (_shortened(value) for value in (found, wanted))
    return [f"{name or 'identity'} is {there} there, {here} here"]


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
