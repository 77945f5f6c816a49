"""Batches: half the price, the rules of single answers, and nothing paid twice after a kill."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from autointerp.errors import BudgetReachedError, EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.batch_api import BatchApi, BatchState
from autointerp.llm.open_models import OpenModels, open_models
from autointerp.llm.requests import Reply, Request
from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.faults import fault
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import TinyChatServer, tiny_chat_server

PRICES = {"tiny": {"input": 10.0, "output": 20.0}}


def is_question(call: Call) -> bool:
    return "number" in call.prompt


def echoing(call: Call) -> str:
    return f"said {call.prompt[-8:]}" if is_question(call) else "ok"


def ask_all(requests: Sequence[Request]) -> Callable[[OpenModels], Awaitable[Any]]:
    async def script(models: OpenModels) -> Any:
        found = await asyncio.gather(*(models["judge"].ask(one) for one in requests), return_exceptions=True)
        return found, models.cost_report()

    return script


def play(section: Any, path: Path, time: Any, script: Callable[[OpenModels], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with open_models(section, path, roles=["judge"], clock=time.clock) as models:
            return await script(models)

    return asyncio.run(run())


def batches(server: TinyChatServer) -> int:
    return len(server._batches._batches)


def questions(chat: Any, count: int = 5, **more: Any) -> list[Request]:
    return [chat(f"number {number}", metric="m", **more) for number in range(count)]


def test_all_that_is_asked_at_once_is_answered_at_half_the_price(
    section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    with tiny_chat_server(ScriptedBackend(echoing), batch_looks=3) as server:
        llm = section(server.base_url, batch=True, prices=PRICES)
        found, report = play(llm, replies, jumping_time, ask_all(questions(chat)))
        assert 1 <= batches(server) <= 2
    assert [answer.text for answer in found] == [f"said number {number}" for number in range(5)]
    (row,) = report["rows"]
    assert row["batch_calls"] == row["calls"] == 5
    full = (row["prompt_tokens"] * 10 + row["completion_tokens"] * 20) / 1e6
    assert row["usd"] == pytest.approx(full / 2)


def test_chats_and_completions_are_batches_of_their_own(
    section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    requests = [*questions(chat, 2), Request(prompt="number 7", max_tokens=5)]
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        found, _ = play(section(server.base_url, batch=True), replies, jumping_time, ask_all(requests))
        paths = {batch.fields["endpoint"] for batch in server._batches._batches.values()}
    assert all(isinstance(answer, Reply) for answer in found)
    assert paths == {"/v1/chat/completions", "/v1/completions"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [("refused", "content_filter"), ("cut_off", "cut_off"), ("context_too_long", "too_long"),
     ("bad_request", "failed_request"), ("dropped", "failed_request"), ("server_error", "failed_request")],
)  # fmt: skip
def test_lines_follow_the_rules_of_single_answers(
    name: str, cause: str, section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    faulty = fault(name)
    backend = ScriptedBackend(
        lambda call: faulty(call) if call.prompt.endswith("number 1") else echoing(call)
    )
    with tiny_chat_server(backend) as server:
        found, _ = play(
            section(server.base_url, batch=True), replies, jumping_time, ask_all(questions(chat, 3))
        )
    assert isinstance(found[0], Reply) and isinstance(found[2], Reply)
    assert isinstance(found[1], Refusal)
    assert found[1].cause == cause


def test_a_batch_that_is_refused_as_a_whole_is_told_to_all_who_wait(
    section: Any, chat: Any, replies: Path, jumping_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_self: BatchApi, _batch: str) -> BatchState:
        return BatchState("failed", (), "the file has too many lines")

    monkeypatch.setattr(BatchApi, "state", refused)
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        llm = section(server.base_url, batch=True)
        found, report = play(llm, replies, jumping_time, ask_all(questions(chat, 3)))
    assert [type(answer) for answer in found] == [EndpointError] * 3
    assert "too many lines" in str(found[0])
    assert report["totals"]["calls"] == 0, "nothing was answered"


def test_a_line_that_expired_is_sent_again(section: Any, chat: Any, replies: Path, jumping_time: Any) -> None:
    left = [fault("dropped"), fault("server_error")]

    def say(call: Call) -> Any:
        return left.pop(0)(call) if is_question(call) and left else echoing(call)

    with tiny_chat_server(ScriptedBackend(say)) as server:
        found, report = play(
            section(server.base_url, batch=True), replies, jumping_time, ask_all(questions(chat, 1))
        )
        assert batches(server) == 3
    assert isinstance(found[0], Reply)
    assert report["rows"][0]["retries"] == 2


def test_a_batch_that_is_under_way_when_the_run_ends_is_picked_up(
    section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    with tiny_chat_server(ScriptedBackend(echoing), batch_looks=10**9) as server:
        llm = section(server.base_url, batch=True)

        async def stopped(models: OpenModels) -> None:
            tasks = [asyncio.create_task(models["judge"].ask(one)) for one in questions(chat)]
            while batches(server) == 0:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            del tasks

        play(llm, replies, jumping_time, stopped)
        for batch in server._batches._batches.values():
            batch.looks_left = 0
        sent = batches(server)
        found, report = play(llm, replies, jumping_time, ask_all(questions(chat)))
        assert batches(server) == sent
        assert report["rows"][0]["calls"] == 5
    assert [answer.text for answer in found] == [f"said number {number}" for number in range(5)]


def test_a_batch_whose_id_was_never_noted_is_found_by_its_mark(
    section: Any, chat: Any, replies: Path, jumping_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the run had been killed between the start of a batch and the note of its id."""
    from autointerp.llm.batch_api import BatchApi

    start = BatchApi.start

    async def killed(self: BatchApi, file: str, path: str, *, mark: str) -> str:
        await start(self, file, path, mark=mark)
        raise EndpointError("killed here")

    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        llm = section(server.base_url, batch=True)
        with monkeypatch.context() as patch:
            patch.setattr(BatchApi, "start", killed)
            found, _ = play(llm, replies, jumping_time, ask_all(questions(chat)))
            assert all(isinstance(error, EndpointError) for error in found)
        sent = batches(server)
        found, _ = play(llm, replies, jumping_time, ask_all(questions(chat)))
        assert batches(server) == sent
    assert all(isinstance(answer, Reply) for answer in found)


def test_a_batch_that_is_lost_is_sent_anew(section: Any, chat: Any, replies: Path, jumping_time: Any) -> None:
    from autointerp.llm.requests import request_key
    from autointerp.llm.response_cache import ResponseCache

    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        llm = section(server.base_url, batch=True)
        (request,) = questions(chat, 1)
        asked = Request(messages=request.messages, metric="m", temperature=0.0, seed=0)
        key = request_key(server.base_url, "tiny", asked)

        async def note() -> None:
            with ResponseCache(replies) as cache:
                await cache.set_batch("batch_gone", server.base_url, {key: key})

        asyncio.run(note())
        found, _ = play(llm, replies, jumping_time, ask_all([request]))
        with ResponseCache(replies) as cache:
            assert cache.batches(server.base_url) == {}
    assert isinstance(found[0], Reply)


def test_a_server_without_batches_is_a_clear_line(
    section: Any, chat: Any, replies: Path, jumping_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_chat_server(ScriptedBackend(echoing)) as server:

        async def nothing(_request: Any) -> None:
            return None

        monkeypatch.setattr(server._batches, "answer", nothing)
        found, _ = play(
            section(server.base_url, batch=True), replies, jumping_time, ask_all(questions(chat, 1))
        )
    assert isinstance(found[0], EndpointError)
    assert "no batch interface" in str(found[0])


def test_budgets_hold_over_batches(section: Any, chat: Any, replies: Path, jumping_time: Any) -> None:
    requests = [chat(f"{'word ' * 100}number {number}", max_tokens=20) for number in range(30)]
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        llm = section(server.base_url, batch=True, budget_tokens=3000)
        found, report = play(llm, replies, jumping_time, ask_all(requests))
    assert any(isinstance(answer, Reply) for answer in found)
    assert any(isinstance(error, BudgetReachedError) for error in found)
    totals = report["totals"]
    assert totals["prompt_tokens"] + totals["completion_tokens"] <= 3000
