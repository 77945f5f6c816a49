"""Answers <-> the JSON that they are kept as; read back they are equal to what they were."""

from collections.abc import Mapping
from typing import Any

from autointerp.explanation_records import Refusal
from autointerp.llm.outcomes import Outcome
from autointerp.llm.requests import Reply, TokenLogprob, Usage

__all__ = ["outcome_from_json", "outcome_to_json"]


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """The answer and its bill."""
    usage = outcome.usage
    content: dict[str, Any] = {
        "model": outcome.model,
        "fingerprint": outcome.fingerprint,
        "attempts": outcome.attempts,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.is_estimated],
    }
    answer = outcome.answer
    if isinstance(answer, Refusal):
        return content | {"cause": answer.cause, "detail": answer.detail}
    logprobs = None
    if answer.logprobs is not None:
        logprobs = [[token.token, token.logprob, token.top, token.offset] for token in answer.logprobs]
    return content | {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "logprobs": logprobs,
        "details": dict(answer.details),
    }


def outcome_from_json(content: Mapping[str, Any]) -> Outcome:
    """What `outcome_to_json` was given.

    Raises:
        KeyError, TypeError, ValueError: it was not written by that.
    """
    prompt, completion, cached, is_estimated = content["usage"]
    usage = Usage(prompt, completion, cached, is_estimated)
    model, fingerprint = content["model"], content["fingerprint"]
    answer: Reply | Refusal
    if "cause" in content:
        answer = Refusal(content["cause"], content["detail"])
    else:
        found = content["logprobs"]
        answer = Reply(
            content["text"],
            model,
            fingerprint,
            usage,
            logprobs=None if found is None else tuple(_token(entry) for entry in found),
            finish_reason=content["finish_reason"],
            details=content["details"],
        )
    return Outcome(answer, usage, model, fingerprint, content["attempts"])


def _token(entry: list[Any]) -> TokenLogprob:
    token, logprob, top, offset = entry
    return TokenLogprob(token, logprob, tuple((text, number) for text, number in top), offset)
