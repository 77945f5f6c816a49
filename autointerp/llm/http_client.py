"""How bytes go to an endpoint and back: no redirects, no proxy to this machine, no reply without end."""

import urllib.request

import httpx2

from autointerp.errors import EndpointError

__all__ = ["MOST_BYTES", "TooLargeError", "http_client_for"]

MOST_BYTES = 64 * 2**20
"""Of a reply, unpacked: many times what log-probabilities of a long prompt take."""
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
"""No proxy of the environment leads there."""
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=1000)
"""Far above what a suite asks at once: that is bounded elsewhere."""
_FILES = "/files/"
"""The answers of a whole batch are as large as they are."""


class TooLargeError(Exception):
    """A reply has more than `MOST_BYTES`."""


_POOLS = 8
"""A pool looks at all its connections for each request and each reply: eight small ones are cheaper."""


class _Pools(httpx2.AsyncBaseTransport):
    """Several pools of connections that take turns."""

    def __init__(self, *, trust_env: bool) -> None:
        verify = httpx2.create_ssl_context(trust_env=trust_env)
        self._pools = [httpx2.AsyncHTTPTransport(verify=verify, limits=_LIMITS) for _ in range(_POOLS)]
        self._next = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it by the next pool."""
        self._next = (self._next + 1) % _POOLS
        return await self._pools[self._next].handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()


class _Client(httpx2.AsyncClient):
    """Reads a reply piece by piece, no further than `MOST_BYTES`: a few packed bytes may unpack to many."""

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **arguments: object
    ) -> httpx2.Response:
        """As httpx's, with the body bounded."""
        response = await super().send(request, stream=True, **arguments)
        if stream:
            return response
        try:
            content = await _content(response, bounded=_FILES not in request.url.path)
        finally:
            await response.aclose()
        told = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_TRANSFER]
        return httpx2.Response(response.status_code, headers=told, content=content, request=request)


_OF_TRANSFER = ("content-encoding", "transfer-encoding", "content-length")
"""Headers that say how a body came; it is unpacked already."""


async def _content(response: httpx2.Response, *, bounded: bool) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if bounded and len(content) > MOST_BYTES:
            raise TooLargeError
    return bytes(content)


def http_client_for(host: str | None) -> httpx2.AsyncClient:
    """A client for one host.

    A redirect is not followed: prompts would go where nobody sent them, and what answers there would be kept
    as the endpoint's answer.

    Raises:
        EndpointError: a proxy or a certificate file of the environment cannot be used; it is not shown, for
            a proxy's address may hold a password.
    """
    trust_env = host not in _THIS_MACHINE
    # With a transport of its own a client heeds no proxy of the environment.
    is_direct = not trust_env or not urllib.request.getproxies()
    try:
        pools = _Pools(trust_env=trust_env) if is_direct else None
        return _Client(trust_env=trust_env, follow_redirects=False, limits=_LIMITS, transport=pools)
    except (ImportError, ValueError, OSError, httpx2.InvalidURL):
        pass
    raise EndpointError(
        "a proxy or a certificate file that the environment names cannot be used",
        where=host or "llm.base_url",
        remedy="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
    )
