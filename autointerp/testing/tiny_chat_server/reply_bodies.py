"""Replies in the form of /v1/chat/completions or of /v1/completions."""

import math
import re
from collections.abc import Sequence
from typing import Any

from autointerp.testing.tiny_chat_server.exchange import Answer, Call, Choice, ScoredToken

__all__ = ["plain_tokens", "reply_answer", "text_answer"]

_CREATED = 1_700_000_000  # one moment for all: equal calls give equal bytes


def reply_answer(
    call: Call,
    choices: Sequence[Choice],
    *,
    model: str,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int = 0,
    fingerprint: str | None = "tiny",
    **more: Any,
) -> Answer:
    """Status 200 with these choices; log-probabilities are in it if they were asked for.

    Args:
        call: what was asked.
        choices: the replies, one for each of `n`.
        model: what the reply says has answered.
        prompt_tokens: sent, as the model counts.
        completion_tokens: of all replies together.
        cached_tokens: part of `prompt_tokens`.
        fingerprint: the reply's `system_fingerprint`.
        more: further fields of the `Answer`.
    """
    form = _chat_choice if call.is_chat else _text_choice
    body = {
        "id": f"tiny-{call.key[:16]}",
        "object": "chat.completion" if call.is_chat else "text_completion",
        "created": _CREATED,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [form(call, index, choice) for index, choice in enumerate(choices)],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        },
    }
    return Answer(body, **more)


def text_answer(
    call: Call, text: str, *, model: str, finish_reason: str = "stop", refusal: str | None = None, **more: Any
) -> Answer:
    """A reply with this text, whose log-probabilities, if asked for, are made up (see `plain_tokens`).

    Args:
        call: what was asked.
        text: of each reply.
        model: what the reply says has answered.
        finish_reason: as the API names it.
        refusal: the model's words for declining, if it does.
        more: further fields of the `Answer`.
    """
    tokens = plain_tokens(text, call.top_count)
    if call.body.get("echo"):
        first, *others = plain_tokens(call.prompt, call.top_count) or [ScoredToken("", None)]
        tokens = [ScoredToken(first.text, None), *others, *tokens]
        text = call.prompt + text
    count = int(call.body.get("n") or 1)
    prompt_tokens, completion_tokens = len(plain_tokens(call.prompt)), count * len(plain_tokens(text))
    return reply_answer(
        call,
        [Choice(text, tokens, finish_reason, refusal)] * count,
        model=model,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        **more,
    )


def plain_tokens(text: str, top_count: int = 0) -> list[ScoredToken]:
    """A text cut into words with the space before them, each with a probability of 0.9.

    Of alternatives the word itself is the first; those behind it halve what is left from one to the next.
    """
    others = [(f" other{index}", math.log(0.1 / 2 ** (index + 1))) for index in range(max(top_count - 1, 0))]
    likely = math.log(0.9)
    return [
        ScoredToken(word, likely, [(word, likely), *others] if top_count else ())
        for word in re.findall(r"\s*\S+|\s+$", text)
    ]


def _chat_choice(call: Call, index: int, choice: Choice) -> dict[str, Any]:
    content = [_chat_token(token) for token in choice.tokens]
    is_refused = choice.refusal is not None
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": None if is_refused else choice.text,
            "refusal": choice.refusal,
        },
        "logprobs": {"content": content, "refusal": None} if call.wants_logprobs and not is_refused else None,
        "finish_reason": choice.finish_reason,
    }


def _chat_token(token: ScoredToken) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode() if token.data is None else token.data),
        "top_logprobs": [
            {"token": text, "logprob": logprob, "bytes": list(text.encode())} for text, logprob in token.top
        ],
    }


def _text_choice(call: Call, index: int, choice: Choice) -> dict[str, Any]:
    logprobs = None
    if call.wants_logprobs:
        offsets, position = [], 0 if call.body.get("echo") else len(call.prompt)
        for token in choice.tokens:
            offsets.append(position if token.offset is None else token.offset)
            position = offsets[-1] + len(token.text)
        logprobs = {
            "tokens": [token.text for token in choice.tokens],
            "token_logprobs": [token.logprob for token in choice.tokens],
            "top_logprobs": [_by_text(token) for token in choice.tokens],
            "text_offset": offsets,
        }
    return {"index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _by_text(token: ScoredToken) -> dict[str, float] | None:
    """Alternatives in the older form: of those that read alike only the likeliest is left."""
    if token.logprob is None:
        return None
    found: dict[str, float] = {}
    for text, logprob in token.top:
        found.setdefault(text, logprob)
    return found
