"""What a backend of the tiny server is given and what it gives: one call, one answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

__all__ = ["Answer", "Backend", "Call", "Choice", "ScoredToken", "body_key", "error_answer"]

Cut = Literal["nowhere", "before_headers", "mid_body"]


def body_key(path: str, body: Mapping[str, Any]) -> str:
    """Under which a call is counted: SHA-256 of its path and of its body with sorted keys."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(f"{path}\0{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Call:
    """One request for a reply, as it came in over HTTP."""

    path: str
    """`/v1/chat/completions` or `/v1/completions`."""
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    number: int = 0
    """How many calls the server had before this one."""
    earlier: int = 0
    """How many of those had the same body."""
    in_flight: int = 1
    """How many calls are being answered, this one included."""

    @property
    def key(self) -> str:
        """See `body_key`."""
        return body_key(self.path, self.body)

    @property
    def is_chat(self) -> bool:
        """Whether messages were sent and not a prompt."""
        return self.path == "/v1/chat/completions"

    @property
    def prompt(self) -> str:
        """All the text that was sent: the prompt, or the messages with a blank line between them."""
        if not self.is_chat:
            return str(self.body.get("prompt", ""))
        return "\n\n".join(str(message.get("content", "")) for message in self.body.get("messages", ()))

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities were asked for, in the words of either path."""
        return bool(self.body.get("logprobs")) or (self.body.get("logprobs") == 0 and not self.is_chat)

    @property
    def top_count(self) -> int:
        """How many alternatives of each token were asked for."""
        return int(self.body.get("top_logprobs" if self.is_chat else "logprobs") or 0)

    @property
    def most_tokens(self) -> int | None:
        """How long the reply may be, under either of the two names; None: not said."""
        limit = self.body.get("max_completion_tokens", self.body.get("max_tokens"))
        return None if limit is None else int(limit)


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP, and how badly."""

    body: Mapping[str, Any] | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut: Cut = "nowhere"
    """Where the connection is dropped."""
    fault: str = ""
    """What the log calls it, if something is wrong with it on purpose."""

    @property
    def payload(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class ScoredToken:
    """A token of a reply or of an echoed prompt."""

    text: str
    logprob: float | None
    """Natural logarithm; None for the first token of a prompt."""
    top: Sequence[tuple[str, float]] = ()
    """Alternatives, likeliest first."""
    offset: int | None = None
    """Characters before it; None: as many as the texts of the tokens before it have."""
    data: bytes | None = None
    """Its bytes, where its text alone is no UTF-8."""


@dataclass(frozen=True)
class Choice:
    """One reply before it is put into the form of either path."""

    text: str
    tokens: Sequence[ScoredToken] = ()
    """Of the reply; with echo, of the prompt and the reply."""
    finish_reason: str = "stop"
    refusal: str | None = None


@runtime_checkable
class Backend(Protocol):
    """Answers calls; runs in the event loop of the server."""

    model: str
    """What `/v1/models` lists and replies say."""

    async def answer(self, call: Call) -> Answer:
        """What goes back; an exception becomes status 500."""
        ...


def error_answer(
    status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error", **more: Any
) -> Answer:
    """An error in the form that OpenAI gives it.

    Args:
        status: of HTTP.
        message: for people.
        code: for programs.
        kind: the error's `type`.
        more: further fields of the `Answer`.
    """
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Answer({"error": error}, status=status, **more)
