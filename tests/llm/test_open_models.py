"""Models of a suite's roles against a real server: kept, paid once, refused, replayed, budgeted."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from autointerp.errors import BudgetReachedError, EndpointError, RunStoreError, SuiteError
from autointerp.explanation_records import Refusal
from autointerp.explanation_sections import LlmSection
from autointerp.llm.kept_answers import Standing
from autointerp.llm.language_model import LanguageModel
from autointerp.llm.open_models import OpenModels, check_endpoint, open_models
from autointerp.llm.requests import Reply, Request
from autointerp.llm.response_cache import ResponseCache
from autointerp.testing.tiny_chat_server.exchange import Call
from autointerp.testing.tiny_chat_server.faults import FATAL_FAULTS, LASTING_FAULTS, PASSING_FAULTS, fault
from autointerp.testing.tiny_chat_server.restricted_backend import RestrictedBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import TinyChatServer, tiny_chat_server

KEY = "sk-test-5ecret0123456789"


def is_measuring(call: Call) -> bool:
    """Questions of these tests have a system message; whatever finds out what an endpoint does has none."""
    return call.body.get("messages", [{}])[0].get("role") != "system"


def after_measuring(steps: Sequence[Any]) -> ScriptedBackend:
    """`ok` to all that measuring asks, then the steps, the last of them for ever."""
    left = list(steps)

    def say(call: Call) -> Any:
        if is_measuring(call):
            return "ok"
        step = left.pop(0) if len(left) > 1 else left[0]
        return step(call) if callable(step) else step

    return ScriptedBackend(say)


def echoing(call: Call) -> str:
    return f"said {call.prompt[-8:]}"


def asked(server: TinyChatServer) -> int:
    """Calls that were no measuring."""
    return sum(server.log.asked.values())


class Seen(ScriptedBackend):
    """Counts the questions that came in, answered or not."""

    def __init__(self) -> None:
        super().__init__(echoing)
        self.questions = 0

    async def answer(self, call: Call) -> Any:
        self.questions += not is_measuring(call)
        return await super().answer(call)


def play(section: LlmSection, path: Path, script: Callable[[OpenModels], Awaitable[Any]], **more: Any) -> Any:
    async def run() -> Any:
        async with open_models(section, path, **more) as models:
            return await script(models)

    return asyncio.run(run())


def ask_all(requests: Sequence[Request], role: str = "judge") -> Callable[[OpenModels], Awaitable[Any]]:
    async def script(models: OpenModels) -> Any:
        model = models[role]  # type: ignore[index]
        return await asyncio.gather(*(model.ask(request) for request in requests), return_exceptions=True)

    return script


def test_each_role_is_a_language_model_and_the_same_question_is_paid_once(
    section: Any, chat: Any, replies: Path
) -> None:
    async def script(models: OpenModels) -> Any:
        assert list(models) == ["explainer", "simulator", "judge"]
        assert all(isinstance(model, LanguageModel) for model in models.values())
        first = await models["judge"].ask(chat(metric="a"))
        return first, await models["explainer"].ask(chat(metric="b")), models.cost_report()

    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        first, second, report = play(section(server.base_url), replies, script)
    assert isinstance(first, Reply)
    assert first == second
    rows = {(row["role"], row["metric"]): row for row in report["rows"]}
    assert rows["judge", "a"]["calls"] == 1
    assert rows["explainer", "b"]["calls"] == 0
    assert rows["explainer", "b"]["from_cache_calls"] == 1
    json.dumps(report, allow_nan=False)


def test_questions_asked_at_once_are_sent_once(section: Any, chat: Any, replies: Path) -> None:
    with tiny_chat_server(ScriptedBackend(echoing), latency_seconds=0.05) as server:
        answers = play(section(server.base_url), replies, ask_all([chat()] * 40))
        body = [count for key, count in server.log.asked.items()]
    assert len({answer.text for answer in answers}) == 1
    with tiny_chat_server(ScriptedBackend(echoing)) as other:
        play(section(other.base_url), replies, ask_all([]))
        measuring = asked(other)
    assert sum(body) == measuring + 1


@pytest.mark.parametrize("name", sorted(PASSING_FAULTS))
def test_passing_faults_are_asked_again_until_they_heal(
    name: str, section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    with tiny_chat_server(after_measuring([fault(name), fault(name), "fine"])) as server:
        (answer,) = play(
            section(server.base_url), replies, ask_all([chat()]), clock=jumping_time.clock, roles=["judge"]
        )
        spoilt = [record.fault for record in server.log.records if record.fault]
    assert isinstance(answer, Reply), answer
    assert answer.text == ("hello" if name == "slow" else "fine")
    assert spoilt == [name] * (1 if name == "slow" else 2), "the faults met the question, not the measuring"


@pytest.mark.parametrize(
    ("name", "cause"),
    [("refused", "content_filter"), ("content_filter", "content_filter"), ("cut_off", "cut_off"),
     ("empty", "empty"), ("missing_logprobs", "missing_logprobs"), ("uneven_logprobs", "missing_logprobs"),
     ("context_too_long", "too_long"), ("bad_request", "failed_request")],
)  # fmt: skip
def test_lasting_faults_are_refusals_with_their_cause(
    name: str, cause: str, section: Any, chat: Any, replies: Path
) -> None:
    request = chat(top_logprobs=3 if "logprobs" in name else None)
    with tiny_chat_server(after_measuring([fault(name)])) as server:

        async def script(models: OpenModels) -> Any:
            return await models["judge"].ask(request), models.cost_report()

        answer, report = play(section(server.base_url), replies, script)
        before = asked(server)
        again, _ = play(section(server.base_url), replies, script)
        repeated = asked(server) - before
    if name == "uneven_logprobs" and isinstance(answer, Reply):
        pytest.fail("a chat's log-probabilities were short and taken")
    assert isinstance(answer, Refusal)
    assert answer.cause == cause
    assert report["rows"][0]["refusals"] == {cause: 1}
    assert again == answer
    assert repeated == (1 if cause == "failed_request" else 0)


def test_every_lasting_and_fatal_fault_of_the_server_is_in_a_test_here() -> None:
    tried = {"refused", "content_filter", "cut_off", "empty", "missing_logprobs", "uneven_logprobs"}
    usable = {"half_json_text", "wrong_count", "unicode", "injection"}
    assert set(LASTING_FAULTS) == tried | usable
    assert set(FATAL_FAULTS) == {
        "insufficient_quota", "wrong_key", "key_echoed", "forbidden", "no_such_model",
        "bad_request", "context_too_long", "web_page", "error_in_200", "no_choices",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["half_json_text", "wrong_count", "unicode", "injection"])
def test_odd_texts_come_back_as_they_are_also_from_the_file(
    name: str, section: Any, chat: Any, replies: Path
) -> None:
    with tiny_chat_server(after_measuring([fault(name)])) as server:
        (answer,) = play(section(server.base_url), replies, ask_all([chat()]))
        (again,) = play(section(server.base_url, offline=True), replies, ask_all([chat()]))
    assert isinstance(answer, Reply)
    assert again == answer


@pytest.mark.parametrize(
    "name", ["insufficient_quota", "wrong_key", "key_echoed", "forbidden", "no_such_model"]
)
def test_fatal_faults_end_the_run_at_once(name: str, section: Any, chat: Any, replies: Path) -> None:
    with tiny_chat_server(after_measuring([fault(name)])) as server:

        async def script(models: OpenModels) -> Any:
            (error,) = await ask_all([chat()])(models)
            return error, await ask_all([chat(str(number)) for number in range(5)])(models)

        error, others = play(section(server.base_url), replies, script)
        sent = [record for record in server.log.records if record.fault == name]
    assert isinstance(error, EndpointError)
    assert {str(other) for other in others} == {str(error)}
    assert len(sent) == 1


@pytest.mark.parametrize("name", ["web_page", "error_in_200", "no_choices"])
def test_servers_that_only_ever_answer_nonsense_end_the_run(
    name: str, section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    requests = [chat(str(number)) for number in range(8)]
    with tiny_chat_server(after_measuring([fault(name)])) as server:
        found = play(section(server.base_url), replies, ask_all(requests), clock=jumping_time.clock)
    assert any(isinstance(error, EndpointError) and "answered none of" in str(error) for error in found)
    refusals = [answer for answer in found if isinstance(answer, Refusal)]
    assert all(refusal.cause == "failed_request" for refusal in refusals)


def test_an_endpoint_that_dies_ends_the_run_and_a_rerun_goes_on(
    section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    requests = [chat(str(number)) for number in range(40)]
    dying = TinyChatServer(ScriptedBackend(echoing))
    dying.start()
    url, port = dying.base_url, dying.port

    async def script(models: OpenModels) -> Any:
        first = await asyncio.gather(*(models["judge"].ask(one) for one in requests[:5]))
        await asyncio.to_thread(dying.stop)
        return first, await ask_all(requests)(models)

    first, rest = play(section(url), replies, script, clock=jumping_time.clock)
    assert rest[:5] == first
    assert any(isinstance(error, EndpointError) and "any more" in str(error) for error in rest[5:])
    with tiny_chat_server(ScriptedBackend(echoing), port=port) as server:
        again = play(section(url), replies, ask_all(requests))
        assert asked(server) == 35
    assert all(isinstance(answer, Reply) for answer in again)


def test_retry_after_is_waited_for(section: Any, chat: Any, replies: Path, jumping_time: Any) -> None:
    from autointerp.testing.tiny_chat_server.faults import rate_limited

    limited = rate_limited(seconds=17)
    from autointerp.testing.tiny_chat_server.exchange import Answer

    with tiny_chat_server(after_measuring([lambda call: limited(call, Answer({})), "fine"])) as server:
        (answer,) = play(section(server.base_url), replies, ask_all([chat()]), clock=jumping_time.clock)
    assert isinstance(answer, Reply)
    assert max(jumping_time.slept) >= 17


def test_no_more_at_once_than_the_suite_says(section: Any, chat: Any, replies: Path) -> None:
    requests = [chat(str(number)) for number in range(60)]
    with tiny_chat_server(after_measuring([echoing]), latency_seconds=0.01) as server:
        play(section(server.base_url, concurrency=5), replies, ask_all(requests))
        most = max(5, sum(count for _, count in server.log.asked.items()) - 60)
        assert server.log.most_at_once <= most


def test_an_endpoint_that_takes_few_at_once_is_not_overrun(section: Any, chat: Any, replies: Path) -> None:
    requests = [chat(str(number)) for number in range(100)]
    backend = RestrictedBackend(ScriptedBackend(echoing), capacity=4)
    with tiny_chat_server(backend, latency_seconds=0.01) as server:
        answers = play(section(server.base_url, attempts=12), replies, ask_all(requests))
        refused = sum(record.status == 429 for record in server.log.records)
    assert all(isinstance(answer, Reply) for answer in answers)
    assert refused < 100


def test_a_budget_in_dollars_stops_before_it_is_exceeded_and_a_larger_one_goes_on(
    section: Any, chat: Any, replies: Path
) -> None:
    price = {"tiny": {"input": 1000.0, "output": 1000.0}}
    requests = [chat(f"{'word ' * 100}{number}", max_tokens=20) for number in range(30)]
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        small = section(server.base_url, prices=price, budget_usd=3.0)
        found = play(small, replies, ask_all(requests))
        answered = [answer for answer in found if isinstance(answer, Reply)]
        stopped = [error for error in found if isinstance(error, BudgetReachedError)]
        assert answered and stopped and len(answered) + len(stopped) == 30
        with_report = play(section(server.base_url, prices=price), replies, _report)
        assert with_report["totals"]["usd"] <= 3.0
        before = asked(server)
        with pytest.raises(BudgetReachedError):
            play(section(server.base_url, prices=price, budget_usd=0.1), replies, _first(chat("new")))
        assert asked(server) == before
        large = section(server.base_url, prices=price, budget_usd=100.0)
        again = play(large, replies, ask_all(requests))
        assert asked(server) == before + len(stopped)
    assert all(isinstance(answer, Reply) for answer in again)


async def _report(models: OpenModels) -> Any:
    return models.cost_report()


def _first(request: Request) -> Callable[[OpenModels], Awaitable[Any]]:
    async def script(models: OpenModels) -> Any:
        return await models["judge"].ask(request)

    return script


def test_a_budget_in_tokens_holds_too(section: Any, chat: Any, replies: Path) -> None:
    requests = [chat(f"{'word ' * 100}{number}", max_tokens=20) for number in range(30)]
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        found = play(section(server.base_url, budget_tokens=3000), replies, ask_all(requests))
        report = play(section(server.base_url), replies, _report)
    assert any(isinstance(error, BudgetReachedError) for error in found)
    totals = report["totals"]
    assert 0 < totals["prompt_tokens"] + totals["completion_tokens"] <= 3000


def test_answers_on_their_way_are_kept_when_the_budget_ends_the_run(
    section: Any, chat: Any, replies: Path
) -> None:
    """The first error leaves the `with` block while three others are still answered."""
    with tiny_chat_server(after_measuring([echoing]), latency_seconds=0.15) as server:

        async def script(models: OpenModels) -> Any:
            model = models["judge"]
            for number in range(3):
                asyncio.create_task(model.ask(chat(f"number {number}")))  # noqa: RUF006
            await asyncio.sleep(0.05)
            await model.ask(chat("x" * 50_000))

        with pytest.raises(BudgetReachedError):
            play(section(server.base_url, budget_tokens=20_000), replies, script)
        before = asked(server)
        answers = play(
            section(server.base_url), replies, ask_all([chat(f"number {number}") for number in range(3)])
        )
        assert asked(server) == before
    assert all(isinstance(answer, Reply) for answer in answers)


def test_answers_on_their_way_are_kept_when_the_user_stops_the_run(
    section: Any, chat: Any, replies: Path
) -> None:
    requests = [chat(f"number {number}") for number in range(3)]
    backend = Seen()
    with tiny_chat_server(backend, latency_seconds=0.3) as server:

        async def run() -> None:
            async with open_models(section(server.base_url), replies) as models:
                await ask_all(requests)(models)

        async def stop() -> None:
            task = asyncio.create_task(run())
            while backend.questions < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(stop())
        before = asked(server)
        answers = play(section(server.base_url), replies, ask_all(requests))
        assert asked(server) == before
    assert all(isinstance(answer, Reply) for answer in answers)


def test_no_proxy_of_the_environment_leads_to_this_machine(
    section: Any, chat: Any, replies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        (answer,) = play(section(server.base_url), replies, ask_all([chat()]))
    assert isinstance(answer, Reply)


def test_a_budget_in_dollars_without_a_price_is_refused_unsent(section: Any, replies: Path) -> None:
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        with pytest.raises(SuiteError, match="price of 'tiny'"):
            play(section(server.base_url, budget_usd=1.0), replies, _report)
        assert asked(server) == 0


def test_offline_replays_answers_and_refusals_and_names_what_is_missing(
    section: Any, chat: Any, replies: Path
) -> None:
    requests = [chat(str(number), top_logprobs=2) for number in range(6)]
    steps = [echoing, fault("refused"), fault("bad_request"), echoing]
    with tiny_chat_server(after_measuring(steps)) as server:
        url = server.base_url
        online = play(section(url, concurrency=1), replies, ask_all(requests))
    content = replies.read_bytes()
    offline = play(section(url, offline=True), replies, ask_all(requests))
    assert offline == online
    assert {type(answer) for answer in offline} == {Reply, Refusal}
    found = play(section(url, offline=True), replies, ask_all([*requests, chat("new"), chat("newer")]))
    assert "2 of 8 questions" in str(found[-1])
    assert isinstance(found[-1], EndpointError)
    assert replies.read_bytes() == content


def test_offline_without_a_file_or_a_measurement_is_one_clear_line(section: Any, replies: Path) -> None:
    with pytest.raises(EndpointError, match="no kept answers"):
        play(section("http://127.0.0.1:9/v1", offline=True), replies, _report)
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        play(section(server.base_url), replies, _report)
    with pytest.raises(EndpointError, match="never measured"):
        play(section("http://127.0.0.1:9/v1", offline=True), replies, _report)


def test_a_file_of_something_else_is_refused(section: Any, replies: Path) -> None:
    replies.write_bytes(b"my diary " * 200)
    with pytest.raises(RunStoreError, match="no file of LLM answers"):
        play(section("http://127.0.0.1:9/v1"), replies, _report)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://nobody.invalid/v1"])
def test_no_such_server_is_said_when_the_models_are_opened(
    url: str, section: Any, replies: Path, jumping_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if "invalid" in url:
        monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(EndpointError, match=r"no such host|answers neither"):
        play(section(url), replies, _report, clock=jumping_time.clock)


def test_no_model_is_a_clear_line(section: Any, replies: Path) -> None:
    with pytest.raises(SuiteError, match="no model is named"):
        play(section("http://127.0.0.1:9/v1", model=None), replies, _report)


def test_roles_have_their_own_models_seeds_and_temperatures(section: Any, chat: Any, replies: Path) -> None:
    bodies = []

    def remember(call: Call) -> str:
        if not is_measuring(call):
            bodies.append(call.body)
        return "ok"

    roles = {"judge": {"model": "other", "temperature": 0.7, "seed": 40}}
    with tiny_chat_server(ScriptedBackend(remember)) as server:

        async def script(models: OpenModels) -> Any:
            await models["explainer"].ask(chat())
            await models["judge"].ask(chat(replicate=2))
            await models["judge"].ask(chat(seed=5, temperature=0.0))
            return models.judges()

        judges = play(section(server.base_url, **roles), replies, script)
    assert [(body["model"], body["temperature"], body["seed"]) for body in bodies] == [
        ("tiny", 0.0, 0),
        ("other", 0.7, 42),
        ("other", 0.0, 5),
    ]
    assert {(row["role"], row["model"], row["temperature"], row["answered_by"]) for row in judges} == {
        ("explainer", "tiny", 0.0, "scripted"),
        ("judge", "other", 0.7, "scripted"),
    }


def test_listeners_hear_of_each_answer(section: Any, chat: Any, replies: Path) -> None:
    heard: list[Standing] = []
    with tiny_chat_server(after_measuring([echoing])) as server:
        play(
            section(server.base_url), replies, ask_all([chat("1"), chat("2"), chat("1")]), listen=heard.append
        )
    assert [standing.answered for standing in heard] == [1, 2, 3]
    assert heard[-1].from_cache == 1
    assert heard[-1].spent_tokens > 0
    assert heard[-1].seconds_left(expected=3) == 0
    assert heard[-1].seconds_left(expected=5) == pytest.approx(heard[-1].seconds)
    assert Standing().seconds_left(5) is None


def test_the_key_is_sent_and_is_in_no_file_log_or_error(
    section: Any, chat: Any, replies: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AUTOINTERP_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    seen = set()

    def quote(call: Call) -> str:
        seen.add(call.headers["authorization"])
        return f"the key is {KEY}, as in Bearer {KEY}"

    with tiny_chat_server(ScriptedBackend(quote), api_key=KEY) as server:

        async def script(models: OpenModels) -> Any:
            return repr(models["judge"]), await models["judge"].ask(chat()), models.cost_report()

        told = repr(play(section(server.base_url), replies, script))
        with tiny_chat_server(after_measuring([fault("key_echoed")])) as echo:
            (error,) = play(section(echo.base_url), replies, ask_all([chat()]))
    assert seen == {f"Bearer {KEY}"}
    assert isinstance(error, EndpointError)
    chain: BaseException | None = error
    while chain is not None:
        assert KEY not in repr(chain) and KEY not in str(chain)
        chain = chain.__cause__ or chain.__context__
    assert KEY not in told
    assert KEY not in caplog.text
    for file in replies.parent.iterdir():
        assert KEY.encode() not in file.read_bytes()
    import sqlite3
    import zlib

    connection = sqlite3.connect(replies)
    for question, answer in connection.execute("SELECT question, answer FROM answers"):
        assert KEY.encode() not in zlib.decompress(question) + zlib.decompress(answer)
    connection.close()


def test_a_missing_key_is_said_on_401(section: Any, replies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOINTERP_TEST_KEY", raising=False)
    with (
        tiny_chat_server(ScriptedBackend(echoing), api_key=KEY) as server,
        pytest.raises(EndpointError, match="AUTOINTERP_TEST_KEY is not set"),
    ):
        play(section(server.base_url), replies, _report)


def test_log_probabilities_that_the_endpoint_lacks_are_refused_unsent(
    section: Any, chat: Any, replies: Path
) -> None:
    backend = RestrictedBackend(ScriptedBackend(echoing), ignores=["logprobs"], has_not=["/v1/completions"])
    with tiny_chat_server(backend) as server:

        async def script(models: OpenModels) -> Any:
            model, before = models["judge"], asked(server)
            refused = await model.ask(chat(top_logprobs=5))
            with pytest.raises(EndpointError, match="no completions"):
                await model.ask(Request(prompt="x"))
            return refused, asked(server) - before

        refused, sent = play(section(server.base_url), replies, script)
    assert isinstance(refused, Refusal)
    assert refused.cause == "missing_logprobs"
    assert sent == 0


def test_check_endpoint_gives_a_table_and_keeps_nothing(section: Any, tmp_path: Path) -> None:
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        rows = asyncio.run(check_endpoint(section(server.base_url)))
    table = {row["capability"]: row["given"] for row in rows}
    assert table["chat"] == "yes"
    assert table["json_schema"] == "no"
    assert all(row["evidence"] and row["endpoint"] == server.base_url for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_a_local_model_plays_a_role_for_nothing_beside_a_paid_one(
    section: Any, chat: Any, replies: Path, tmp_path: Path
) -> None:
    from autointerp.testing.tiny_subject import write_tiny_subject

    folder = tmp_path / "model"
    write_tiny_subject(folder)
    request = Request(prompt="def f(x):", max_tokens=0, echo=True, top_logprobs=1, metric="a")
    with tiny_chat_server(ScriptedBackend(echoing)) as server:
        llm = section(
            server.base_url,
            judge={"base_url": "local", "model": str(folder)},
            prices={"tiny": {"input": 1.0, "output": 1.0}},
            budget_usd=1.0,
        )

        async def script(models: OpenModels) -> Any:
            paid = await models["explainer"].ask(chat(metric="b"))
            local = await asyncio.gather(*(models["judge"].ask(request) for _ in range(3)))
            return paid, local, models.cost_report()

        paid, local, report = play(llm, replies, script)
    assert isinstance(paid, Reply)
    assert isinstance(local[0], Reply) and local[0].logprobs
    assert local[0] == local[1] == local[2]
    rows = {row["role"]: row for row in report["rows"]}
    assert rows["judge"]["usd"] == 0.0
    assert rows["judge"]["prompt_tokens"] > 0
    assert rows["judge"]["model"] == folder.name  # and no path of this machine
    assert str(tmp_path) not in str(report)
    assert rows["explainer"]["usd"] > 0


def test_the_first_questions_are_sent_before_the_last_is_looked_up(
    section: Any, chat: Any, replies: Path, monkeypatch: Any
) -> None:
    """Else thousands that are asked together wait for all to be looked up."""
    looked_up: list[str] = []
    seen: list[int] = []
    get = ResponseCache.get

    def counted(self: Any, key: str, **more: Any) -> Any:
        looked_up.append(key)
        return get(self, key, **more)

    def say(call: Any) -> str:
        if "question" in call.prompt:
            seen.append(len(looked_up))
        return "ok"

    monkeypatch.setattr(ResponseCache, "get", counted)

    async def run(url: str) -> list[Any]:
        async with open_models(section(url, concurrency=2), replies, roles=["judge"]) as models:
            judge = models["judge"]
            return await asyncio.gather(*(judge.ask(chat(f"question {i}")) for i in range(100)))

    with tiny_chat_server(ScriptedBackend(say)) as server:
        answers = asyncio.run(run(server.base_url))
    assert all(isinstance(answer, Reply) for answer in answers)
    assert len(looked_up) == len(seen) == 100
    assert seen[0] <= 2 * 4
