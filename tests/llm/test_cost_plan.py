"""The estimate's range, by hand; and the line that tells how far a run is."""

import contextlib
from collections.abc import Iterator

import pytest

from autointerp.explanation_sections import PriceSection
from autointerp.llm.cost_plan import PlannedCalls, planned_cost
from autointerp.llm.kept_answers import Standing
from autointerp.llm.live_progress import shown, told
from autointerp.progress import Advance

PRICES = {"m": PriceSection(input=1.0, cached_input=0.1, output=4.0)}
PLAN = PlannedCalls("m", "judge", "a", 100, 4700.0, (2.0, 10.0), shared_bytes=2350.0)


def test_the_range_by_hand() -> None:
    """Low: 100,000 prompt tokens, 49,500 of them cached, 200 new. High: 110 calls of 4700 / 2.3 and 10."""
    found = planned_cost([PLAN], PRICES)
    high_prompt = round(110 * 4700 / 2.3)
    assert found.tokens == (100_200, high_prompt + 1100)
    assert found.usd == pytest.approx(
        ((50_500 + 49_500 * 0.1 + 200 * 4) / 1e6, (high_prompt + 1100 * 4) / 1e6)
    )
    assert planned_cost([PLAN], PRICES, is_batch=True).usd == pytest.approx(
        tuple(end / 2 for end in found.usd or ())
    )


def test_a_model_without_a_price_makes_the_sum_unknown_in_dollars_alone() -> None:
    other = PlannedCalls("x", "judge", "a", 10, 100.0, (1.0, 2.0))
    found = planned_cost([PLAN, other], PRICES)
    assert found.usd is None
    assert found.calls == 110
    assert found.to_json()["usd_low"] is None
    assert planned_cost([], PRICES).usd == (0, 0)


class Bars:
    def __init__(self) -> None:
        self.total = 0.0

    @contextlib.contextmanager
    def step(self, name: str, *, total: float | None, unit: str) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            self.total += amount

        yield advance


def test_a_bar_moves_by_one_for_each_answer() -> None:
    bars = Bars()
    with shown(bars, "asking", expected=3) as listen:
        for answered in (1, 2, 3):
            listen(Standing(answered=answered))
    assert bars.total == 3


def test_the_line_says_what_is_known() -> None:
    standing = Standing(120, 30, 2, 0, 51_200, 0.084, 36.0)
    assert told(standing, expected=400) == (
        "120/400 answers (30 kept), 2 refused, 51,200 tokens, 0.08 USD, 112 s left"
    )
    assert told(Standing(answered=5)) == "5 answers (0 kept), 0 tokens"
