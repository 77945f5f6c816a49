"""Capabilities are what came back, whatever the server says of itself."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.capabilities import Measured, require
from autointerp.llm.client import OpenAIClient
from autointerp.llm.echo_check import echo_problem
from autointerp.llm.endpoint_model import EndpointModel, InProcessModel, RoleDefaults
from autointerp.llm.kept_answers import KeptAnswers
from autointerp.llm.language_model import LanguageModel, ModelIdentity, ask_parsed
from autointerp.llm.measuring import MOST_TOKENS_OF_MEASURING, measure
from autointerp.llm.requests import Message, Reply, Request, TokenLogprob, Usage
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.spending import Ledger
from autointerp.llm.wire_format import body_of
from autointerp.testing.tiny_chat_server.exchange import Backend, Call
from autointerp.testing.tiny_chat_server.faults import PASSING_FAULTS
from autointerp.testing.tiny_chat_server.faulty_backend import FaultyBackend
from autointerp.testing.tiny_chat_server.restricted_backend import RestrictedBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server


def obedient(call: Call) -> str:
    """Obeys formats; its words depend on the seed."""
    wanted = (call.body.get("response_format") or {}).get("type")
    if wanted == "json_schema":
        return '{"autointerp_answer": "yes"}'
    if wanted == "json_object":
        return '{"sea": "wave"}'
    return f"word {call.body.get('seed')}"


def found(backend: Backend, time: Any) -> Measured:
    async def play(url: str) -> Measured:
        client = OpenAIClient(url, clock=time.clock)
        measured, usage = await measure(client, "tiny", clock=time.clock)
        await client.close()
        assert usage.prompt_tokens <= MOST_TOKENS_OF_MEASURING.prompt_tokens
        assert usage.completion_tokens <= MOST_TOKENS_OF_MEASURING.completion_tokens
        return measured

    with tiny_chat_server(backend) as server:
        return asyncio.run(play(server.base_url))


ALL = {"chat", "completions", "logprobs", "top_logprobs", "echo", "json_schema", "json_object", "seed", "n"}


def test_a_server_that_does_everything(jumping_time: Any) -> None:
    measured = found(ScriptedBackend(obedient), jumping_time)
    assert measured.capabilities == ALL
    assert measured.dialect.structured == "json_schema"
    assert measured.dialect.top_logprobs == 20
    assert measured.answered_by == "scripted"
    assert Measured.from_json(json.loads(json.dumps(measured.to_json()))) == measured
    seed = next(finding for finding in measured.findings if finding.name == "seed")
    assert "another seed gives other words" in seed.evidence


@pytest.mark.parametrize(
    ("limits", "missing"),
    [
        ({"ignores": ["logprobs"]}, {"logprobs", "top_logprobs", "echo"}),
        ({"refuses": ["logprobs"]}, {"logprobs", "top_logprobs", "echo"}),
        ({"ignores": ["top_logprobs"]}, {"top_logprobs"}),
        ({"ignores": ["echo"]}, {"echo"}),
        ({"has_not": ["/v1/completions"]}, {"completions", "echo"}),
        ({"has_not": ["/v1/chat/completions"]}, ALL - {"completions", "echo"}),
        ({"ignores": ["response_format"]}, {"json_schema", "json_object"}),
        ({"refuses": ["response_format"]}, {"json_schema", "json_object"}),
        ({"ignores": ["n"]}, {"n"}),
        ({"refuses": ["seed"]}, {"seed"}),
    ],
)
def test_what_is_ignored_or_refused_is_missing_and_nothing_else(
    limits: dict[str, Any], missing: set[str], jumping_time: Any
) -> None:
    measured = found(RestrictedBackend(ScriptedBackend(obedient), **limits), jumping_time)
    assert measured.capabilities == ALL - missing


def test_words_that_change_under_one_seed_are_no_seed(jumping_time: Any) -> None:
    measured = found(ScriptedBackend(lambda call: f"word {call.number}"), jumping_time)
    assert "seed" not in measured.capabilities
    assert measured.takes_seed


@pytest.mark.parametrize("name", ["max_tokens", "temperature"])
def test_a_server_that_refuses_the_usual_parameters_is_asked_without(name: str, jumping_time: Any) -> None:
    measured = found(
        RestrictedBackend(ScriptedBackend(obedient), refuses=[name], has_not=["/v1/completions"]),
        jumping_time,
    )
    dialect = measured.dialect
    assert "chat" in measured.capabilities
    assert dialect.takes_temperature == (name != "temperature")
    assert dialect.max_tokens_name == ("max_completion_tokens" if name == "max_tokens" else "max_tokens")


def test_passing_faults_do_not_look_like_missing_capabilities(jumping_time: Any) -> None:
    kinds = [name for name in PASSING_FAULTS if name not in ("half_json", "slow")]
    backend = FaultyBackend(ScriptedBackend(obedient), faults=0.5, kinds=kinds, most_in_a_row=2)
    assert found(backend, jumping_time).capabilities == ALL


def mocked(handler: Callable[[httpx2.Request], httpx2.Response], time: Any) -> Measured:
    async def play() -> Measured:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        client = OpenAIClient("http://h.invalid/v1", http_client=http, clock=time.clock)
        try:
            return (await measure(client, "tiny", clock=time.clock))[0]
        finally:
            await client.close()

    return asyncio.run(play())


def test_a_chat_model_that_thinks_and_refuses_old_parameters(jumping_time: Any) -> None:
    """As newer OpenAI models: max_completion_tokens, temperature 1, no completions, no log-probabilities."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)

        def refused(said: str, status: int = 400, code: str = "unsupported_value") -> httpx2.Response:
            error = {"message": said, "type": "invalid_request_error", "code": code}
            return httpx2.Response(status, json={"error": error})

        if request.url.path.endswith("/v1/completions"):
            return refused("This is a chat model and not supported in the v1/completions endpoint.", 404)
        if "max_tokens" in body:
            return refused(
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
        if body.get("temperature", 1) != 1:
            return refused("Unsupported value: 'temperature' does not support 0 with this model.")
        if "logprobs" in body:
            return refused("You are not allowed to request logprobs from this model", 403)
        text = '{"autointerp_answer": "yes"}' if "response_format" in body else "ok"
        choices = [{"message": {"content": text}, "finish_reason": "stop"}] * body.get("n", 1)
        return httpx2.Response(200, json={"choices": choices, "model": "o-9"})

    measured = mocked(handler, jumping_time)
    assert measured.capabilities == {"chat", "json_schema", "json_object", "seed", "n"}
    assert measured.dialect.max_tokens_name == "max_completion_tokens"
    assert not measured.dialect.takes_temperature


@pytest.mark.parametrize(
    ("status", "says"), [(401, "key"), (402, "credit"), (404, "answers neither"), (500, "answers neither")]
)
def test_an_endpoint_that_answers_nothing_is_refused(status: int, says: str, jumping_time: Any) -> None:
    with pytest.raises(EndpointError, match=says):
        mocked(lambda _: httpx2.Response(status, json={"error": {"message": "no"}}), jumping_time)


@pytest.mark.parametrize("body", [b"[]", b"3", b"<html>", b'{"choices": 3}', b'{"choices": [3], "usage": 3}'])
def test_hostile_bodies_give_no_capability(body: bytes, jumping_time: Any) -> None:
    with pytest.raises(EndpointError, match="answers neither"):
        mocked(lambda _: httpx2.Response(200, content=body), jumping_time)


def test_a_method_says_what_it_lacks_before_anything_is_asked(replies: Any) -> None:
    measured = Measured("http://h/v1", "tiny", "", "", ())
    with ResponseCache(replies) as cache:
        kept = KeptAnswers(cache, Ledger({}))
        model = EndpointModel(ModelIdentity("judge", "tiny", "http://h/v1"), measured, kept, None)
        require(model, frozenset(), method="detection")
        with pytest.raises(EndpointError, match="detection needs echo, logprobs, which tiny"):
            require(model, frozenset({"logprobs", "echo"}), method="detection")


class Local:
    name, fingerprint = "folder", "f"
    capabilities = frozenset({"chat"})
    asked = 0

    async def answer(self, request: Request) -> Reply:
        self.asked += 1
        assert (request.temperature, request.seed) == (0.5, 10)
        return Reply("local", "folder", "f", Usage(3, 1))


def test_a_model_in_this_process_is_kept_and_counted_alike(chat: Any, replies: Any) -> None:
    async def play() -> None:
        with ResponseCache(replies) as cache:
            kept, local = KeptAnswers(cache, Ledger({})), Local()
            defaults = RoleDefaults(0.5, 8)
            model = InProcessModel(ModelIdentity("judge", "folder", "local"), local, kept, defaults=defaults)
            assert isinstance(model, LanguageModel)
            first = await model.ask(chat(replicate=2))
            assert await model.ask(chat(replicate=2)) == first
            assert local.asked == 1
            local.fingerprint = "of other weights"
            await model.ask(chat(replicate=2))
            assert local.asked == 2
            assert model.capabilities == {"chat"}
            assert cache.totals()[0]["prompt_tokens"] == 6

    asyncio.run(play())


class Shifted:
    """Gives at each echoed token the distribution behind it, as llama-cpp-python 0.3.36 does."""

    model = "shifted"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def answer(self, call: Call) -> Any:
        answer = await self._backend.answer(call)
        told = answer.body["choices"][0].get("logprobs") if call.body.get("echo") else None
        if told is not None:
            tops = [*told["top_logprobs"][1:], {" then": -0.5}]
            told["top_logprobs"] = [None, *(dict(top) for top in tops[1:])]
            for place, token in enumerate(told["tokens"][1:], 1):
                told["token_logprobs"][place] = told["top_logprobs"][place].setdefault(token, -9.0)
        return answer


@pytest.mark.parametrize("said", [" jumps over the lazy dog", " fox fox fox jumps"])
def test_an_echo_whose_numbers_are_one_token_off_is_no_echo(said: str, jumping_time: Any) -> None:
    backend = ScriptedBackend(lambda call: said if call.path == "/v1/completions" else obedient(call))
    assert "echo" in found(backend, jumping_time).capabilities
    measured = found(Shifted(backend), jumping_time)
    assert measured.capabilities == ALL - {"echo"}
    (echo,) = (finding for finding in measured.findings if finding.name == "echo")
    assert "wrong numbers: shifted" in echo.evidence


@pytest.mark.parametrize("said", ["", " fox fox fox fox"])
def test_an_echo_that_nothing_proves_right_is_no_echo_unless_another_prompt_does(
    said: str, jumping_time: Any
) -> None:
    def answer(call: Call, after_list: str) -> str:
        if call.path != "/v1/completions":
            return obedient(call)
        return after_list if call.prompt.startswith("One") else said

    proven = found(ScriptedBackend(lambda call: answer(call, " seven, eight")), jumping_time)
    assert "echo" in proven.capabilities
    measured = found(Shifted(ScriptedBackend(lambda call: answer(call, said))), jumping_time)
    assert measured.capabilities == ALL - {"echo"}


def entries(*tokens: tuple[str, float | None, dict[str, float]]) -> list[TokenLogprob]:
    return [TokenLogprob(token, own, tuple(top.items())) for token, own, top in tokens]


def test_one_odd_token_in_three_does_not_make_an_echo_wrong() -> None:
    right = {" a": -0.1, " b": -2.0}
    odd = {" x": -0.1, " c": -3.0}
    given = entries(("P", None, {}), (" a", -0.1, right), (" c", -3.0, odd), (" a", -0.1, right))
    assert echo_problem(" a c a", given) is None
    assert "only 0 of 2" in (echo_problem(" c d", entries((" c", -3.0, odd), (" d", -4.0, odd))) or "")
    assert echo_problem("", given) == ""
    assert echo_problem(" not there", given) == ""


def test_what_could_not_be_read_is_asked_again_warmer_and_kept_apart(chat: Any, replies: Any) -> None:
    class Stubborn:
        name, fingerprint = "folder", "f"
        capabilities = frozenset({"chat"})
        temperatures: tuple[float | None, ...] = ()

        async def answer(self, request: Request) -> Reply:
            self.temperatures = (*self.temperatures, request.temperature)
            return Reply(f"t = {request.temperature}", "folder", "f", Usage(3, 1))

    def parse(reply: Reply) -> str | Refusal:
        return reply.text if reply.text in wanted else Refusal("unparsable", reply.text)

    async def play(role_temperature: float) -> tuple[str | Refusal, tuple[float | None, ...]]:
        with ResponseCache(replies) as cache:
            stubborn, defaults = Stubborn(), RoleDefaults(role_temperature, 8)
            identity = ModelIdentity("judge", f"folder {role_temperature}", "local")
            model = InProcessModel(identity, stubborn, KeptAnswers(cache, Ledger({})), defaults=defaults)
            return await ask_parsed(model, chat(), parse), stubborn.temperatures

    wanted = ["t = 0.5"]
    assert asyncio.run(play(0.0)) == ("t = 0.5", (0.0, 0.5))
    assert asyncio.run(play(0.0)) == ("t = 0.5", ())  # both are kept, each under its own key
    assert asyncio.run(play(0.7)) == (Refusal("unparsable", "t = 0.7"), (0.7, 0.7))


class Penalising:
    """Avoids what was said before unless it is told not to, as llama-cpp-python 0.3.36 does unasked."""

    model = "penalising"

    def __init__(self, backend: Backend, parameter: str) -> None:
        self._backend, self._parameter = backend, parameter

    async def answer(self, call: Call) -> Any:
        answer = await self._backend.answer(call)
        told = answer.body["choices"][0].get("logprobs") if call.is_chat else None
        if told and call.body.get(self._parameter) != 1:
            content = told["content"]
            content[-1]["token"], content[-1]["logprob"] = " 3", -4.0
        return answer


@pytest.mark.parametrize("parameter", ["repeat_penalty", "repetition_penalty"])
def test_a_server_that_avoids_repetitions_is_told_not_to(parameter: str, jumping_time: Any) -> None:
    backend = Penalising(ScriptedBackend(obedient), parameter)
    measured = found(backend, jumping_time)
    assert measured.capabilities == ALL
    assert measured.dialect.no_penalty == parameter
    request = Request(messages=(Message("user", "a"),))
    assert body_of(request, model="m", dialect=measured.dialect)[parameter] == 1
    (likeliest,) = (finding for finding in measured.findings if finding.name == "likeliest")
    assert likeliest.is_given and parameter in likeliest.evidence
    refusing = found(RestrictedBackend(backend, refuses=[parameter]), jumping_time)
    assert refusing.dialect.no_penalty == ""
    (likeliest,) = (finding for finding in refusing.findings if finding.name == "likeliest")
    assert not likeliest.is_given and "not taken at 1 of 2 tokens" in likeliest.evidence


def test_nothing_odd_is_sent_where_temperature_0_takes_the_likeliest(jumping_time: Any) -> None:
    measured = found(ScriptedBackend(obedient), jumping_time)
    assert measured.dialect.no_penalty == ""
    (likeliest,) = (finding for finding in measured.findings if finding.name == "likeliest")
    assert likeliest.is_given
    silent = found(RestrictedBackend(ScriptedBackend(obedient), ignores=["logprobs"]), jumping_time)
    (likeliest,) = (finding for finding in silent.findings if finding.name == "likeliest")
    assert not likeliest.is_given and silent.dialect.no_penalty == ""


def test_a_server_that_never_answers_is_given_up_after_two_waits(jumping_time: Any) -> None:
    """Each wait takes the whole time limit, two minutes by default."""
    calls = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        raise httpx2.ReadTimeout("silence")

    with pytest.raises(EndpointError, match="does not answer them"):
        mocked(handler, jumping_time)
    assert len(calls) == 2


def test_counts_below_zero_give_nothing_back(jumping_time: Any) -> None:
    usage = {"prompt_tokens": -500, "completion_tokens": 900}

    def handler(_: httpx2.Request) -> httpx2.Response:
        choice = {"finish_reason": "stop", "message": {"content": "ok"}, "text": "ok"}
        return httpx2.Response(200, json={"choices": [choice], "usage": usage})

    async def play() -> Usage:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        client = OpenAIClient("http://h/v1", clock=jumping_time.clock, http_client=http)
        _, used = await measure(client, "m", clock=jumping_time.clock)
        await client.close()
        return used

    assert asyncio.run(play()) == Usage(0, 0)
