"""What a hostile server does with bytes: redirects, bodies without end, connections that never come."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm import http_client
from autointerp.llm.http_client import http_client_for
from autointerp.llm.open_models import open_models
from autointerp.llm.requests import Reply
from autointerp.testing.tiny_chat_server.exchange import Answer, Call
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server


def reply(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return {"model": "m", "choices": [choice], "usage": usage} | more


def backend(answer: Answer) -> ScriptedBackend:
    """`ok` to what measures the endpoint, the answer to all else."""

    def say(call: Call) -> Any:
        return answer if "question" in call.prompt else "ok"

    return ScriptedBackend(say)


def asked(section: Any, replies: Path, request: Any, clock: Any) -> tuple[Any, Any]:
    async def run() -> Any:
        async with open_models(section, replies, roles=["judge"], clock=clock) as models:
            answer = await models["judge"].ask(request)
            return answer, models.cost_report()

    return asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_no_answer_and_nothing_goes_where_it_leads(
    status: int, section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    elsewhere = ScriptedBackend(lambda call: "elsewhere")
    with tiny_chat_server(elsewhere) as other:
        away = Answer(b"", status=status, headers={"location": f"{other.base_url}/chat/completions"})
        with (
            tiny_chat_server(backend(away)) as server,
            pytest.raises(EndpointError, match=f"HTTP {status}"),
        ):
            asked(section(server.base_url), replies, chat("question"), jumping_time.clock)
        assert not other.log.records


def test_a_packed_reply_is_unpacked(section: Any, chat: Any, replies: Path, jumping_time: Any) -> None:
    packed = Answer(gzip.compress(json.dumps(reply("words")).encode()), headers={"content-encoding": "gzip"})
    with tiny_chat_server(backend(packed)) as server:
        answer, _ = asked(section(server.base_url), replies, chat("question"), jumping_time.clock)
    assert isinstance(answer, Reply)
    assert answer.text == "words"


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_body_without_end_is_given_up(
    is_packed: bool, section: Any, chat: Any, replies: Path, jumping_time: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(http_client, "MOST_BYTES", 100_000)
    content = json.dumps(reply("x" * 200_000)).encode()
    answer = Answer(gzip.compress(content), headers={"content-encoding": "gzip"})
    with tiny_chat_server(backend(answer if is_packed else Answer(content))) as server:
        found, cost = asked(section(server.base_url), replies, chat("question"), jumping_time.clock)
    assert isinstance(found, Refusal)
    assert found.cause == "failed_request"
    assert "bytes" in found.detail
    assert [row["kind"] for row in cost["without_answer"]] == ["damaged_reply", "measuring"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "nonsense://user:hunter2@h"), ("SSL_CERT_FILE", "/no/such/hunter2")],
)
def test_what_the_environment_spoils_is_one_line_without_its_text(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EndpointError, match="proxy or a certificate") as caught:
        http_client_for("host.invalid")
    assert "hunter2" not in str(caught.value)
    assert not http_client_for("127.0.0.1").is_closed


def test_a_key_that_the_reply_spells_with_backslashes_is_kept_nowhere(
    section: Any, chat: Any, replies: Path, jumping_time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-test/5ecret+012=="
    monkeypatch.setenv("AUTOINTERP_TEST_KEY", key)
    said = json.dumps(reply(f"the key is {key}, indeed"))
    spelt = said.replace("/", "\\/").replace("=", "\\u003D")
    assert json.loads(spelt) == json.loads(said)
    with tiny_chat_server(backend(Answer(spelt.encode()))) as server:
        answer, _ = asked(section(server.base_url), replies, chat("question"), jumping_time.clock)
    assert isinstance(answer, Reply)
    assert answer.text == "the key is [secret], indeed"


def test_names_of_a_server_are_printable_and_can_be_kept(
    section: Any, chat: Any, replies: Path, jumping_time: Any
) -> None:
    odd = reply("fine", model="a\ud800\x1b[31m\nb", system_fingerprint="\udfff")
    with tiny_chat_server(backend(Answer(json.dumps(odd).encode()))) as server:
        answer, _ = asked(section(server.base_url), replies, chat("question"), jumping_time.clock)
        again, _ = asked(
            section(server.base_url, offline=True), replies, chat("question"), jumping_time.clock
        )
    assert isinstance(answer, Reply)
    assert answer == again
    assert answer.model.isprintable()
    assert answer.fingerprint == "\N{REPLACEMENT CHARACTER}"


def test_a_proxy_of_the_environment_is_used_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def ask() -> None:
        async with http_client_for("elsewhere.invalid") as client:
            await client.post("http://elsewhere.invalid/v1/chat/completions", json={"model": "m"})

    with tiny_chat_server(backend(Answer(b"{}"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/v1"))
        asyncio.run(ask())
        assert len(proxy.log.records) == 1
