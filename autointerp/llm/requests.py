"""What an LLM is asked and what comes back, whatever answers it. Knows no HTTP."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

__all__ = ["Message", "Reply", "Request", "TokenLogprob", "Usage", "request_content", "request_key"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Request:
    """One question; either `messages` (chat) or `prompt` (completion) is given, not both."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int = 256
    temperature: float | None = None
    """None: what the suite says of the role that is asked; a model by itself takes it as 0."""
    least_temperature: float = 0.0
    """A lower temperature, the role's included, is raised to this: asking again must be able to change."""
    top_p: float | None = None
    seed: int | None = None
    """None: what the suite says of the role; `replicate` is added to the role's seed."""
    top_logprobs: int | None = None
    """How many alternatives at each token of the reply, 0 to 20; None: no log-probabilities at all."""
    echo: bool = False
    """Of a completion: the prompt's tokens and their log-probabilities come too (max_tokens may be 0)."""
    json_schema: Mapping[str, Any] | None = None
    """What the reply must look like, where the endpoint can be told; it is validated all the same."""
    stop: tuple[str, ...] = ()
    may_cut: bool = False
    """Whether a reply that ends at `max_tokens` is usable as it is, because only its beginning is read."""
    replicate: int = 0
    """Asking the same again on purpose counts up; part of the key under which the answer is kept."""
    metric: str = ""
    """Whose account the cost is booked on, e.g. `explanation.detection_auroc`; no part of the key."""

    def __post_init__(self) -> None:
        """Refuse what is neither a chat nor a completion."""
        if bool(self.messages) == (self.prompt is not None):
            raise ValueError("a request has either messages or a prompt")

    @property
    def is_cut_usable(self) -> bool:
        """Whether ending at `max_tokens` is no fault: `may_cut`, echo, or one token with its logprobs."""
        return self.may_cut or self.echo or (self.top_logprobs is not None and self.max_tokens <= 1)


@dataclass(frozen=True)
class TokenLogprob:
    """One token of a reply (or, with echo, of the prompt) and what else could have stood there."""

    token: str
    logprob: float | None
    """Natural logarithm; None for the first token of an echoed prompt."""
    top: tuple[tuple[str, float], ...] = ()
    """Alternatives and their log-probabilities, likeliest first; usually the token itself among them."""
    offset: int | None = None
    """Of a completion: where the token begins in prompt + reply, in characters, if the server says so."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the server counted them (or as estimated, where it does not)."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Part of `prompt_tokens` that the provider had cached."""
    is_estimated: bool = False


@dataclass(frozen=True)
class Reply:
    """A usable answer: it ended by itself (or at a stop) and was not filtered."""

    text: str
    model: str
    """As the server names what answered."""
    fingerprint: str
    """`system_fingerprint`, or empty."""
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the reply's tokens; with echo, of the prompt's and the reply's. None where there are none."""
    finish_reason: str = "stop"
    details: Mapping[str, Any] = field(default_factory=dict)


def request_content(request: Request) -> dict[str, Any]:
    """All that is asked, JSON-able; without `metric`, which says only who pays."""
    content = {part.name: getattr(request, part.name) for part in fields(request) if part.name != "metric"}
    schema = request.json_schema
    return content | {
        "messages": [[message.role, message.text] for message in request.messages],
        "json_schema": None if schema is None else dict(schema),
        "stop": list(request.stop),
    }


def request_key(endpoint: str, model: str, request: Request) -> str:
    """Under which an answer is kept: SHA-256 of endpoint, model, the full request and its replicate.

    `metric` is left out: the same question costs once, whoever asks.
    """
    content = request_content(request) | {"endpoint": endpoint, "model": model}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()
