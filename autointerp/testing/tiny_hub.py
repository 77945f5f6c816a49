"""A Hugging Face hub on this machine, with the few routes that downloads use; it can be told to misbehave.

    with TinyHub() as hub, hub.in_use(cache):
        commit = hub.add("somebody/saes", {"layer_4/cfg.json": b"{}"})
        find_checkpoints("hf:somebody/saes/layer_4", recognises=is_checkpoint)

It answers as the public hub does: model information, the listing of a commit in pages, and files with ETag,
commit and length, whole or from a byte on. Files are kept in memory.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import close_session, constants

__all__ = ["HubRequest", "TinyHub"]

_NAMED = r"/api/(?:models/|(?=datasets/))(?P<name>(?:datasets/)?[^/]+/[^/]+)"
_INFORMATION = re.compile(_NAMED + r"(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(_NAMED + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
_FILE = re.compile(r"/(?P<name>(?:datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class HubRequest:
    """One request that came in."""

    method: str
    path: str
    """With the query."""
    token: str | None
    first_byte: int
    """From where on a file was asked for."""

    @property
    def is_body(self) -> bool:
        """Whether a file's content was asked for."""
        return self.method == "GET" and "/resolve/" in self.path


@dataclass
class _Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)


@dataclass
class TinyHub:
    """Serves while the `with` block is open; what it is told holds from the next request on."""

    page_size: int = 1000
    """Entries of a listing that come at once."""
    is_gated: bool = False
    """Whether files are refused, as of a repository whose licence was not accepted."""
    status: int | None = None
    """Answers everything with this HTTP error."""
    status_of_files: int | None = None
    """Answers requests for files with this HTTP error, those for information and listings as ever."""
    bodies_to_cut: int = 0
    """How many of the next files break off in the middle."""
    delay_seconds: float = 0.0
    """How long every answer takes."""
    is_a_hub: bool = True
    """False: a web server that answers everything with a page."""
    further_headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every answer, in place of those of the same name."""
    requests: list[HubRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "TinyHub":
        """Listen on a free port of the loopback interface."""
        hub = self

        class Handler(_Handler):
            def handle_one(self) -> None:
                _answer(self, hub)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT has to say."""
        assert self._server is not None, "it listens inside its `with` block only"
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def in_use(self, cache: Path, *, is_offline: bool = False) -> Iterator[None]:
        """While open this process uses this hub, and keeps what it fetches in `cache`.

        The library reads most variables when it is imported, so what it made of them is replaced as well.
        """
        settings = {
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": is_offline,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_TOKEN_PATH": str(cache / "no-token"),
        }
        close_session()  # it holds on to the proxies of the environment
        with patch.dict(os.environ, self.environment(cache)), patch.multiple(constants, **settings):
            try:
                yield
            finally:
                close_session()

    def environment(self, cache: Path) -> dict[str, str]:
        """Variables for a process that shall use this hub and keep what it fetches in `cache`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else `datasets` tells another server what it loads
            "HF_DATASETS_OFFLINE": "0",
            "HF_TOKEN": "",
            "HUGGING_FACE_HUB_TOKEN": "",
            "HF_TOKEN_PATH": str(cache / "no-token"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",  # which goes before the other one where both are set
        }

    def add(self, repository: str, files: Mapping[str, bytes] | Path, *, revision: str = "main") -> str:
        """Put files under a branch or tag, in place of what it held; returns the commit.

        Args:
            repository: `owner/name`; of a data set `datasets/owner/name`.
            files: contents by path in the repository, or a folder of this machine.
            revision: the branch or tag that stands for the new commit from now on.
        """
        if isinstance(files, Path):
            inner = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in inner}
        digest = hashlib.sha1(repository.encode(), usedforsecurity=False)
        for path, content in sorted(files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
        commit = digest.hexdigest()
        stored = self._repositories.setdefault(repository, _Repository())
        stored.commits[commit] = dict(files)
        stored.revisions[revision] = commit
        return commit

    @property
    def body_count(self) -> int:
        """How often a file's content was asked for."""
        return sum(request.is_body for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each body waits 40 ms for the acknowledgement of its headers

    def handle_one(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.handle_one()

    def do_HEAD(self) -> None:
        self.handle_one()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def send(self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool = False) -> None:
        """Answer; cut: with half of the body, and hang up."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        if cut:
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)


def _answer(handler: _Handler, hub: TinyHub) -> None:
    url = urlsplit(handler.path)
    hub.requests.append(_request(handler))
    time.sleep(hub.delay_seconds)
    further = dict(hub.further_headers)
    if not hub.is_a_hub:
        handler.send(200, {"Content-Type": "text/html", **further}, b"<html>Welcome!</html>")
    elif hub.status is not None:
        handler.send(hub.status, further, b"")
    elif found := _FILE.fullmatch(url.path):
        _send_file(handler, hub, *_unquoted(found), further)
    elif found := _TREE.fullmatch(url.path):
        _send_tree(handler, hub, *_unquoted(found), parse_qs(url.query))
    elif found := _INFORMATION.fullmatch(url.path):
        _send_information(handler, hub, found["name"], unquote(found["revision"] or "main"))
    else:
        handler.send(404, further, b"")


def _request(handler: _Handler) -> HubRequest:
    first = re.fullmatch(r"bytes=(\d+)-.*", handler.headers.get("Range", ""))
    token = handler.headers.get("Authorization", "").removeprefix("Bearer ") or None
    return HubRequest(handler.command, handler.path, token, int(first[1]) if first else 0)


def _unquoted(found: re.Match[str]) -> tuple[str, str, str]:
    return found["name"], unquote(found["revision"]), unquote(found["path"] or "")


def _refuse(handler: _Handler, status: int, code: str) -> None:
    handler.send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")


def _commit(handler: _Handler, hub: TinyHub, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
    """The commit that a revision stands for and its files, or None once the reason was sent."""
    stored = hub._repositories.get(name)
    if stored is None:
        _refuse(handler, 404, "RepoNotFound")
        return None
    commit = stored.revisions.get(revision, revision)
    if commit not in stored.commits:
        _refuse(handler, 404, "RevisionNotFound")
        return None
    return commit, stored.commits[commit]


def _send_information(handler: _Handler, hub: TinyHub, name: str, revision: str) -> None:
    if found := _commit(handler, hub, name, revision):
        commit, files = found
        content = {
            "id": name.removeprefix("datasets/"),
            "sha": commit,
            "siblings": [{"rfilename": path} for path in files],
        }
        handler.send(200, dict(hub.further_headers), json.dumps(content).encode())


def _send_tree(
    handler: _Handler, hub: TinyHub, name: str, revision: str, folder: str, query: dict[str, list[str]]
) -> None:
    if not (found := _commit(handler, hub, name, revision)):
        return
    entries = _entries(found[1], folder, is_recursive=query.get("recursive") == ["true"])
    if folder and not entries:
        _refuse(handler, 404, "EntryNotFound")
        return
    start = int(query.get("cursor", ["0"])[0])
    end, headers = start + hub.page_size, dict(hub.further_headers)
    if end < len(entries):
        path = urlsplit(handler.path).path
        recursive = query.get("recursive", ["false"])[0]
        headers["Link"] = f'<{hub.endpoint}{path}?recursive={recursive}&cursor={end}>; rel="next"'
    handler.send(200, headers, json.dumps(entries[start:end]).encode())


def _entries(files: Mapping[str, bytes], folder: str, *, is_recursive: bool) -> list[dict[str, Any]]:
    prefix, entries = (f"{folder}/" if folder else ""), {}
    for path, content in files.items():
        if not path.startswith(prefix):
            continue
        names = path.removeprefix(prefix).split("/")
        for depth in range(1, len(names) if is_recursive else min(len(names), 2)):
            inner = prefix + "/".join(names[:depth])
            entries[inner] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": inner}
        if is_recursive or len(names) == 1:
            entries[path] = {"type": "file", "oid": _etag(content), "size": len(content), "path": path}
    return [entries[path] for path in sorted(entries)]


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _send_file(
    handler: _Handler, hub: TinyHub, name: str, revision: str, path: str, further: Mapping[str, str]
) -> None:
    if hub.status_of_files is not None:
        handler.send(hub.status_of_files, further, b"")
        return
    if hub.is_gated:
        _refuse(handler, 403, "GatedRepo")
        return
    if not (found := _commit(handler, hub, name, revision)):
        return
    commit, files = found
    if path not in files:
        _refuse(handler, 404, "EntryNotFound")
        return
    content, start = files[path], hub.requests[-1].first_byte
    headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes", **further}
    status = 200
    if start:
        status, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
    is_cut = handler.command == "GET" and hub.bodies_to_cut > 0
    hub.bodies_to_cut -= is_cut
    handler.send(status, headers, content[start:], cut=is_cut)
