"""Sends one request to an OpenAI-compatible endpoint, once; the only importer of openai."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, OpenAIError

from autointerp.errors import EndpointError
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.http_client import MOST_BYTES, TooLargeError, http_client_for
from autointerp.llm.http_errors import HttpError, judged
from autointerp.llm.outcomes import Failure, FailureKind, Outcome
from autointerp.llm.reply_reading import read_reply
from autointerp.llm.requests import Request
from autointerp.llm.secrecy import endpoint_name, one_line, read_key
from autointerp.llm.wire_format import Dialect, body_of, path_of

__all__ = ["OpenAIClient"]

_NO_KEY = "no-key-is-set"
_CONNECT_SECONDS = 15.0
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""No connection: nobody can have worked for it."""
_FILE_PATIENCE = 10.0
"""How many times longer than a reply a file may take."""


class OpenAIClient:
    """One endpoint. Make it inside the running event loop, and close it there.

    Bodies are read as they came: openai's own parsing of log-probabilities takes milliseconds a reply. Its
    own retries are off, for they would multiply with ours.

    Raises:
        EndpointError: `base_url` is no address or holds credentials; the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout_seconds: float = 120.0,
        http_client: httpx2.AsyncClient | None = None,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        """Open it; nothing is sent yet."""
        self.endpoint = endpoint_name(base_url)
        self._key_variable = api_key_env
        self._secret = read_key(api_key_env)
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._openai = self._opened(base_url, http_client)

    def __repr__(self) -> str:
        """The address."""
        return f"OpenAIClient({self.endpoint!r})"

    async def close(self) -> None:
        """Close its connections."""
        await self._openai.close()

    async def send(self, request: Request, *, model: str, dialect: Dialect) -> Outcome | Failure:
        """An answer, a refusal, or a failure that may heal.

        Raises:
            EndpointError: nothing that is asked there can succeed.
        """
        found = await self.post(path_of(request), body_of(request, model=model, dialect=dialect))
        if isinstance(found, Failure):
            return found
        if isinstance(found, HttpError):
            return judged(found, today=self._clock.today())
        return read_reply(found, request)

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes | HttpError | Failure:
        """The raw body of a reply, without the key should the server quote it.

        Raises:
            EndpointError: no such host, or no trust in its certificate.
        """
        return await self._sent("post", path, body=dict(body))

    async def get(self, path: str) -> bytes | HttpError | Failure:
        """The raw body of a resource or file; as `post`."""
        return await self._sent("get", path, patience=_FILE_PATIENCE)

    async def upload(self, name: str, content: bytes) -> bytes | HttpError | Failure:
        """The endpoint's answer to a file for its batch interface; as `post`."""
        files = [("file", (name, content, "application/jsonl"))]
        options = {"headers": {"Content-Type": "multipart/form-data"}}
        body = {"purpose": "batch"}
        return await self._sent(
            "post", "/files", patience=_FILE_PATIENCE, body=body, files=files, options=options
        )

    async def _sent(
        self, method: str, path: str, *, patience: float = 1.0, **arguments: Any
    ) -> bytes | HttpError | Failure:
        """Errors become values, and are raised only here: openai's own quote what the server wrote."""
        try:
            async with asyncio.timeout(self._timeout_seconds * patience):
                response = await getattr(self._openai, method)(path, cast_to=httpx2.Response, **arguments)
            return self._checked(response)
        except APIStatusError as error:
            return self._http_error(
                error.response.status_code, error.response.content, error.response.headers
            )
        except (APITimeoutError, TimeoutError) as error:
            return self._timeout(error)
        except TooLargeError:
            return Failure("damaged_reply", f"the reply has more than {MOST_BYTES:,} bytes")
        except (APIConnectionError, OpenAIError, httpx2.HTTPError) as error:
            found = self._connection_failure(error)
        if isinstance(found, EndpointError):
            raise found
        return found

    def _opened(self, base_url: str, http_client: httpx2.AsyncClient | None) -> AsyncOpenAI:
        parts = urlsplit(base_url)
        seconds = self._timeout_seconds
        try:
            return AsyncOpenAI(
                api_key=self._secret.reveal() or _NO_KEY,
                base_url=urlunsplit(parts._replace(query="")),
                default_query=dict(parse_qsl(parts.query)),
                max_retries=0,
                timeout=httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
                http_client=http_client or http_client_for(parts.hostname),
            )
        except httpx2.InvalidURL:
            pass
        raise EndpointError("is no address", where="llm.base_url", remedy="write it as https://host/v1")

    def _checked(self, response: httpx2.Response) -> bytes | HttpError:
        """Some gateways answer 200 with an error inside."""
        body = self._secret.scrub_bytes(response.content)
        if body[:200].lstrip().startswith(b'{"error"') and b'"choices"' not in body[:2000]:
            status = _status_inside(body)
            if status is not None:
                return self._http_error(status, body, response.headers)
        return body

    def error_of(self, status: int, body: bytes) -> HttpError:
        """An error that came some other way than as a reply's status: in a batch's file."""
        return self._http_error(status, body, {})

    def _http_error(self, status: int, body: bytes, headers: Mapping[str, str]) -> HttpError:
        return HttpError(
            status, self._secret.scrub_bytes(body), headers, self.endpoint, self._key_variable, self._secret
        )

    def _connection_failure(self, error: Exception) -> Failure | EndpointError:
        """What cannot heal (a name that nobody has, a certificate that nobody vouches for) and what can."""
        for cause in _causes(error):
            if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
                return EndpointError("no such host", where=self.endpoint, remedy="check llm.base_url")
            if isinstance(cause, ssl.SSLCertVerificationError):
                remedy = "check llm.base_url, or make its certificate known with SSL_CERT_FILE"
                return EndpointError("its certificate is not trusted", where=self.endpoint, remedy=remedy)
        last = list(_causes(error))[-1]
        kind: FailureKind = "connection" if _never_sent(error) else "dropped"
        return Failure(kind, one_line(f"{type(last).__name__}: {last}", secret=self._secret))

    def _timeout(self, error: Exception) -> Failure:
        if _never_sent(error):
            return Failure("connection", "no connection in time")
        return Failure("timeout", f"no reply within {self._timeout_seconds:g} s")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what brought it about, outermost first."""
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _never_sent(error: BaseException) -> bool:
    return any(isinstance(cause, _NEVER_SENT) for cause in _causes(error))


def _status_inside(body: bytes) -> int | None:
    """The status that an error within a 200 names; a nameless one counts as a fault of the server."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, RecursionError):
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    is_status = isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600
    return code if is_status else 500
