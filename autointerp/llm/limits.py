"""How many requests go out at once and how often: finds an endpoint's limit, and keeps to what it is told."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from autointerp.llm.clock import REAL_CLOCK, Clock

__all__ = ["ConcurrencyLimit", "RateLimit", "Slot"]


@dataclass(frozen=True)
class Slot:
    """Leave to have one request under way."""

    epoch: int
    """How often the limit had been halved when the request went out."""


class ConcurrencyLimit:
    """At most so many at once, as few as the endpoint bears.

    Starts at `start` and doubles with each round of answers, until the endpoint is overloaded for the first
    time; from then on it halves with each burst of overload and grows by one a round (AIMD, as TCP does:
    Jacobson 1988). Requests sent before a halving say nothing new, so a burst halves once. First come, first
    served.
    """

    def __init__(self, most: int, *, start: int = 16, clock: Clock = REAL_CLOCK) -> None:
        """Allow up to `most` at once, in the end."""
        self._most = most
        self._limit = float(min(start, most))
        self._doubles = True
        self._epoch = 0
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = float("-inf")
        self._clock = clock

    @property
    def limit(self) -> int:
        """How many may be under way at present."""
        return max(int(self._limit), 1)

    @property
    def under_way(self) -> int:
        """How many are."""
        return self._under_way

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for leave to send one request; nothing is locked while it is under way."""
        await self._enter()
        try:
            while (pause := self._paused_until - self._clock.now()) > 0:
                await self._clock.sleep(pause)
            yield Slot(self._epoch)
        finally:
            self._under_way -= 1
            self._admit()

    def answered(self) -> None:
        """An answer came: grow, if the limit was what held others back."""
        if self._under_way >= self.limit or self._waiting:
            self._limit = min(self._limit + (1.0 if self._doubles else 1.0 / self._limit), float(self._most))

    def overloaded(self, slot: Slot, *, pause_seconds: float = 0.0) -> None:
        """The endpoint had too much: halve once a burst, and send nothing for as long as it asked."""
        self._paused_until = max(self._paused_until, self._clock.now() + pause_seconds)
        if slot.epoch == self._epoch:
            self._epoch += 1
            self._doubles = False
            self._limit = max(min(self._limit, float(self._under_way)) / 2, 1.0)

    async def _enter(self) -> None:
        if self._under_way < self.limit and not self._waiting:
            self._under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._under_way -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._under_way < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)


class RateLimit:
    """At most so much a minute: requests, or tokens.

    Each admission books time at the end of the queue: the order is kept, none starves, and one larger than
    the burst only keeps the next ones waiting longer. What was booked too much or too little is corrected
    afterwards, which a bucket without give-back (aiolimiter's) cannot do.
    """

    def __init__(self, per_minute: float, *, burst_seconds: float = 1.0, clock: Clock = REAL_CLOCK) -> None:
        """Allow `per_minute`, and at once what `burst_seconds` allow."""
        self._per_second = per_minute / 60
        self._burst = burst_seconds
        self._booked_until = float("-inf")
        self._clock = clock

    async def admit(self, amount: float = 1.0) -> None:
        """Wait until so much more may be sent."""
        now = self._clock.now()
        begin = max(self._booked_until, now - self._burst)
        self._booked_until = begin + amount / self._per_second
        if begin > now:
            await self._clock.sleep(begin - now)

    def correct(self, difference: float) -> None:
        """It was so much more (or, negative, less) than was admitted."""
        self._booked_until += difference / self._per_second
