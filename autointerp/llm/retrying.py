"""Sends a request as often as it takes: within limits and budget, again where that can help, never else."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.client import OpenAIClient
from autointerp.llm.clock import REAL_CLOCK, Clock
from autointerp.llm.limits import ConcurrencyLimit, RateLimit
from autointerp.llm.outcomes import NOTHING_USED, Failure, Outcome
from autointerp.llm.prices import most_used, usd
from autointerp.llm.reply_reading import estimated_tokens
from autointerp.llm.requests import Request, Usage
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.spending import Ledger
from autointerp.llm.wire_format import Dialect

__all__ = ["Account", "Retries", "Sender"]

_NEVER_ANSWERED = 5
"""So many requests given up, and not one answered: the endpoint is at fault, not the requests."""
_STOPPED_ANSWERING = 12
"""So many given up in a row, for faults that should have healed: it is gone."""


@dataclass(frozen=True)
class Account:
    """Whose cost it is."""

    model: str
    role: str
    metric: str


@dataclass(frozen=True)
class Retries:
    """How often, and after how long, a request is sent again."""

    attempts: int = 6
    first_seconds: float = 0.5
    """Doubles with each attempt."""
    longest_seconds: float = 30.0
    longest_asked_seconds: float = 120.0
    """Of a Retry-After; what asks for more is asked again after this."""
    jitter: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    """Between 0 and 1: those that failed together do not come back together."""

    def wait_seconds(self, failure: Failure, attempt: int) -> float:
        """After the `attempt`-th failure: never less than asked, else half to all of a doubling time."""
        asked = failure.retry_after_seconds
        if asked is not None:
            return min(asked, self.longest_asked_seconds) * (1 + 0.1 * self.jitter())
        longest = min(self.first_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        return longest * (0.5 + 0.5 * self.jitter())


class Sender:
    """The way to one endpoint, shared by all roles and models that are there."""

    is_batch = False

    def __init__(
        self,
        client: OpenAIClient,
        ledger: Ledger,
        cache: ResponseCache,
        *,
        concurrency: ConcurrencyLimit,
        requests_per_minute: RateLimit | None = None,
        tokens_per_minute: RateLimit | None = None,
        retries: Retries | None = None,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        """Nothing is sent yet."""
        self.client = client
        self.concurrency = concurrency
        self._ledger = ledger
        self._cache = cache
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._retries = retries or Retries()
        self._clock = clock
        self._given_up = 0
        self._has_answered = False
        self._hopeless: dict[str, tuple[str, str]] = {}
        self._on_the_wire: set[asyncio.Task[object] | None] = set()
        self._is_closing = False

    @property
    def on_the_wire(self) -> frozenset[object]:
        """The tasks whose request is sent and not yet answered."""
        return frozenset(self._on_the_wire)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    def stop_sending(self) -> None:
        """From now on only what is on the wire is waited for."""
        self._is_closing = True

    async def send(self, request: Request, account: Account, dialect: Dialect) -> Outcome:
        """The answer, or after the last attempt the refusal `failed_request`.

        Raises:
            BudgetReachedError: the next attempt could cost more than is left.
            EndpointError: nothing asked there can succeed, or it does not answer any more; from then on
                nothing more is sent.
        """
        retrying = AsyncRetrying(
            sleep=self._clock.sleep,
            stop=stop_after_attempt(self._retries.attempts),
            wait=self._wait,
            retry=retry_if_result(lambda result: isinstance(result, Failure)),
            retry_error_callback=_last_failure,
        )
        attempts = 0

        async def attempt() -> Outcome | Failure:
            nonlocal attempts
            attempts += 1
            return await self._attempt(request, account, dialect)

        try:
            return self._noted(await retrying(attempt), attempts)
        except EndpointError as error:
            self._hopeless[account.model] = (error.what, error.remedy)
            raise

    def _noted(self, result: Outcome | Failure, attempts: int) -> Outcome:
        """What a request ended in, after a look at whether the endpoint answers anything at all."""
        if isinstance(result, Failure):
            refusal = Refusal("failed_request", f"{attempts} attempts, the last: {result.detail}")
            self._note_given_up(refusal.detail, heals=True)
            return Outcome(refusal, attempts=attempts)
        if result.is_final:
            self._has_answered, self._given_up = True, 0
        elif isinstance(result.answer, Refusal):
            self._note_given_up(result.answer.detail, heals=False)
        return replace(result, attempts=attempts)

    async def _attempt(self, request: Request, account: Account, dialect: Dialect) -> Outcome | Failure:
        async with self.concurrency.slot() as slot:
            expected = await self._admit(request)
            if self._is_closing:
                raise asyncio.CancelledError
            if account.model in self._hopeless:
                what, remedy = self._hopeless[account.model]
                raise EndpointError(what, where=self.client.endpoint, remedy=remedy)
            held = await self._ledger.hold(account.model, request)
            used, dollars = NOTHING_USED, None
            task = asyncio.current_task()
            self._on_the_wire.add(task)
            try:
                result = await self.client.send(request, model=account.model, dialect=dialect)
                used = _billed(result, request)
                dollars = usd(self._ledger.price(account.model), used)
            finally:
                self._on_the_wire.discard(task)
                self._ledger.settle(held, used, dollars)
            if isinstance(result, Outcome):
                self.concurrency.answered()
                self._correct(expected, result.usage)
                return result
            if result.is_overload:
                asked = min(result.retry_after_seconds or 0.0, self._retries.longest_asked_seconds)
                self.concurrency.overloaded(slot, pause_seconds=asked)
        if result.may_be_paid:
            owner = (account.model, account.role, account.metric)
            await self._cache.add_loss(owner, result.kind, used, usd=dollars)
        return result

    async def _admit(self, request: Request) -> int:
        """Wait for the rates that the suite sets; how many tokens were reckoned with."""
        if self._requests_per_minute is not None:
            await self._requests_per_minute.admit()
        if self._tokens_per_minute is None:
            return 0
        texts = [message.text for message in request.messages] or [request.prompt or ""]
        expected = sum(estimated_tokens(text) for text in texts) + request.max_tokens
        await self._tokens_per_minute.admit(expected)
        return expected

    def _correct(self, expected: int, usage: Usage) -> None:
        if self._tokens_per_minute is not None and usage != NOTHING_USED:
            self._tokens_per_minute.correct(usage.prompt_tokens + usage.completion_tokens - expected)

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.result() if state.outcome is not None else None
        return (
            self._retries.wait_seconds(failure, state.attempt_number) if isinstance(failure, Failure) else 0.0
        )

    def _note_given_up(self, detail: str, *, heals: bool) -> None:
        """One request's refusal, or, if it is like that for all of them, the end of the asking."""
        self._given_up += 1
        remedy = "running the same again goes on from the answers that are kept"
        if not self._has_answered and self._given_up >= _NEVER_ANSWERED:
            what = f"answered none of {self._given_up} requests ({detail})"
            raise EndpointError(what, where=self.client.endpoint, remedy=remedy)
        if heals and self._given_up >= _STOPPED_ANSWERING:
            what = f"does not answer any more: {self._given_up} requests in a row failed ({detail})"
            raise EndpointError(what, where=self.client.endpoint, remedy=remedy)


def _last_failure(state: RetryCallState) -> object:
    return state.outcome.result() if state.outcome is not None else None


def _billed(result: Outcome | Failure, request: Request) -> Usage:
    """What a call came to; where nobody can know, the most it can have come to."""
    if isinstance(result, Outcome):
        return result.usage
    return most_used(request) if result.may_be_paid else NOTHING_USED
