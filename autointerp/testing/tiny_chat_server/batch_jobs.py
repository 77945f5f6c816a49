"""The files and batches of the OpenAI API: many calls in one file, answered after a few looks at them."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autointerp.testing.tiny_chat_server.exchange import Answer, error_answer
from autointerp.testing.tiny_chat_server.http_wire import HttpRequest

__all__ = ["BatchJobs"]

AnswerLine = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]
"""Path and body of a call -> its answer."""

_CREATED = 1_700_000_000
_DONE = ("completed", "failed", "cancelled", "expired")


@dataclass
class _StoredFile:
    id: str
    name: str
    purpose: str
    content: bytes

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": _CREATED,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class _Batch:
    id: str
    fields: Mapping[str, Any]
    looks_left: int
    state: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "batch",
            "created_at": _CREATED,
            "input_file_id": self.fields["input_file_id"],
            "endpoint": self.fields["endpoint"],
            "completion_window": self.fields.get("completion_window", "24h"),
            "metadata": self.fields.get("metadata"),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            **self.state,
        }


class BatchJobs:
    """Keeps files and batches in memory; a batch is answered when it was looked at often enough."""

    def __init__(self, answer_line: AnswerLine, *, looks: int = 1) -> None:
        """Remember how a line is answered.

        Args:
            answer_line: answers the call of one line.
            looks: at how many looks a batch is still in progress.
        """
        self._answer_line, self._looks = answer_line, looks
        self._files: dict[str, _StoredFile] = {}
        self._batches: dict[str, _Batch] = {}

    async def answer(self, request: HttpRequest) -> Answer | None:
        """What a request for files or batches gets, or None where it is for something else."""
        parts = request.path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self._answer_file(request, parts[1:])
        if parts[0] == "batches":
            return await self._answer_batch(request, parts[1:])
        return None

    def _answer_file(self, request: HttpRequest, rest: list[str]) -> Answer:
        if not rest:
            if request.method == "POST":
                return self._upload(request)
            return Answer({"object": "list", "data": [each.describe() for each in self._files.values()]})
        stored = self._files.get(rest[0])
        if stored is None:
            return error_answer(404, f"No such File object: {rest[0]}")
        if rest[1:] == ["content"]:
            return Answer(stored.content, headers={"content-type": "application/octet-stream"})
        if request.method == "DELETE":
            del self._files[stored.id]
            return Answer({"id": stored.id, "object": "file", "deleted": True})
        return Answer(stored.describe())

    def _upload(self, request: HttpRequest) -> Answer:
        parts = _form(request)
        if "file" not in parts:
            return error_answer(400, "no file was sent")
        purpose = parts.get("purpose", ("", b"batch"))[1].decode()
        name, content = parts["file"]
        return Answer(self._store(name or "upload.jsonl", content, purpose=purpose).describe())

    def _store(self, name: str, content: bytes, *, purpose: str) -> _StoredFile:
        stored = _StoredFile(f"file-{len(self._files):06d}", name, purpose, content)
        self._files[stored.id] = stored
        return stored

    async def _answer_batch(self, request: HttpRequest, rest: list[str]) -> Answer:
        if not rest:
            if request.method == "POST":
                return self._create(request.json() or {})
            data = [each.describe() for each in reversed(self._batches.values())]
            return Answer({"object": "list", "data": data, "has_more": False})
        batch = self._batches.get(rest[0])
        if batch is None:
            return error_answer(404, f"No such batch: {rest[0]}")
        if rest[1:] == ["cancel"]:
            batch.state["status"] = "cancelled"
        else:
            await self._look(batch)
        return Answer(batch.describe())

    def _create(self, fields: Mapping[str, Any]) -> Answer:
        if fields.get("input_file_id") not in self._files:
            return error_answer(400, f"no such file: {fields.get('input_file_id')}")
        batch = _Batch(f"batch_{len(self._batches):06d}", fields, self._looks, {"status": "validating"})
        self._batches[batch.id] = batch
        return Answer(batch.describe())

    async def _look(self, batch: _Batch) -> None:
        if batch.state["status"] in _DONE:
            return
        if batch.looks_left > 0:
            batch.looks_left -= 1
            batch.state["status"] = "in_progress"
            return
        good, bad = await self._lines(batch)
        batch.state |= {
            "status": "completed",
            "completed_at": _CREATED,
            "output_file_id": self._store_lines(batch, "output", good),
            "error_file_id": self._store_lines(batch, "error", bad),
            "request_counts": {"total": len(good) + len(bad), "completed": len(good), "failed": len(bad)},
        }

    async def _lines(self, batch: _Batch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        good, bad = [], []
        content = self._files[batch.fields["input_file_id"]].content
        for number, line in enumerate(content.splitlines()):
            asked = json.loads(line)
            answer = await self._answer_line(asked["url"], asked["body"])
            told = {"id": f"{batch.id}_{number}", "custom_id": asked["custom_id"], "error": None}
            if answer.cut != "nowhere" or isinstance(answer.body, bytes):
                bad.append(
                    told | {"response": None, "error": {"code": "batch_expired", "message": "expired"}}
                )
                continue
            response = {"status_code": answer.status, "request_id": told["id"], "body": answer.body}
            (good if answer.status == 200 else bad).append(told | {"response": response})
        return good, bad

    def _store_lines(self, batch: _Batch, kind: str, lines: list[dict[str, Any]]) -> str | None:
        if not lines:
            return None
        # Providers promise no order, and a reader that counts on one would not be found out otherwise.
        content = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        return self._store(f"{batch.id}_{kind}.jsonl", content, purpose="batch_output").id


def _form(request: HttpRequest) -> dict[str, tuple[str, bytes]]:
    """The parts of a multipart form: name -> (file name, content)."""
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    if boundary is None:
        return {}
    found = {}
    for part in request.content.split(b"--" + boundary[1].encode("latin-1"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        named = re.search(r'[; ]name="([^"]*)"', head.decode("latin-1"))
        file_name = re.search(r'filename="([^"]*)"', head.decode("latin-1"))
        if named:
            found[named[1]] = (file_name[1] if file_name else "", content.removesuffix(b"\r\n"))
    return found
