"""Keys stay where they are: texts of servers and errors are shown only after a look for them."""

import os
import re
from urllib.parse import parse_qsl, quote, urlsplit

from autointerp.errors import EndpointError

__all__ = ["Secret", "endpoint_name", "one_line", "read_key"]

_MASK = "[secret]"
_SHORTEST = 8
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|rk)-[\w*.\-]{6,}|\bBearer\s+[\w\-.=+/~*]{6,}", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"key|token|secret|passw|credential|sig|auth", re.IGNORECASE)


class Secret:
    """A key that shows itself only where it is asked to."""

    __slots__ = ("_escaped", "_value")

    def __init__(self, value: str) -> None:
        """Keep the key; empty means there is none."""
        self._value = value
        self._escaped = re.compile(b"".join(_spellings(letter) for letter in value))

    def __repr__(self) -> str:
        """Never the key."""
        return _MASK if self._value else "[no key]"

    def __bool__(self) -> bool:
        """Whether there is a key."""
        return bool(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        """A pickled key would be a key in a file."""
        raise TypeError("a key is not pickled")

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._value

    def is_in(self, text: str | bytes) -> bool:
        """Whether a text quotes the key as it is; `EMPTY`, for local servers, is no secret."""
        value = self._value
        if len(value) < _SHORTEST:
            return False
        return value in text if isinstance(text, str) else value.encode() in text

    def scrub(self, text: str) -> str:
        """The text without the key, also as a URL would spell it, and without what looks like any key."""
        if len(self._value) >= _SHORTEST:
            text = text.replace(self._value, _MASK)
            text = text.replace(quote(self._value, safe=""), _MASK)
        return _LOOKS_LIKE_A_KEY.sub(_MASK, text)

    def scrub_bytes(self, body: bytes) -> bytes:
        """A reply's body without the key, also where JSON spells it with backslashes.

        What else looks like a key is the model's own words.
        """
        body = body.replace(self._value.encode(), _MASK.encode()) if self.is_in(body) else body
        is_escaped = len(self._value) >= _SHORTEST and (b"\\u00" in body or b"\\/" in body)
        return self._escaped.sub(_MASK.encode(), body) if is_escaped else body


def _spellings(letter: str) -> bytes:
    """A pattern of a letter within a JSON string: as it is, by its number, or behind a backslash."""
    number = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(letter):04x}")
    return f"(?:\\\\?{re.escape(letter)}|\\\\u{number})".encode()


def read_key(variable: str) -> Secret:
    """The key in an environment variable; an unset variable means none, as local servers want.

    Raises:
        EndpointError: it holds what no HTTP header may (its text is not shown).
    """
    value = os.environ.get(variable, "").strip()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise EndpointError(
            "the key holds spaces, line breaks or letters that no key has",
            where=f"environment variable {variable}",
            remedy="set it to the key alone",
        )
    return Secret(value)


def endpoint_name(base_url: str) -> str:
    """Scheme, host, port and path in one spelling: what records and keys of answers hold.

    Raises:
        EndpointError: it is no http(s) address, or holds credentials.
    """
    remedy = "write it as https://host/v1; the key belongs into an environment variable (api_key_env)"
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise EndpointError("is no address", where="llm.base_url", remedy=remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError("is no http(s) address", where="llm.base_url", remedy=remedy)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if "@" in parts.netloc or parts.fragment or any(_SECRET_PARAMETER.search(name) for name in names):
        raise EndpointError("holds credentials", where="llm.base_url", remedy=remedy)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}{query}"


def one_line(text: str, *, secret: Secret, longest: int = 300) -> str:
    """A server's text as part of an error: scrubbed first, then without line breaks, then cut."""
    line = " ".join(secret.scrub(text).split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= longest else f"{line[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
