"""Asks once what was never answered: kept answers, questions under way, and a tally for whoever watches."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.outcomes import Outcome
from autointerp.llm.prices import usd
from autointerp.llm.requests import Reply, Request, request_content, request_key
from autointerp.llm.response_cache import KeptAnswer, ResponseCache
from autointerp.llm.spending import Ledger
from autointerp.llm.tally import Tally

__all__ = ["KeptAnswers", "Standing"]


@dataclass(frozen=True)
class Standing:
    """How far a sitting is."""

    answered: int = 0
    """Questions answered or refused, those from the file included."""
    from_cache: int = 0
    refused: int = 0
    missing: int = 0
    """Offline: questions whose answer the file does not have."""
    spent_tokens: int = 0
    """Of the whole run, earlier sittings included."""
    spent_usd: float = 0.0
    seconds: float = 0.0
    """Since the sitting began to ask."""

    def seconds_left(self, expected: int) -> float | None:
        """Until `expected` questions are answered, at the pace so far; None before the first was asked."""
        asked = self.answered - self.from_cache
        if asked <= 0 or self.seconds <= 0:
            return None
        return max(expected - self.answered, 0) * self.seconds / asked


@dataclass(eq=False)
class KeptAnswers:
    """The run's answers, whoever gives them. Questions asked twice at once are sent once."""

    cache: ResponseCache
    ledger: Ledger
    offline: bool = False
    listen: Callable[[Standing], None] | None = None
    standing: Standing = Standing()
    from_cache: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """This sitting's answers that cost nothing, by (model, role, metric)."""
    tally: Tally = field(default_factory=Tally)
    _under_way: dict[str, asyncio.Task[Outcome]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    async def answer(
        self,
        request: Request,
        who: ModelIdentity,
        fetch: Callable[[], Awaitable[Outcome]],
        *,
        is_batch: bool = False,
    ) -> Reply | Refusal:
        """The kept answer, the one that is on its way, or what `fetch` brings.

        Raises:
            EndpointError: offline, and it is not kept.
        """
        key = request_key(who.endpoint, who.model, request)
        kept = self.cache.get(key, with_failed=self.offline)
        if kept is not None:
            self._count_free(who, request.metric)
            return self._told(key, who, kept, is_batch=is_batch)
        if self.offline:
            raise self._missing()
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._fetched(key, request, who, fetch, is_batch=is_batch))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        else:
            self._count_free(who, request.metric)
        return self._told(key, who, await asyncio.shield(task), is_batch=is_batch)

    async def drain(
        self, is_on_the_wire: Callable[["asyncio.Task[Outcome]"], bool], *, seconds: float
    ) -> None:
        """Wait for what is sent already, keep it, and let go of the rest."""
        tasks = list(self._under_way.values())
        for task in tasks:
            if not is_on_the_wire(task):
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _fetched(
        self,
        key: str,
        request: Request,
        who: ModelIdentity,
        fetch: Callable[[], Awaitable[Outcome]],
        *,
        is_batch: bool,
    ) -> Outcome:
        outcome = await fetch()
        dollars = usd(self.ledger.price(who.model), outcome.usage, is_batch=is_batch)
        kept = KeptAnswer(
            key,
            who.endpoint,
            who.model,
            who.role,
            request.metric,
            request_content(request),
            outcome,
            dollars,
            is_batch,
        )
        return await self.cache.put(kept)

    def _missing(self) -> EndpointError:
        missing = self.standing.missing + 1
        self.standing = replace(self.standing, missing=missing)
        asked = missing + self.standing.answered
        what = f"has no answer for {missing} of {asked} questions asked so far"
        remedy = "run once without --offline; the answers that are kept are not asked again"
        return EndpointError(what, where=self.cache.path, remedy=remedy)

    def _forget(self, key: str, task: "asyncio.Task[Outcome]") -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()

    def _count_free(self, who: ModelIdentity, metric: str) -> None:
        account = (who.model, who.role, metric)
        self.from_cache[account] = self.from_cache.get(account, 0) + 1
        self.standing = replace(self.standing, from_cache=self.standing.from_cache + 1)

    def _told(self, key: str, who: ModelIdentity, outcome: Outcome, *, is_batch: bool) -> Reply | Refusal:
        answer = outcome.answer
        dollars = usd(self.ledger.price(who.model), outcome.usage, is_batch=is_batch)
        self.tally.add(key, who, outcome, usd=dollars)
        self.standing = replace(
            self.standing,
            answered=self.standing.answered + 1,
            refused=self.standing.refused + isinstance(answer, Refusal),
            spent_tokens=self.ledger.spent_tokens,
            spent_usd=self.ledger.spent_usd,
            seconds=time.monotonic() - self._began,
        )
        if self.listen is not None:
            self.listen(self.standing)
        return answer
