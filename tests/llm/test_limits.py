"""Concurrency that finds the endpoint's limit, and rates that are kept."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.clock import Clock
from autointerp.llm.limits import ConcurrencyLimit, RateLimit


class Recorder:
    """Runs requests under a limit and remembers how many there were at once."""

    def __init__(self, limit: ConcurrencyLimit, capacity: int = 10**9) -> None:
        self.limit, self.capacity = limit, capacity
        self.at_once = self.most = self.refused = 0
        self.order: list[int] = []

    async def one(self, number: int) -> None:
        while True:
            async with self.limit.slot() as slot:
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                is_refused = self.at_once > self.capacity
                for _ in range(3):
                    await asyncio.sleep(0)
                self.at_once -= 1
                if not is_refused:
                    self.limit.answered()
                    self.order.append(number)
                    return
                self.refused += 1
                self.limit.overloaded(slot)


def run(limit: ConcurrencyLimit, count: int, capacity: int = 10**9) -> Recorder:
    recorder = Recorder(limit, capacity)

    async def all_of_them() -> None:
        await asyncio.gather(*(recorder.one(number) for number in range(count)))

    asyncio.run(all_of_them())
    return recorder


@given(most=st.integers(1, 40), start=st.integers(1, 40), count=st.integers(1, 200))
def test_never_more_than_the_most_and_all_of_them_in_the_end(most: int, start: int, count: int) -> None:
    limit = ConcurrencyLimit(most, start=start)
    recorder = run(limit, count)
    assert recorder.most <= most
    assert sorted(recorder.order) == list(range(count))
    assert limit.under_way == 0


def test_it_grows_fast_to_the_most() -> None:
    recorder = run(ConcurrencyLimit(64, start=16), 400)
    assert recorder.most == 64


def test_it_settles_near_what_the_endpoint_bears() -> None:
    limit = ConcurrencyLimit(64)
    recorder = run(limit, 3000, capacity=20)
    assert 8 <= limit.limit <= 24
    assert recorder.refused < 300


def test_a_burst_of_refusals_halves_once() -> None:
    limit = ConcurrencyLimit(64, start=64)

    async def burst(size: int) -> None:
        ready = asyncio.Event()

        async def one() -> None:
            async with limit.slot() as slot:
                await ready.wait()
                limit.overloaded(slot)

        tasks = [asyncio.create_task(one()) for _ in range(size)]
        await asyncio.sleep(0)
        ready.set()
        await asyncio.gather(*tasks)

    asyncio.run(burst(64))
    assert limit.limit == 32
    asyncio.run(burst(32))
    assert limit.limit == 16


def test_after_a_halving_it_grows_by_one_a_round() -> None:
    limit = ConcurrencyLimit(64, start=16)

    async def rounds() -> None:
        async with limit.slot() as slot:
            limit._under_way += 15
            limit.overloaded(slot)
            limit._under_way -= 15

    asyncio.run(rounds())
    assert limit.limit == 8
    run(limit, 8 + 9 + 10 + 20)
    assert limit.limit in (10, 11, 12)


def test_idle_answers_do_not_raise_the_limit() -> None:
    limit = ConcurrencyLimit(64, start=16)

    async def one_at_a_time() -> None:
        for _ in range(100):
            async with limit.slot():
                limit.answered()

    asyncio.run(one_at_a_time())
    assert limit.limit == 16


def test_cancelled_waiters_give_their_place_on() -> None:
    limit = ConcurrencyLimit(1)

    async def play() -> None:
        async with limit.slot():
            waiting = [asyncio.create_task(hold()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.wait(waiting)
        assert waiting[2].exception() is None

    async def hold() -> None:
        async with limit.slot():
            await asyncio.sleep(0)

    asyncio.run(play())
    assert limit.under_way == 0


def test_a_pause_holds_everyone(jumping_time: object) -> None:
    clock: Clock = jumping_time.clock
    limit = ConcurrencyLimit(4, clock=clock)
    begun = []

    async def play() -> None:
        async with limit.slot() as slot:
            limit.overloaded(slot, pause_seconds=30)
        for _ in range(3):
            async with limit.slot():
                begun.append(clock.now())

    asyncio.run(play())
    assert begun == [30.0, 30.0, 30.0]


@given(
    amounts=st.lists(st.floats(0.1, 50), min_size=1, max_size=40),
    gaps=st.lists(st.floats(0, 5), min_size=40, max_size=40),
    per_minute=st.floats(6, 600),
)
def test_no_window_has_more_than_its_rate_and_a_burst_and_the_last(
    amounts: list[float], gaps: list[float], per_minute: float
) -> None:
    """Brute force over all windows: what was sent within [s, t) fits rate * (t - s + burst) plus one."""
    now, sent = [0.0], []

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    limit = RateLimit(per_minute, burst_seconds=1.0, clock=Clock(now=lambda: now[0], sleep=sleep))

    async def play() -> None:
        for amount, gap in zip(amounts, gaps, strict=False):
            now[0] += gap
            await limit.admit(amount)
            sent.append((now[0], amount))

    asyncio.run(play())
    for first in range(len(sent)):
        total = 0.0
        for time, amount in sent[first:]:
            allowed = per_minute / 60 * (time - sent[first][0] + 1.0)
            assert total <= allowed + 1e-6
            total += amount


def test_admissions_keep_their_order_and_a_large_one_does_not_starve(jumping_time: object) -> None:
    limit = RateLimit(60, clock=jumping_time.clock)
    order: list[str] = []

    async def one(name: str, amount: float) -> None:
        await limit.admit(amount)
        order.append(name)

    async def play() -> None:
        await asyncio.gather(one("a", 1), one("large", 500), one("b", 1), one("c", 1))

    asyncio.run(play())
    assert order == ["a", "large", "b", "c"]


def test_what_was_booked_too_much_is_given_back(jumping_time: object) -> None:
    clock: Clock = jumping_time.clock
    limit = RateLimit(60, burst_seconds=0, clock=clock)

    async def play() -> float:
        await limit.admit(100)
        limit.correct(-90)
        await limit.admit(1)
        return clock.now()

    assert asyncio.run(play()) == pytest.approx(10.0)
