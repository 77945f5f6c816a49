"""JSON of a reply -> an answer with its bill; whatever the server wrote, nothing is made up."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.explanation_records import Refusal
from autointerp.llm.outcomes import Failure, Outcome
from autointerp.llm.requests import Reply, Request, TokenLogprob, Usage

__all__ = ["estimated_tokens", "read_reply", "token_logprobs"]

_MOST_TOKENS = 100_000_000
"""More than any call has; a larger count is not believed."""
_ROUNDING = 1e-3
"""How far above 0 rounding may lift a log-probability."""


def read_reply(body: bytes, request: Request) -> Outcome | Failure:
    """What a body with status 200 says.

    Filtered, cut off, empty, or without the log-probabilities that were asked: a refusal with its cause, paid
    for all the same. A body that is no such reply at all: a failure that may heal.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return Failure("damaged_reply", "the reply is no JSON, or ends before its end")
    choice = _first_choice(content)
    if choice is None:
        return Failure("damaged_reply", "the reply has no choices")
    text = _text_of(choice, request)
    if isinstance(text, Failure):
        return text
    usage = _usage(content.get("usage"), request, text)
    model, fingerprint = _word(content.get("model")), _word(content.get("system_fingerprint"))
    finish = _word(choice.get("finish_reason")) or "unknown"
    is_wanted = request.top_logprobs is not None or request.echo
    found = choice.get("logprobs") if is_wanted else None
    logprobs = token_logprobs(found, is_chat=bool(request.messages))
    refusal = _refusal(choice, request, text=text, finish=finish, logprobs=logprobs)
    if refusal is not None:
        return Outcome(refusal, usage, model, fingerprint)
    reply = Reply(text, model, fingerprint, usage, logprobs=logprobs, finish_reason=finish)
    return Outcome(reply, usage, model, fingerprint)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has (a token for 3.5 bytes), where nobody counted."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 3.5)


def token_logprobs(found: Any, *, is_chat: bool) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities of a choice, of a chat or of a completion; None where they are absent or damaged.

    A server may leave out alternatives, repeat one, or give the chosen token apart from them; it may not
    leave out, or make not a number, the log-probability of a token itself (a completion's first is None).
    """
    if not isinstance(found, Mapping):
        return None
    return _chat_logprobs(found) if is_chat or "content" in found else _completion_logprobs(found)


def _first_choice(content: Any) -> Mapping[str, Any] | None:
    choices = content.get("choices") if isinstance(content, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _text_of(choice: Mapping[str, Any], request: Request) -> str | Failure:
    """The choice's text; content in parts is joined, no content is an empty text."""
    if request.messages:
        message = choice.get("message")
        if not isinstance(message, Mapping):
            return Failure("damaged_reply", "the reply has no message")
        content = message.get("content")
    else:
        content = choice.get("text")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        return ""
    return content if isinstance(content, str) else Failure("damaged_reply", "the reply's content is no text")


def _refusal(
    choice: Mapping[str, Any],
    request: Request,
    *,
    text: str,
    finish: str,
    logprobs: tuple[TokenLogprob, ...] | None,
) -> Refusal | None:
    """Why a reply is not usable, if it is not."""
    message = choice.get("message")
    declined = message.get("refusal") if isinstance(message, Mapping) else None
    if finish == "content_filter" or declined:
        return Refusal("content_filter", _beginning(declined) if declined else "the provider filtered it")
    if finish == "length" and not request.is_cut_usable:
        return Refusal("cut_off", f"ended at its limit of {request.max_tokens} tokens")
    is_wanted = request.top_logprobs is not None or request.echo
    if not text.strip() and not (is_wanted and logprobs):
        return Refusal("empty", f"no text; finish reason {finish}")
    if is_wanted and logprobs is None:
        return Refusal("missing_logprobs", "log-probabilities were asked for, and did not come whole")
    return None


def _chat_logprobs(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    entries = found.get("content")
    if not isinstance(entries, list) or not entries:
        return None
    tokens = []
    for entry in entries:
        token = entry.get("token") if isinstance(entry, Mapping) else None
        logprob = _logprob(entry.get("logprob")) if isinstance(token, str) else None
        if not isinstance(token, str) or logprob is None:
            return None
        top = entry.get("top_logprobs")
        pairs = [
            (item.get("token"), item.get("logprob"))
            for item in (top if isinstance(top, list) else [])
            if isinstance(item, Mapping)
        ]
        tokens.append(TokenLogprob(token, logprob, _alternatives(pairs)))
    return tuple(tokens)


def _completion_logprobs(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    texts, numbers = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(texts, list) or not isinstance(numbers, list) or not texts:
        return None
    tops = _as_long(found.get("top_logprobs"), len(texts))
    offsets = _as_long(found.get("text_offset"), len(texts))
    if len(numbers) != len(texts):
        return None
    tokens = []
    for position, (text, number) in enumerate(zip(texts, numbers, strict=True)):
        logprob = _logprob(number)
        if not isinstance(text, str) or (logprob is None and position > 0):
            return None
        top = tops[position]
        pairs = list(top.items()) if isinstance(top, Mapping) else []
        offset = offsets[position]
        is_offset = isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0
        tokens.append(TokenLogprob(text, logprob, _alternatives(pairs), offset if is_offset else None))
    return tuple(tokens)


def _as_long(values: Any, length: int) -> Sequence[Any]:
    """A column of the same length as the tokens, or nothing at each of them."""
    return values if isinstance(values, list) and len(values) == length else [None] * length


def _logprob(value: Any) -> float | None:
    """A finite number of at most 0."""
    if type(value) is float and -1e9 < value <= 0.0:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return min(number, 0.0) if math.isfinite(number) and number <= _ROUNDING else None


def _alternatives(pairs: Sequence[tuple[Any, Any]]) -> tuple[tuple[str, float], ...]:
    """Likeliest first; what is no log-probability is left out, an exact repetition counts once.

    Different tokens may have the same text (parts of a character): both stay.
    """
    found = set()
    for token, number in pairs:
        logprob = _logprob(number)
        if logprob is not None and isinstance(token, str):
            found.add((-logprob, token))
    return tuple([(token, -negated) for negated, token in sorted(found)])


def _usage(found: Any, request: Request, text: str) -> Usage:
    """What the server counted; where it counted nothing believable, an estimate from the texts."""
    if isinstance(found, Mapping):
        prompt, completion = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
        if prompt is not None and completion is not None:
            details = found.get("prompt_tokens_details")
            cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
            return Usage(prompt, completion, min(cached or 0, prompt))
    asked = (request.prompt or "") + "".join(message.text for message in request.messages)
    new = text.removeprefix(request.prompt or "") if request.echo else text
    return Usage(estimated_tokens(asked), estimated_tokens(new), is_estimated=True)


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if is_count else None


def _word(value: Any) -> str:
    """A name that the server gave, bounded and printable: it goes into tables, files and terminals."""
    if not isinstance(value, str):
        return ""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value[:200])


def _beginning(text: Any) -> str:
    """A little of what the model said."""
    line = _word(" ".join(str(text).split()))
    return line if len(line) <= 120 else f"{line[:119]}\N{HORIZONTAL ELLIPSIS}"
