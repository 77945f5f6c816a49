"""The batch interface of OpenAI's protocol: a file of requests goes up, a file of answers comes down."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autointerp.errors import EndpointError
from autointerp.llm.client import OpenAIClient
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.http_errors import HttpError, judged
from autointerp.llm.outcomes import Failure, Outcome
from autointerp.llm.reply_reading import read_reply
from autointerp.llm.requests import Request
from autointerp.llm.retrying import Retries

__all__ = ["BatchApi", "BatchState", "LineAnswer", "read_line"]

_REMEDY = "running the same again picks the batch up where it is; llm.batch = false asks without it"


@dataclass(frozen=True)
class LineAnswer:
    """What a batch's file says of one request."""

    status: int
    """Of HTTP; 0 where it was not answered (expired, cancelled)."""
    body: bytes


@dataclass(frozen=True)
class BatchState:
    """Where a batch is."""

    status: str
    files: tuple[str, ...]
    """Ids of the files with answers and with errors, as far as they are there."""
    problem: str = ""
    """Why it was refused as a whole."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ("completed", "failed", "expired", "cancelled")


class BatchApi:
    """Upload, start, look, fetch; each again after failures that may heal.

    Raises (all of them):
        EndpointError: it has no batch interface, refuses the batch, or does not answer any more.
    """

    def __init__(
        self, client: OpenAIClient, *, retries: Retries | None = None, clock: Clock = REAL_CLOCK
    ) -> None:
        """Nothing is sent yet."""
        self.client = client
        self._retries = retries or Retries()
        self._clock = clock

    async def upload(self, lines: Iterable[Mapping[str, Any]]) -> str:
        """The id of a file of requests."""
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        return _named((await self._object("upload", "requests.jsonl", content)).get("id"), self.client)

    async def start(self, file: str, path: str, *, mark: str) -> str:
        """The id of a batch of a file's requests; `mark` is kept with it, to be found by."""
        body = {
            "input_file_id": file,
            "endpoint": f"/v1{path}",
            "completion_window": "24h",
            "metadata": {"autointerp": mark},
        }
        return _named((await self._object("post", "/batches", body)).get("id"), self.client)

    async def find(self, mark: str) -> str | None:
        """The id of the batch with a mark, among the latest hundred."""
        listed = (await self._object("get", "/batches?limit=100")).get("data")
        for entry in listed if isinstance(listed, list) else []:
            metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
            if isinstance(metadata, Mapping) and metadata.get("autointerp") == mark:
                return _named(entry.get("id"), self.client)
        return None

    async def state(self, batch: str) -> BatchState:
        """Where a batch is; one that is not known there any more counts as failed."""
        found = await self._object("get", f"/batches/{batch}", may_be_lost=True)
        files = (found.get("output_file_id"), found.get("error_file_id"))
        errors = found.get("errors")
        problem = json.dumps(errors)[:300] if errors else ""
        names = tuple(name for name in files if isinstance(name, str) and name.isprintable())
        return BatchState(str(found.get("status")), names, problem)

    async def answers(self, file: str) -> dict[str, LineAnswer]:
        """Answers by the id of their request; lines that are no such thing are passed over."""
        return dict(_lines(await self._bytes("get", f"/files/{file}/content")))

    async def _object(self, method: str, *arguments: Any, may_be_lost: bool = False) -> dict[str, Any]:
        try:
            found = json.loads(await self._bytes(method, *arguments, may_be_lost=may_be_lost))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise EndpointError(
                "its batch interface does not answer in JSON", where=self.client.endpoint, remedy=_REMEDY
            )
        return found

    async def _bytes(self, method: str, *arguments: Any, may_be_lost: bool = False) -> bytes:
        attempt = 1
        while True:
            found = await getattr(self.client, method)(*arguments)
            if isinstance(found, bytes):
                return found
            if may_be_lost and isinstance(found, HttpError) and found.status == 404:
                return b'{"status": "failed"}'
            failure = found if isinstance(found, Failure) else self._verdict(found)
            if attempt >= self._retries.attempts:
                what = f"its batch interface does not answer ({failure.detail})"
                raise EndpointError(what, where=self.client.endpoint, remedy=_REMEDY)
            await self._clock.sleep(self._retries.wait_seconds(failure, attempt))
            attempt += 1

    def _verdict(self, error: HttpError) -> Failure:
        if error.status in (404, 405, 501):
            what = f"has no batch interface (HTTP {error.status}: {error.message})"
            raise EndpointError(what, where=self.client.endpoint, remedy="set llm.batch = false")
        verdict = judged(error, today=self._clock.today())
        if isinstance(verdict, Outcome):
            what = f"refused a batch (HTTP {error.status}: {error.message})"
            raise EndpointError(what, where=self.client.endpoint, remedy=_REMEDY)
        return verdict


def read_line(line: LineAnswer | None, request: Request, api: BatchApi, *, today: float) -> Outcome | Failure:
    """An answer of a batch by the rules of single ones; what never got one may be sent again.

    Raises:
        EndpointError: nothing asked there can succeed.
    """
    if line is None or line.status == 0:
        return Failure("server_error", "the batch ended before it was answered")
    if line.status == 200:
        return read_reply(line.body, request)
    return judged(api.client.error_of(line.status, line.body), today=today)


def _lines(content: bytes) -> Iterator[tuple[str, LineAnswer]]:
    for raw in content.splitlines():
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        name = line.get("custom_id") if isinstance(line, dict) else None
        if not isinstance(name, str):
            continue
        response = line.get("response")
        status = response.get("status_code") if isinstance(response, Mapping) else None
        if isinstance(status, int) and 100 <= status < 600 and isinstance(response, Mapping):
            yield name, LineAnswer(status, json.dumps(response.get("body")).encode())
        else:
            yield name, LineAnswer(0, b"")


def _named(value: Any, client: OpenAIClient) -> str:
    """An id as part of an address: no path, no query."""
    if isinstance(value, str) and value and all(letter.isalnum() or letter in "-_." for letter in value):
        return value
    raise EndpointError("its batch interface gave no id", where=client.endpoint, remedy=_REMEDY)
