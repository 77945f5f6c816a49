"""Whose answers a report speaks of: those to its own questions, whatever else the file of answers holds."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from autointerp.llm.cost_report import scaled_cost
from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.open_models import open_models
from autointerp.llm.outcomes import Outcome
from autointerp.llm.requests import Reply, Usage
from autointerp.llm.tally import Tally
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

JUDGE = ModelIdentity("judge", "tiny", "http://h/v1")


def sitting(section: Any, replies: Path, requests: list[Any]) -> tuple[Any, Any]:
    async def run() -> Any:
        async with open_models(section, replies, roles=["judge"]) as models:
            await asyncio.gather(*(models["judge"].ask(request) for request in requests))
            return models.judges(), models.cost_report()

    return asyncio.run(run())


def test_another_model_on_the_same_file_is_told_apart(section: Any, chat: Any, replies: Path) -> None:
    price = {"input": 1000.0, "output": 1000.0}
    prices = {"tiny": price, "other": price}
    requests = [chat("one"), chat("two"), chat("one")]
    with tiny_chat_server(ScriptedBackend(lambda call: "yes")) as server:
        first = section(server.base_url, prices=prices)
        second = section(server.base_url, prices=prices, model="other")
        judges, cost = sitting(first, replies, requests)
        other_judges, other_cost = sitting(second, replies, requests)
        again, again_cost = sitting(first, replies, requests)
    assert [(row["model"], row["calls"]) for row in judges] == [("tiny", 2)]
    assert [(row["model"], row["calls"]) for row in other_judges] == [("other", 2)]
    assert other_cost["totals"]["calls"] == 4, "the money of the whole run stays counted"
    assert other_cost["needed"]["calls"] == 2
    assert again == judges
    assert again_cost["needed"] == cost["needed"] == other_cost["needed"]
    assert scaled_cost(again_cost, latents=2, wanted=4)["usd"] == pytest.approx(2 * cost["needed"]["usd"])


def test_a_question_of_two_roles_is_paid_once_and_answered_for_both() -> None:
    tally = Tally()
    usage = Usage(10, 3, 4)
    outcome = Outcome(Reply("x", "m", "f", usage), usage, "m", "f")
    explainer = ModelIdentity("explainer", "tiny", "http://h/v1")
    for who in (JUDGE, explainer, JUDGE):
        tally.add("ab" * 32, who, outcome, usd=0.5)
    assert tally.totals() == {
        "calls": 1, "prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 3, "usd": 0.5,
    }  # fmt: skip
    assert [(row["role"], row["calls"]) for row in tally.answerers()] == [("explainer", 1), ("judge", 1)]
    tally.add("cd" * 32, JUDGE, outcome, usd=None)
    assert tally.totals()["usd"] is None
