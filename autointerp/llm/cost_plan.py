"""What a plan of calls will cost before any is made: a range, honest about what is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autointerp.explanation_sections import PriceSection
from autointerp.llm.prices import usd
from autointerp.llm.requests import Usage

__all__ = ["CostRange", "PlannedCalls", "planned_cost"]

_BYTES_PER_TOKEN = (4.7, 2.3)
"""English prose with a large vocabulary, and code or other languages with a small one."""
_ASKED_AGAIN = 0.1
"""Share of calls whose reply cannot be read, at worst."""


@dataclass(frozen=True)
class PlannedCalls:
    """Calls that are alike."""

    model: str
    role: str
    metric: str
    calls: int
    prompt_bytes: float
    """Of one call, UTF-8, all messages together."""
    completion_tokens: tuple[float, float]
    """Of one call: few, and the most (its `max_tokens`)."""
    shared_bytes: float = 0.0
    """How much of the prompt all of them begin with; a provider may have it cached after the first."""


@dataclass(frozen=True)
class CostRange:
    """At least and at most, of one plan's row or of all of it."""

    calls: int
    tokens: tuple[int, int]
    """Prompt and completion together."""
    usd: tuple[float, float] | None
    """None where a model has no price."""

    def to_json(self) -> dict[str, Any]:
        """`calls`, `tokens_low`, `tokens_high`, `usd_low`, `usd_high` (None without a price)."""
        dollars = self.usd or (None, None)
        return {
            "calls": self.calls,
            "tokens_low": self.tokens[0],
            "tokens_high": self.tokens[1],
            "usd_low": dollars[0],
            "usd_high": dollars[1],
        }


def planned_cost(
    plan: Sequence[PlannedCalls], prices: Mapping[str, PriceSection], *, is_batch: bool = False
) -> CostRange:
    """The range of a plan's cost.

    Low: large tokens, short replies, shared beginnings cached after the first call, nothing asked again.
    High: small tokens, replies as long as they may be, nothing cached, a tenth asked again.
    """
    rows = [_row(calls, prices.get(calls.model), is_batch=is_batch) for calls in plan]
    dollars = [row.usd for row in rows]
    known = [pair for pair in dollars if pair is not None]
    total = (sum(low for low, _ in known), sum(high for _, high in known))
    return CostRange(
        sum(row.calls for row in rows),
        (sum(row.tokens[0] for row in rows), sum(row.tokens[1] for row in rows)),
        total if len(known) == len(dollars) else None,
    )


def _row(calls: PlannedCalls, price: PriceSection | None, *, is_batch: bool) -> CostRange:
    large, small = _BYTES_PER_TOKEN
    cached = calls.shared_bytes / large * max(calls.calls - 1, 0)
    low = Usage(
        round(calls.calls * calls.prompt_bytes / large),
        round(calls.calls * calls.completion_tokens[0]),
        round(cached),
    )
    most = calls.calls * (1 + _ASKED_AGAIN)
    high = Usage(round(most * calls.prompt_bytes / small), round(most * calls.completion_tokens[1]))
    ends = usd(price, low, is_batch=is_batch), usd(price, high, is_batch=is_batch)
    return CostRange(
        calls.calls,
        (low.prompt_tokens + low.completion_tokens, high.prompt_tokens + high.completion_tokens),
        None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
    )
