"""When a request is sent again, and how long after."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.client import OpenAIClient
from autointerp.llm.limits import ConcurrencyLimit, RateLimit
from autointerp.llm.outcomes import Failure, Outcome
from autointerp.llm.requests import Reply, Request
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.retrying import Account, Retries, Sender
from autointerp.llm.spending import Ledger
from autointerp.llm.wire_format import Dialect

REPLY = {
    "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 1},
}
Handler = Callable[[httpx2.Request], Any]


@given(st.integers(1, 200), st.floats(0, 1))
def test_waits_double_up_to_a_bound_and_are_spread(attempt: int, jitter: float) -> None:
    retries = Retries(first_seconds=0.5, longest_seconds=30.0, jitter=lambda: jitter)
    seconds = retries.wait_seconds(Failure("server_error", ""), attempt)
    longest = min(0.5 * 2.0 ** (attempt - 1), 30.0)
    assert longest / 2 <= seconds <= longest


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_what_the_server_asks_is_waited_at_least_within_bounds(asked: float, jitter: float) -> None:
    retries = Retries(longest_asked_seconds=120.0, jitter=lambda: jitter)
    seconds = retries.wait_seconds(Failure("rate_limited", "", asked), 1)
    assert min(asked, 120.0) <= seconds <= 132.0


def run(
    handler: Handler,
    script: Callable[[Sender, Ledger], Any],
    *,
    path: Path,
    time: Any,
    timeout_seconds: float = 30.0,
    attempts: int = 4,
    **limits: Any,
) -> Any:
    async def play() -> Any:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        with ResponseCache(path) as cache:
            client = OpenAIClient(
                "http://h.invalid/v1", http_client=http, timeout_seconds=timeout_seconds, clock=time.clock
            )
            ledger = Ledger({}, budget_tokens=100_000)
            sender = Sender(
                client,
                ledger,
                cache,
                concurrency=ConcurrencyLimit(8, clock=time.clock),
                retries=Retries(attempts),
                clock=time.clock,
                **limits,
            )
            try:
                return await script(sender, ledger), cache.losses(), ledger.spent_tokens
            finally:
                await client.close()

    return asyncio.run(play())


def one(request: Request) -> Callable[[Sender, Ledger], Any]:
    async def script(sender: Sender, _ledger: Ledger) -> Outcome:
        return await sender.send(request, Account("m", "judge", "a"), Dialect())

    return script


def test_attempts_are_counted_and_end_in_a_refusal(chat: Any, replies: Path, jumping_time: Any) -> None:
    calls = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return httpx2.Response(500, json={"error": {"message": "later"}})

    outcome, losses, spent = run(handler, one(chat()), path=replies, time=jumping_time)
    assert len(calls) == 4
    assert outcome.attempts == 4
    assert isinstance(outcome.answer, Refusal)
    assert outcome.answer.cause == "failed_request"
    assert "later" in outcome.answer.detail
    assert not outcome.is_final
    assert losses == []
    assert spent == 0


def test_a_damaged_body_may_have_been_paid_and_is_booked_at_its_worst(
    chat: Any, replies: Path, jumping_time: Any
) -> None:
    bodies = [b"{", b"{}"]

    def handler(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=bodies.pop()) if bodies else httpx2.Response(200, json=REPLY)

    outcome, losses, spent = run(handler, one(chat(max_tokens=20)), path=replies, time=jumping_time)
    assert isinstance(outcome.answer, Reply)
    assert outcome.attempts == 3
    assert [(row["kind"], row["calls"], row["completion_tokens"]) for row in losses] == [
        ("damaged_reply", 2, 40)
    ]
    assert spent == 8 + losses[0]["prompt_tokens"] + losses[0]["completion_tokens"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(httpx2.ConnectError("refused"), None), (httpx2.ConnectTimeout("nobody there"), None),
     (httpx2.ReadTimeout("slow"), "timeout"), (httpx2.RemoteProtocolError("ended early"), "dropped"),
     (httpx2.ReadError("reset"), "dropped")],
)  # fmt: skip
def test_broken_connections_heal_and_what_was_sent_may_have_been_paid(
    error: Exception, kind: str | None, chat: Any, replies: Path, jumping_time: Any
) -> None:
    broken = [error, error]

    def handler(_: httpx2.Request) -> httpx2.Response:
        if broken:
            raise broken.pop()
        return httpx2.Response(200, json=REPLY)

    outcome, losses, _ = run(handler, one(chat()), path=replies, time=jumping_time)
    assert isinstance(outcome.answer, Reply)
    assert [(row["kind"], row["calls"]) for row in losses] == ([] if kind is None else [(kind, 2)])


def test_a_reply_that_drips_is_given_up_at_the_time_limit(
    chat: Any, replies: Path, jumping_time: Any
) -> None:
    async def handler(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(30)
        return httpx2.Response(200, json=REPLY)

    outcome, _, _ = run(
        handler, one(chat()), path=replies, time=jumping_time, timeout_seconds=0.05, attempts=2
    )
    assert isinstance(outcome.answer, Refusal)
    assert "no reply within" in outcome.answer.detail


def test_an_untrusted_certificate_ends_it_at_once(chat: Any, replies: Path, jumping_time: Any) -> None:
    import ssl

    calls = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        raise httpx2.ConnectError("tls") from ssl.SSLCertVerificationError("self-signed")

    with pytest.raises(EndpointError, match="certificate"):
        run(handler, one(chat()), path=replies, time=jumping_time)
    assert len(calls) == 1


def test_the_first_requests_all_refused_end_it_but_a_few_later_ones_do_not(
    chat: Any, replies: Path, jumping_time: Any
) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        if b"good" in request.content:
            return httpx2.Response(200, json=REPLY)
        return httpx2.Response(400, json={"error": {"message": "unsupported parameter"}})

    async def script(sender: Sender, _ledger: Ledger) -> Any:
        account = Account("m", "judge", "a")
        await sender.send(chat("good"), account, Dialect())
        refused = [await sender.send(chat(str(n)), account, Dialect()) for n in range(30)]
        assert all(isinstance(outcome.answer, Refusal) for outcome in refused)

    run(handler, script, path=replies, time=jumping_time)

    async def only_bad(sender: Sender, _ledger: Ledger) -> Any:
        return [await sender.send(chat(str(n)), Account("m", "judge", "a"), Dialect()) for n in range(30)]

    with pytest.raises(EndpointError, match="answered none of 5"):
        run(handler, only_bad, path=replies, time=jumping_time)


def test_rates_are_kept_and_tokens_corrected(chat: Any, replies: Path, jumping_time: Any) -> None:
    times = []

    def handler(_: httpx2.Request) -> httpx2.Response:
        times.append(jumping_time.now)
        return httpx2.Response(200, json=REPLY)

    tokens = RateLimit(6000, burst_seconds=0, clock=jumping_time.clock)

    async def script(sender: Sender, _ledger: Ledger) -> Any:
        for number in range(4):
            await sender.send(chat(str(number), max_tokens=1000), Account("m", "judge", "a"), Dialect())

    run(
        handler,
        script,
        path=replies,
        time=jumping_time,
        requests_per_minute=RateLimit(30, burst_seconds=0, clock=jumping_time.clock),
        tokens_per_minute=tokens,
    )
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == pytest.approx([2.0, 2.0, 2.0])


def test_bodies_that_name_a_foreign_status_are_judged_by_it(
    chat: Any, replies: Path, jumping_time: Any
) -> None:
    """Some gateways answer 200 with an error inside."""
    said = [{"error": {"code": 429, "message": "slow down"}}, {"error": {"code": "x"}}, REPLY]

    def handler(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=said.pop(0))

    outcome, losses, _ = run(handler, one(chat()), path=replies, time=jumping_time)
    assert isinstance(outcome.answer, Reply)
    assert outcome.attempts == 3
    assert losses == []
