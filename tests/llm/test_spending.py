"""What is spent never exceeds a budget, whatever the order in which calls begin and end."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.errors import BudgetReachedError, SuiteError
from autointerp.explanation_sections import PriceSection
from autointerp.llm.cost_report import scaled_cost
from autointerp.llm.prices import most_used, usd
from autointerp.llm.requests import Message, Request, Usage
from autointerp.llm.spending import Ledger

PRICE = PriceSection(input=2.0, cached_input=0.5, output=8.0)
ROW = {"model": "m", "prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 200}


def test_dollars_by_hand() -> None:
    """(1000 - 200) * 2 + 200 * 0.5 + 100 * 8 = 2500 millionths."""
    usage = Usage(1000, 100, 200)
    assert usd(PRICE, usage) == pytest.approx(2500e-6)
    assert usd(PRICE, usage, is_batch=True) == pytest.approx(1250e-6)
    assert usd(None, usage) is None
    assert usd(PriceSection(input=2.0, output=8.0), usage) == pytest.approx(2800e-6)


@given(text=st.text(), limit=st.integers(0, 1000))
def test_the_worst_case_is_never_fewer_tokens_than_bytes(text: str, limit: int) -> None:
    worst = most_used(Request(messages=(Message("user", text),), max_tokens=limit))
    assert worst.prompt_tokens >= len(text.encode("utf-8", "replace"))
    assert worst.completion_tokens >= limit


class Call:
    """A call whose worst case and whose true cost are known."""

    def __init__(self, prompt: int, limit: int, share: float, turns: int) -> None:
        self.request = Request(messages=(Message("user", "x" * prompt),), max_tokens=limit)
        worst = most_used(self.request)
        self.used = Usage(int(worst.prompt_tokens * share), int(worst.completion_tokens * share))
        self.turns = turns


CALL = st.tuples(st.integers(0, 500), st.integers(1, 200), st.floats(0, 1), st.integers(0, 4))


@given(
    calls=st.lists(CALL, min_size=1, max_size=30), tokens=st.integers(1, 5000), dollars=st.floats(1e-4, 0.02)
)
def test_no_order_of_calls_exceeds_the_budget_and_none_waits_for_ever(
    calls: list[tuple[int, int, float, int]], tokens: int, dollars: float
) -> None:
    made = [Call(*numbers) for numbers in calls]
    ledger = Ledger({"m": PRICE}, budget_usd=dollars, budget_tokens=tokens)
    refused = []

    async def one(call: Call) -> None:
        try:
            held = await ledger.hold("m", call.request)
        except BudgetReachedError as error:
            refused.append(error)
            return
        for _ in range(call.turns):
            await asyncio.sleep(0)
        ledger.settle(held, call.used, usd(PRICE, call.used))
        assert ledger.spent_tokens <= tokens
        assert ledger.spent_usd <= dollars + 1e-12

    async def play() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(one(call) for call in made))

    asyncio.run(play())
    worst = sum(sum(_tokens(most_used(call.request))) for call in made)
    cost = sum(usd(PRICE, most_used(call.request)) or 0 for call in made)
    if worst <= tokens and cost <= dollars:
        assert not refused


def _tokens(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def test_a_call_that_only_others_leave_no_room_for_waits_for_them() -> None:
    request = Request(prompt="x" * 28, max_tokens=100)
    worst = sum(_tokens(most_used(request)))
    ledger = Ledger({}, budget_tokens=worst + 50)
    order = []

    async def one(name: str) -> None:
        held = await ledger.hold("m", request)
        order.append(name)
        await asyncio.sleep(0.001)
        ledger.settle(held, Usage(10, 10), None)

    async def play() -> None:
        await asyncio.gather(one("a"), one("b"), one("c"))

    asyncio.run(play())
    assert order == ["a", "b", "c"]
    assert ledger.spent_tokens == 60


def test_the_end_of_a_budget_says_what_was_spent_and_how_to_go_on() -> None:
    ledger = Ledger({"m": PRICE}, budget_usd=0.003, earlier=[ROW | {"usd": 0.0025, "unpriced_calls": 0}])
    assert ledger.spent_usd == 0.0025
    with pytest.raises(BudgetReachedError, match=r"0\.0025 of 0\.003 USD .*larger budget") as caught:
        asyncio.run(ledger.hold("m", Request(prompt="x" * 500)))
    assert caught.value.exit_code == 5
    with pytest.raises(BudgetReachedError):
        asyncio.run(ledger.hold("m", Request(prompt="x", max_tokens=1)))


def test_a_budget_in_dollars_needs_prices() -> None:
    ledger = Ledger({}, budget_usd=1.0)
    with pytest.raises(SuiteError, match=r"price of 'm'.*llm\.prices"):
        ledger.require_price("m")
    Ledger({}, budget_tokens=5).require_price("m")


def test_earlier_calls_without_a_price_are_counted_at_the_price_known_now() -> None:
    earlier: list[dict[str, Any]] = [ROW | {"usd": None, "unpriced_calls": 3}]
    assert Ledger({"m": PRICE}, budget_usd=1, earlier=earlier).spent_usd == pytest.approx(2500e-6)
    with pytest.raises(SuiteError):
        Ledger({}, budget_usd=1, earlier=earlier)
    assert Ledger({}, earlier=earlier).spent_tokens == 1100


def test_a_million_latents_cost_in_proportion() -> None:
    totals = {"calls": 30, "prompt_tokens": 9000, "cached_tokens": 0, "completion_tokens": 300, "usd": 0.6}
    scaled = scaled_cost({"needed": totals}, latents=10)
    assert scaled["calls"] == 3_000_000
    assert scaled["usd"] == pytest.approx(60_000)
    assert scaled_cost({"needed": totals | {"usd": None}}, latents=10)["usd"] is None
    with pytest.raises(ValueError, match="at least one"):
        scaled_cost({"needed": totals}, latents=0)
