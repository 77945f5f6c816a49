"""Listens on the loopback interface, counts the calls, and hands them to a backend.

    with tiny_chat_server(ScriptedBackend(["429", "hello"])) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="any")

It speaks /v1/chat/completions, /v1/completions, /v1/models, /v1/files and /v1/batches.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from autointerp.testing.tiny_chat_server.batch_jobs import BatchJobs
from autointerp.testing.tiny_chat_server.call_log import CallLog, CallRecord
from autointerp.testing.tiny_chat_server.exchange import Answer, Backend, Call, body_key, error_answer
from autointerp.testing.tiny_chat_server.http_wire import HttpRequest, read_request, write_answer

__all__ = ["TinyChatServer", "tiny_chat_server"]

_CALL_PATHS = ("/v1/chat/completions", "/v1/completions")


class TinyChatServer:
    """A server that runs in a thread of its own; made by `tiny_chat_server`."""

    def __init__(
        self,
        backend: Backend,
        *,
        latency_seconds: float = 0.0,
        api_key: str | None = None,
        batch_looks: int = 1,
        port: int = 0,
    ) -> None:
        """See `tiny_chat_server`."""
        self.backend, self.log = backend, CallLog()
        self._latency, self._api_key, self._asked_port = latency_seconds, api_key, port
        self._batches = BatchJobs(self._answer_line, looks=batch_looks)
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0
        """Where it listens; 0 before it was started."""

    @property
    def base_url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen on the loopback interface.

        Raises:
            OSError: the port is taken.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except OSError:
            self._end()
            raise

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._asked_port, backlog=1024, limit=1024 * 1024
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        open_ones = list(self._connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while request := await read_request(reader):
                if not await self._respond(request, writer) or not request.is_kept_alive:
                    break
        except asyncio.CancelledError:
            return  # the server stops; streams of Python 3.11 would log a cancelled handler as an error
        finally:
            self._connections.discard(task)
            writer.close()

    async def _respond(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection can go on."""
        if request.path in _CALL_PATHS and request.method == "POST":
            return await self._respond_to_call(request, writer)
        answer = await self._answer_other(request)
        return await write_answer(writer, answer, keep_alive=request.is_kept_alive)

    async def _respond_to_call(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        body = request.json()
        if body is None:
            refused = error_answer(400, "the body is no JSON object")
            return await write_answer(writer, refused, keep_alive=request.is_kept_alive)
        key, answer = body_key(request.path, body), None
        counts = self.log.begin(key)
        try:
            answer = await self._answer(_call(request.path, body, request.headers, counts))
            await asyncio.sleep(self._latency + answer.delay_seconds)
        finally:  # noted before it is sent, so that whoever has the answer finds it in the log
            self.log.end(_record(key, request.path, answer))
        return await write_answer(writer, answer, keep_alive=request.is_kept_alive)

    async def _answer(self, call: Call) -> Answer:
        if self._api_key is not None and call.headers.get("authorization") != f"Bearer {self._api_key}":
            return _wrong_key()
        if call.body.get("stream"):
            return error_answer(400, "this server does not stream", code="unsupported_value")
        try:
            return await self.backend.answer(call)
        except Exception as error:  # whatever a backend does wrong is an answer, not a dropped connection
            return error_answer(500, f"{type(error).__name__}: {error}", kind="server_error")

    async def _answer_other(self, request: HttpRequest) -> Answer:
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return _wrong_key()
        if request.path == "/v1/models":
            model = {
                "id": self.backend.model,
                "object": "model",
                "created": 1_700_000_000,
                "owned_by": "tiny",
            }
            return Answer({"object": "list", "data": [model]})
        found = await self._batches.answer(request)
        return found or error_answer(404, f"no such address: {request.path}")

    async def _answer_line(self, path: str, body: Mapping[str, Any]) -> Answer:
        if path not in _CALL_PATHS:
            return error_answer(400, f"no such address: {path}")
        key = body_key(path, body)
        answer = await self._answer(_call(path, body, {}, self.log.begin(key), is_checked=self._api_key))
        self.log.end(_record(key, path, answer))
        return answer


def _call(
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    counts: tuple[int, int, int],
    *,
    is_checked: str | None = None,
) -> Call:
    number, earlier, in_flight = counts
    if is_checked is not None:
        headers = {"authorization": f"Bearer {is_checked}"}
    return Call(path, body, headers, number=number, earlier=earlier, in_flight=in_flight)


def _record(key: str, path: str, answer: Answer | None) -> CallRecord:
    if answer is None:
        return CallRecord(key, path, 0, "")
    return CallRecord(key, path, answer.status if answer.cut == "nowhere" else 0, answer.fault)


def _wrong_key() -> Answer:
    return error_answer(401, "Incorrect API key provided.", code="invalid_api_key")


@contextmanager
def tiny_chat_server(
    backend: Backend,
    *,
    latency_seconds: float = 0.0,
    api_key: str | None = None,
    batch_looks: int = 1,
    port: int = 0,
) -> Iterator[TinyChatServer]:
    """An OpenAI-compatible server on this machine while the `with` block is open.

    Args:
        backend: who answers.
        latency_seconds: how long every call takes at least.
        api_key: the key that calls must bring; None: any, or none.
        batch_looks: at how many looks a batch is still in progress.
        port: where to listen; 0: any free port.
    """
    server = TinyChatServer(
        backend, latency_seconds=latency_seconds, api_key=api_key, batch_looks=batch_looks, port=port
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
