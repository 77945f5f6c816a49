"""Requests -> the JSON that an OpenAI-compatible endpoint takes, in the dialect it was measured to speak."""

from dataclasses import dataclass
from typing import Any, Literal

from autointerp.llm.requests import Request

__all__ = ["Dialect", "body_of", "path_of"]


@dataclass(frozen=True)
class Dialect:
    """How an endpoint wants to be asked; the defaults are what most take."""

    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Of chats; completions know `max_tokens` only."""
    takes_temperature: bool = True
    takes_seed: bool = True
    top_logprobs: int = 20
    """How many alternatives it gives at most."""
    echo_max_tokens: int = 0
    """The fewest tokens that a completion with echo may have: 0, or 1 where 0 is refused."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """The strictest form of reply that it obeys."""
    no_penalty: str = ""
    """Parameter that is sent as 1, lest the server avoid repetitions; empty: none."""
    provider_must_obey: bool = False
    """OpenRouter: only providers that take every parameter, lest one without log-probabilities be chosen."""


def path_of(request: Request) -> str:
    """The endpoint's path for a request."""
    return "/chat/completions" if request.messages else "/completions"


def body_of(request: Request, *, model: str, dialect: Dialect) -> dict[str, Any]:
    """The request as JSON; what the dialect does not know is left out.

    Messages are sent in their order, text for text: what requests have in common at their beginning, a
    provider's prefix cache (OpenAI: from 1,024 tokens) finds again, if those are asked one after another.
    """
    body: dict[str, Any] = {"model": model}
    if request.messages:
        body["messages"] = [
            {"role": message.role, "content": _sendable(message.text)} for message in request.messages
        ]
        body[dialect.max_tokens_name] = request.max_tokens
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, dialect.top_logprobs)}
        body |= _response_format(request, dialect)
    else:
        body |= _completion(request, dialect)
    if dialect.takes_temperature:
        body["temperature"] = max(request.temperature or 0.0, request.least_temperature)
        if request.top_p is not None:
            body["top_p"] = request.top_p
    if request.seed is not None and dialect.takes_seed:
        body["seed"] = request.seed
    if dialect.no_penalty:
        body[dialect.no_penalty] = 1.0
    if request.stop:
        body["stop"] = [_sendable(text) for text in request.stop]
    if dialect.provider_must_obey:
        body["provider"] = {"require_parameters": True}
    return body


def _completion(request: Request, dialect: Dialect) -> dict[str, Any]:
    fewest = dialect.echo_max_tokens if request.echo else 1
    body: dict[str, Any] = {
        "prompt": _sendable(request.prompt or ""),
        "max_tokens": max(request.max_tokens, fewest),
    }
    if request.echo:
        body["echo"] = True
    if request.top_logprobs is not None or request.echo:
        body["logprobs"] = min(request.top_logprobs or 0, dialect.top_logprobs)
    return body


def _response_format(request: Request, dialect: Dialect) -> dict[str, Any]:
    """What the reply must look like; `json_object` is refused by OpenAI where no message says JSON."""
    if request.json_schema is None or dialect.structured == "none":
        return {}
    if dialect.structured == "json_schema":
        schema = {"name": "answer", "schema": dict(request.json_schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    says_json = any("json" in message.text.lower() for message in request.messages)
    return {"response_format": {"type": "json_object"}} if says_json else {}


def _sendable(text: str) -> str:
    """Half a surrogate pair has no UTF-8; it is sent as a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
