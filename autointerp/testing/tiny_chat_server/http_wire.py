"""HTTP/1.1 with kept-alive connections over asyncio streams: as much of it as API clients use."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from autointerp.testing.tiny_chat_server.exchange import Answer

__all__ = ["HttpRequest", "read_request", "write_answer"]


@dataclass(frozen=True)
class HttpRequest:
    """One request, read to its end."""

    method: str
    path: str
    """Without the query, and without a slash at its end."""
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes

    @property
    def is_kept_alive(self) -> bool:
        """Whether another request may come over the same connection."""
        return self.headers.get("connection", "").lower() != "close"

    def json(self) -> dict[str, Any] | None:
        """The content as a JSON object, or None where it is none."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """The next request of a connection, or None when the client is done or does not speak HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        content = await _content(reader, headers)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ConnectionError):
        return None
    return HttpRequest(method, urlsplit(target).path.rstrip("/"), headers, content)


async def _content(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)


async def write_answer(writer: asyncio.StreamWriter, answer: Answer, *, keep_alive: bool) -> bool:
    """Send an answer, or as much of it as shall arrive; whether all of it went out."""
    if answer.cut == "before_headers":
        return False
    payload = answer.payload
    headers = {
        "content-type": "application/json",
        "content-length": str(len(payload)),
        "connection": "keep-alive" if keep_alive else "close",
        **{name.lower(): value for name, value in answer.headers.items()},
    }
    reason = HTTPStatus(answer.status).phrase if answer.status in _STATUSES else "Unknown"
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    sent = payload[: len(payload) // 2] if answer.cut == "mid_body" else payload
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + sent)
        await writer.drain()
    except ConnectionError:
        return False
    return answer.cut == "nowhere"


_STATUSES = frozenset(int(status) for status in HTTPStatus)
