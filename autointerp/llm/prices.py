"""What requests and answers cost: at most before they are sent, exactly afterwards."""

from autointerp.explanation_sections import PriceSection
from autointerp.llm.requests import Request, Usage

__all__ = ["BATCH_FACTOR", "most_used", "usd"]

BATCH_FACTOR = 0.5
"""What a provider's batch interface charges of the price (OpenAI's documentation of its Batch API)."""

_MESSAGE_TOKENS = 8
_TEMPLATE_TOKENS = 64
"""A chat template's own words: roles, separators, a default system message."""


def usd(price: PriceSection | None, usage: Usage, *, is_batch: bool = False) -> float | None:
    """Dollars for tokens; None without a price. Cached prompt tokens may have a price of their own."""
    if price is None:
        return None
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.prompt_tokens - usage.cached_tokens
    dollars = (
        fresh * price.input + usage.cached_tokens * cached_price + usage.completion_tokens * price.output
    )
    return dollars / 1e6 * (BATCH_FACTOR if is_batch else 1.0)


def most_used(request: Request) -> Usage:
    """More tokens than a request can take: no vocabulary makes more tokens of a text than it has bytes."""
    texts = [message.text for message in request.messages] or [request.prompt or ""]
    schema = "" if request.json_schema is None else str(request.json_schema)
    size = sum(len(text.encode("utf-8", "replace")) for text in [*texts, schema])
    prompt = size + _MESSAGE_TOKENS * len(texts) + _TEMPLATE_TOKENS
    return Usage(prompt, max(request.max_tokens, 1), is_estimated=True)
