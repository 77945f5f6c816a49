"""Tokens and dollars of a run: held back before a call, settled after it, stopped at the budget."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autointerp.errors import BudgetReachedError, SuiteError
from autointerp.explanation_sections import PriceSection
from autointerp.llm.prices import most_used, usd
from autointerp.llm.requests import Request, Usage

__all__ = ["Ledger", "Reservation"]


@dataclass(frozen=True, eq=False)
class Reservation:
    """What a request under way may cost at most."""

    tokens: int
    usd: float


class Ledger:
    """What the run spent, this sitting's and earlier ones', against its budgets.

    A call is made only if, together with all that are under way, its worst cost fits into what is left. One
    that has no room only because of the calls under way waits until they are settled; one that would not fit
    even then ends the asking. Prompt tokens are bounded by bytes: the budget holds whatever the tokenizer.
    """

    def __init__(
        self,
        prices: Mapping[str, PriceSection],
        *,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Begin from what earlier sittings paid: rows with `model`, tokens, `usd` and `unpriced_calls`.

        Raises:
            SuiteError: a budget in dollars, and a model that was paid earlier has no price.
        """
        self._prices = dict(prices)
        self._budget_usd = budget_usd
        self._budget_tokens = budget_tokens
        self.spent_tokens = 0
        self.spent_usd = 0.0
        self._held_tokens = 0
        self._held_usd = 0.0
        self._waiting: list[asyncio.Future[None]] = []
        self._is_over = False
        for row in earlier:
            self._add_earlier(row)

    def price(self, model: str) -> PriceSection | None:
        """Of a model, if the suite has it."""
        return self._prices.get(model)

    def require_price(self, model: str) -> None:
        """Refuse a budget in dollars for a model without a price, before anything is sent.

        Raises:
            SuiteError: there is none.
        """
        if self._budget_usd is not None and model not in self._prices:
            raise SuiteError(
                f"a budget in dollars needs the price of {model!r}",
                where="llm.budget_usd",
                remedy=f'add [llm.prices."{model}"] with input and output in dollars per million tokens',
            )

    async def hold(self, model: str, request: Request) -> Reservation:
        """Hold back a request's worst cost until it is settled.

        Raises:
            BudgetReachedError: it could exceed what is left.
        """
        return await self.hold_usage(model, most_used(request))

    async def hold_usage(self, model: str, worst: Usage) -> Reservation:
        """As `hold`, of so many tokens."""
        while (held := self.hold_now(model, worst)) is None:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        return held

    def hold_now(self, model: str, worst: Usage, *, is_batch: bool = False) -> Reservation | None:
        """As `hold_usage`; None where only the calls under way leave no room."""
        tokens = worst.prompt_tokens + worst.completion_tokens
        wanted = Reservation(tokens, usd(self.price(model), worst, is_batch=is_batch) or 0.0)
        if self._is_over or not self._has_room(wanted, 0, 0.0):
            self._is_over = True
            raise BudgetReachedError(self._story(wanted))
        if not self._has_room(wanted, self._held_tokens, self._held_usd):
            return None
        self._held_tokens += wanted.tokens
        self._held_usd += wanted.usd
        return wanted

    def settle(self, held: Reservation, usage: Usage, dollars: float | None) -> None:
        """Replace what was held back by what it came to.

        It does not wait: nothing may come between an answer and its being kept.
        """
        self._held_tokens -= held.tokens
        self._held_usd -= held.usd
        self.spent_tokens += usage.prompt_tokens + usage.completion_tokens
        self.spent_usd += dollars or 0.0
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()

    def _has_room(self, wanted: Reservation, held_tokens: int, held_usd: float) -> bool:
        tokens = self.spent_tokens + held_tokens + wanted.tokens
        dollars = self.spent_usd + held_usd + wanted.usd
        return (self._budget_tokens is None or tokens <= self._budget_tokens) and (
            self._budget_usd is None or dollars <= self._budget_usd
        )

    def _story(self, wanted: Reservation) -> str:
        parts = []
        if self._budget_usd is not None:
            parts.append(
                f"{self.spent_usd:.4f} of {self._budget_usd:g} USD are spent and the next call could cost "
                f"{wanted.usd:.4f} (--budget-usd)"
            )
        if self._budget_tokens is not None:
            parts.append(
                f"{self.spent_tokens:,} of {self._budget_tokens:,} tokens are used and the next call could "
                f"use {wanted.tokens:,} (--budget-tokens)"
            )
        return (
            f"the budget for LLM calls is reached: {'; '.join(parts)}; every answer is kept, and the same "
            "command with a larger budget goes on from there"
        )

    def _add_earlier(self, row: Mapping[str, Any]) -> None:
        usage = Usage(row["prompt_tokens"], row["completion_tokens"], row.get("cached_tokens", 0))
        dollars = row["usd"]
        if row["unpriced_calls"]:
            self.require_price(row["model"])
            dollars = usd(self.price(row["model"]), usage)
        self.spent_tokens += usage.prompt_tokens + usage.completion_tokens
        self.spent_usd += dollars or 0.0
