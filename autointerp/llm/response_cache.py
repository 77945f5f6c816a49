"""`llm_replies.sqlite`: every answer with its question and its bill, kept the moment it comes."""

import asyncio
import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autointerp.errors import RunStoreError
from autointerp.explanation_records import Refusal
from autointerp.llm.answer_json import outcome_from_json, outcome_to_json
from autointerp.llm.outcomes import Outcome
from autointerp.llm.requests import Usage
from autointerp.llm.sqlite_writer import SqliteWriter, Write

__all__ = ["KeptAnswer", "ResponseCache"]

_APPLICATION_ID = 0x41494C52
_VERSION = 1
_TABLES = (
    "answers (key TEXT PRIMARY KEY, is_final INTEGER NOT NULL, time REAL NOT NULL, endpoint TEXT NOT NULL, "
    "model TEXT NOT NULL, role TEXT NOT NULL, metric TEXT NOT NULL, answered_by TEXT NOT NULL, "
    "fingerprint TEXT NOT NULL, cause TEXT, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, "
    "completion_tokens INTEGER NOT NULL, is_estimated INTEGER NOT NULL, attempts INTEGER NOT NULL, usd REAL, "
    "is_batch INTEGER NOT NULL, question BLOB NOT NULL, answer BLOB NOT NULL)",
    "losses (time REAL NOT NULL, model TEXT NOT NULL, role TEXT NOT NULL, metric TEXT NOT NULL, "
    "kind TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, usd REAL)",
    "facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "batches (id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, lines TEXT NOT NULL)",
)
_TOTALS = """
SELECT model, role, metric, COUNT(*) AS calls, SUM(attempts) - COUNT(*) AS retries,
    SUM(prompt_tokens) AS prompt_tokens, SUM(cached_tokens) AS cached_tokens,
    SUM(completion_tokens) AS completion_tokens, SUM(is_estimated) AS estimated_calls,
    SUM(is_batch) AS batch_calls, SUM(usd) AS usd, SUM(usd IS NULL) AS unpriced_calls
FROM answers GROUP BY model, role, metric ORDER BY model, role, metric"""


@dataclass(frozen=True)
class KeptAnswer:
    """One row: who was asked what for whom, and what came."""

    key: str
    endpoint: str
    model: str
    role: str
    metric: str
    question: Mapping[str, Any]
    """`requests.request_content`."""
    outcome: Outcome
    usd: float | None = None
    """None where the model has no price."""
    is_batch: bool = False
    time: float = field(default_factory=time.time)


class ResponseCache:
    """One file of answers; several threads and processes may use it at once.

    A write is committed to the write-ahead log before it counts as done, so it outlives the process, whatever
    ends that. That a request failed for good is kept too, but only for replays without an endpoint.

    Raises:
        RunStoreError: it is some other file, or damaged; it is left as it is.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it, or make it if it is not there."""
        self.path = path
        self._read_only = read_only
        with self._reported():
            self._reader = self._connect()
            self._reader.execute("BEGIN")
            _check(self._reader, path)
            self._reader.execute("COMMIT")
            if not read_only:
                _set_up(self._reader, path)
            self._reader.execute("SELECT COUNT(*) FROM (SELECT key FROM answers LIMIT 1)").fetchone()
        self._writer = None if read_only else SqliteWriter(self._connect)

    def close(self) -> None:
        """Finish what is being written."""
        if self._writer is not None:
            self._writer.close()
        self._reader.close()

    def __enter__(self) -> "ResponseCache":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def get(self, key: str, *, with_failed: bool = False) -> Outcome | None:
        """What was answered; `with_failed` also that a request failed for good, as replays need it."""
        with self._reported():
            row = self._reader.execute(
                "SELECT is_final, answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
            if row is None or not (row[0] or with_failed):
                return None
            return outcome_from_json(json.loads(zlib.decompress(row[1])))

    async def put(self, kept: KeptAnswer) -> Outcome:
        """Keep an answer; what is returned is what the file holds: another process may have been first."""
        if await self._write(lambda connection: _insert(connection, kept)):
            return kept.outcome
        return self.get(kept.key) or kept.outcome

    async def add_loss(
        self, account: tuple[str, str, str], kind: str, usage: Usage, *, usd: float | None
    ) -> None:
        """Book on (model, role, metric) what was perhaps billed, though nothing usable came."""
        row = (time.time(), *account, kind, usage.prompt_tokens, usage.completion_tokens, usd)
        statement = "INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        await self._write(lambda connection: connection.execute(statement, row).rowcount == 1)

    def fact(self, name: str) -> Any:
        """Something measured of an endpoint; None if it never was."""
        with self._reported():
            row = self._reader.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    async def set_fact(self, name: str, value: Any) -> None:
        """Keep something JSON-able under a name."""
        row = (name, json.dumps(value))
        statement = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
        await self._write(lambda connection: connection.execute(statement, row).rowcount == 1)

    def totals(self) -> list[dict[str, Any]]:
        """What all sittings asked and paid: a row per (model, role, metric)."""
        return self._rows(_TOTALS)

    def losses(self) -> list[dict[str, Any]]:
        """What was perhaps billed for nothing: a row per (model, role, metric, kind)."""
        return self._rows(
            "SELECT model, role, metric, kind, COUNT(*) AS calls, SUM(prompt_tokens) AS prompt_tokens, "
            "SUM(completion_tokens) AS completion_tokens, SUM(usd) AS usd, SUM(usd IS NULL) AS unpriced_calls"
            " FROM losses GROUP BY model, role, metric, kind ORDER BY model, role, metric, kind"
        )

    def refusals(self) -> list[dict[str, Any]]:
        """How many refusals of each cause: a row per (model, role, metric, cause)."""
        return self._rows(
            "SELECT model, role, metric, cause, COUNT(*) AS calls FROM answers WHERE cause IS NOT NULL "
            "GROUP BY model, role, metric, cause ORDER BY model, role, metric, cause"
        )

    def question(self, key: str) -> dict[str, Any] | None:
        """What was asked, for audits."""
        with self._reported():
            row = self._reader.execute("SELECT question FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else json.loads(zlib.decompress(row[0]))

    def batches(self, endpoint: str) -> dict[str, dict[str, str]]:
        """Batches sent and not yet fetched, by id: for each line's id the key of its answer."""
        with self._reported():
            rows = self._reader.execute("SELECT id, lines FROM batches WHERE endpoint = ?", (endpoint,))
            return {name: json.loads(lines) for name, lines in rows.fetchall()}

    async def set_batch(self, name: str, endpoint: str, lines: Mapping[str, str] | None) -> None:
        """Note that a batch was sent, or (None) that all of it was fetched."""
        if lines is None:
            await self._write(
                lambda connection: (
                    connection.execute("DELETE FROM batches WHERE id = ?", (name,)).rowcount > 0
                )
            )
            return
        row = (name, endpoint, json.dumps(dict(lines)))
        statement = "INSERT OR REPLACE INTO batches VALUES (?, ?, ?)"
        await self._write(lambda connection: connection.execute(statement, row).rowcount == 1)

    async def _write(self, write: Write) -> bool:
        if self._writer is None:
            raise RunStoreError("is open for reading only", where=self.path)
        with self._reported():
            return await asyncio.wrap_future(self._writer.submit(write))

    def _rows(self, query: str) -> list[dict[str, Any]]:
        with self._reported():
            cursor = self._reader.execute(query)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            address, uri=True, timeout=60, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, zlib.error, ValueError, KeyError, TypeError) as error:
            what, remedy = "is damaged, or no file of LLM answers", "move it away, or name another run folder"
            if isinstance(error, sqlite3.OperationalError):
                what, remedy = "cannot be opened, read or written", "check the folder's rights and free space"
            raise RunStoreError(f"{what} ({error})", where=self.path, remedy=remedy) from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of somebody else's, or of a later version."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if tables and owner != _APPLICATION_ID:
        remedy = "move it away, or name another run folder"
        raise RunStoreError("is some other program's database", where=path, remedy=remedy)
    if owner == _APPLICATION_ID and version > _VERSION:
        remedy = "use that version"
        raise RunStoreError("was written by a later version of autointerp", where=path, remedy=remedy)


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    """Tables and owner in one transaction: a half-made file would be taken for somebody else's."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    _check(connection, path)
    for statement in _TABLES:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {statement}")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, kept: KeptAnswer) -> bool:
    """Whether it is new; an answer replaces a failed request, nothing replaces an answer."""
    outcome, usage = kept.outcome, kept.outcome.usage
    answer = outcome.answer
    row = (
        kept.key,
        outcome.is_final,
        kept.time,
        kept.endpoint,
        kept.model,
        kept.role,
        kept.metric,
        outcome.model,
        outcome.fingerprint,
        answer.cause if isinstance(answer, Refusal) else None,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.is_estimated,
        outcome.attempts,
        kept.usd,
        kept.is_batch,
        _packed(kept.question),
        _packed(outcome_to_json(outcome)),
    )
    marks = ", ".join("?" * len(row))
    statement = f"INSERT INTO answers VALUES ({marks}) ON CONFLICT (key) DO NOTHING"
    connection.execute("DELETE FROM answers WHERE key = ? AND NOT is_final", (kept.key,))
    return connection.execute(statement, row).rowcount == 1


def _packed(content: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(content).encode(), level=3)
