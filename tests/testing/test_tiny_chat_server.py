"""The tiny server over real HTTP: what it says, what it counts, and all the ways in which it fails."""

import asyncio
import json
import math
import subprocess
import sys

import httpx2
import openai
import pytest
import torch
from openai import OpenAI

from autointerp.testing.tiny_chat_server.exchange import Answer, body_key
from autointerp.testing.tiny_chat_server.faults import (
    FATAL_FAULTS,
    FAULTS,
    INJECTION,
    LASTING_FAULTS,
    ODD_UNICODE,
    PASSING_FAULTS,
    fault,
    rate_limited,
)
from autointerp.testing.tiny_chat_server.faulty_backend import FaultyBackend
from autointerp.testing.tiny_chat_server.restricted_backend import RestrictedBackend
from autointerp.testing.tiny_chat_server.scripted_backend import ScriptedBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

ASKED = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def post(server, body=ASKED, *, path="/chat/completions", key="sk-test", client=httpx2):
    headers = {"authorization": f"Bearer {key}"}
    return client.post(server.base_url + path, json=body, headers=headers, timeout=10)


def ask(server, **more):
    with OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as client:
        return client.chat.completions.create(**{**ASKED, "temperature": 0, **more})


# ---- scripts -----------------------------------------------------------------------------------------


def test_a_script_is_played_and_its_last_step_stays():
    with tiny_chat_server(
        ScriptedBackend([fault("server_error"), "one", lambda call: call.prompt])
    ) as server:
        assert [post(server).status_code for _ in range(2)] == [500, 200]
        for _ in range(2):
            assert ask(server).choices[0].message.content == "hello"
        assert server.log.summary()["by_status"] == {200: 3, 500: 1}


def test_words_have_log_probabilities_where_they_are_asked_for():
    with tiny_chat_server(ScriptedBackend(["two words"])) as server:
        assert ask(server).choices[0].logprobs is None
        content = ask(server, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        assert [entry.token for entry in content] == ["two", " words"]
        for entry in content:
            assert [entry.token, 3] == [entry.top_logprobs[0].token, len(entry.top_logprobs)]
            assert sum(math.exp(top.logprob) for top in entry.top_logprobs) < 1


def test_a_connection_is_kept_and_errors_do_not_end_it():
    with (
        tiny_chat_server(ScriptedBackend([fault("overloaded"), "a", "b"])) as server,
        httpx2.Client() as client,
    ):
        answers = [post(server, client=client) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 200, 200]
        assert {answer.headers["connection"] for answer in answers} == {"keep-alive"}


def test_equal_calls_are_counted_as_equal_and_only_whole_answers_as_answers():
    with tiny_chat_server(ScriptedBackend([fault("dropped_mid_body"), fault("rate_limited"), "a"])) as server:
        for body in (ASKED, dict(reversed(ASKED.items())), ASKED | {"max_tokens": 6}, ASKED):
            try:
                post(server, body)
            except httpx2.TransportError:
                continue
        key, other = (body_key("/v1/chat/completions", body) for body in (ASKED, ASKED | {"max_tokens": 6}))
        assert server.log.asked == {key: 3, other: 1}
        assert server.log.answered == {key: 1, other: 1}
        assert [record.status for record in server.log.records] == [0, 429, 200, 200]


# ---- faults ------------------------------------------------------------------------------------------

STATUSES = {
    "rate_limited": 429,
    "rate_limited_milliseconds": 429,
    "rate_limited_date": 429,
    "request_timeout": 408,
    "conflict": 409,
    "server_error": 500,
    "bad_gateway": 502,
    "overloaded": 503,
    "gateway_timeout": 504,
    "insufficient_quota": 429,
    "wrong_key": 401,
    "key_echoed": 401,
    "forbidden": 403,
    "no_such_model": 404,
    "bad_request": 400,
    "context_too_long": 400,
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_is_what_it_is_called(name):
    with tiny_chat_server(ScriptedBackend([fault(name)])) as server:
        if name.startswith("dropped"):
            with pytest.raises(httpx2.RemoteProtocolError):
                post(server)
        else:
            assert post(server).status_code == STATUSES.get(name, 200)
        (record,) = server.log.records
        assert record.fault == name
        assert record.status == (0 if name.startswith("dropped") else STATUSES.get(name, 200))


def choice_of(name, **more):
    with tiny_chat_server(ScriptedBackend([fault(name)])) as server:
        return post(server, ASKED | more).json()["choices"][0]


def test_replies_that_cannot_be_used_say_why():
    assert choice_of("refused")["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": "I'm sorry, I can't help with that.",
    }
    assert choice_of("content_filter")["finish_reason"] == "content_filter"
    assert choice_of("cut_off")["finish_reason"] == "length"
    assert choice_of("empty")["message"]["content"] == ""
    assert choice_of("injection")["message"]["content"] == INJECTION
    assert choice_of("unicode")["message"]["content"] == ODD_UNICODE
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice_of("half_json_text")["message"]["content"])


def test_log_probabilities_are_missing_or_short():
    asked = {"logprobs": True, "top_logprobs": 2}
    assert choice_of("missing_logprobs", **asked)["logprobs"] is None
    assert choice_of("uneven_logprobs", **asked)["logprobs"]["content"] == []


def test_what_is_no_json_is_none():
    for name in ("half_json", "web_page"):
        with tiny_chat_server(ScriptedBackend([fault(name)])) as server, pytest.raises(json.JSONDecodeError):
            post(server).json()


def test_an_error_may_repeat_the_key_that_was_sent():
    script, expected = [fault("key_echoed")], pytest.raises(openai.AuthenticationError, match="sk-test")
    with tiny_chat_server(ScriptedBackend(script)) as server, expected:
        ask(server)


@pytest.mark.parametrize(
    ("form", "header"),
    [("seconds", "retry-after"), ("date", "retry-after"), ("milliseconds", "retry-after-ms"), ("none", None)],
)
def test_retry_after_has_three_forms(form, header):
    with tiny_chat_server(
        ScriptedBackend([lambda call: rate_limited(seconds=2, form=form)(call, Answer({}))])
    ) as server:
        found = post(server).headers
        assert [name for name in found if name.startswith("retry-after")] == ([header] if header else [])
        assert header != "retry-after" or ("GMT" in found[header]) == (form == "date")


def test_a_slow_answer_is_later_than_a_short_timeout():
    slow = tiny_chat_server(ScriptedBackend(["a"]), latency_seconds=0.5)
    with slow as server, pytest.raises(httpx2.ReadTimeout):
        httpx2.post(server.base_url + "/chat/completions", json=ASKED, timeout=0.1)


# ---- the mix of faults -------------------------------------------------------------------------------


def mix(**options):
    return FaultyBackend(ScriptedBackend(["a"]), **options)


def test_the_mix_has_the_share_and_the_kinds_that_were_asked_for():
    faulty = mix(faults=0.3, seed=1)
    found = [faulty.fault_of(f"body {index}", 0) for index in range(4000)]
    share = sum(name is not None for name in found) / len(found)
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    assert set(found) - {None} == {*PASSING_FAULTS, *LASTING_FAULTS}
    assert [mix(seed=2).fault_of(f"body {index}", 0) for index in range(4000)] != found


def test_lasting_faults_stay_and_passing_ones_end():
    faulty = mix(faults=0.9, seed=3, most_in_a_row=2)
    for index in range(300):
        found = [faulty.fault_of(f"body {index}", earlier) for earlier in range(6)]
        if found[-1] is None:
            assert set(found[:2]) <= {None, *PASSING_FAULTS} and set(found[2:]) == {None}
        else:
            assert set(found) == {found[-1]} <= set(LASTING_FAULTS)


def test_fatal_faults_are_in_no_mix_unless_named():
    assert not {*PASSING_FAULTS, *LASTING_FAULTS} & set(FATAL_FAULTS)
    with tiny_chat_server(mix(faults=1.0, kinds=["wrong_key"])) as server:
        assert {post(server).status_code for _ in range(3)} == {401}


# ---- servers that cannot do all ----------------------------------------------------------------------


def test_restrictions():
    backend = RestrictedBackend(
        ScriptedBackend(["two words"]),
        ignores=["logprobs"],
        refuses=["max_tokens"],
        has_not=["/v1/completions"],
        most_prompt_characters=20,
    )
    with tiny_chat_server(backend) as server:
        assert post(server).json()["error"]["code"] == "unsupported_parameter"
        body = {"messages": ASKED["messages"], "max_completion_tokens": 5, "logprobs": True}
        assert post(server, body).json()["choices"][0]["logprobs"] is None
        assert post(server, {"prompt": "a"}, path="/completions").status_code == 404
        long = {"messages": [{"role": "user", "content": "x" * 21}]}
        assert post(server, long).json()["error"]["code"] == "context_length_exceeded"


def test_more_calls_than_it_takes_at_once_are_turned_away():
    async def many(server):
        async with httpx2.AsyncClient() as client:
            url = server.base_url + "/chat/completions"
            return await asyncio.gather(*[client.post(url, json=ASKED) for _ in range(12)])

    with tiny_chat_server(
        RestrictedBackend(ScriptedBackend([lambda call: slow_answer()]), capacity=4)
    ) as server:
        statuses = [answer.status_code for answer in asyncio.run(many(server))]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 4
        assert server.log.most_at_once > 4


def slow_answer():
    return Answer({"choices": []}, delay_seconds=0.2)


def test_a_wrong_key_a_wrong_address_and_a_broken_backend_are_answers():
    def broken(call):
        raise KeyError("nothing")

    with tiny_chat_server(ScriptedBackend(broken), api_key="sk-right") as server:
        assert post(server, key="sk-wrong").status_code == 401
        assert post(server, key="sk-right").json()["error"]["message"] == "KeyError: 'nothing'"
        assert post(server, path="/nowhere", key="sk-right").status_code == 404
        assert post(server, ["no object"], key="sk-right").status_code == 400


# ---- the model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_server():
    from autointerp.testing.tiny_chat_server.model_backend import ModelBackend

    with tiny_chat_server(ModelBackend(reply_tokens=6)) as server:
        yield server


def complete(server, **more):
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        return client.completions.create(**{"model": "any", "temperature": 0, "max_tokens": 0, **more})


def true_logprobs(text):
    """By one plain pass of the same model."""
    from autointerp.testing.tiny_subject import tiny_subject

    subject = tiny_subject("llama", max_position_embeddings=8192)
    ids = subject.tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        logits = subject.model(torch.tensor([ids])).logits[0].double()
    return subject, ids, torch.log_softmax(logits, -1)


def test_echoed_prompts_have_the_models_log_probabilities(model_server):
    text = "the other thing — 🜁 said"
    found = complete(model_server, prompt=text, echo=True, logprobs=3).choices[0]
    subject, ids, expected = true_logprobs(text)
    assert found.text == text
    assert found.logprobs.tokens == [subject.tokenizer.decode([index]) for index in ids]
    assert found.logprobs.token_logprobs[0] is None and found.logprobs.top_logprobs[0] is None
    own = [float(expected[place, index]) for place, index in enumerate(ids[1:])]
    assert found.logprobs.token_logprobs[1:] == pytest.approx(own, abs=1e-6)
    for place, top in enumerate(found.logprobs.top_logprobs[1:]):
        assert max(top.values()) == pytest.approx(float(expected[place].max()), abs=1e-6)
    for token, offset in zip(found.logprobs.tokens, found.logprobs.text_offset, strict=True):
        assert "\ufffd" in token or text[offset:].startswith(token)


def test_replies_have_the_models_log_probabilities(model_server):
    chosen = complete(model_server, prompt="the other", max_tokens=4, logprobs=1).choices[0]
    subject, ids, _ = true_logprobs("the other")
    for place, logprob in enumerate(chosen.logprobs.token_logprobs):
        with torch.no_grad():
            row = torch.log_softmax(subject.model(torch.tensor([ids])).logits[0, -1].double(), -1)
        assert float(row.max()) == pytest.approx(logprob, abs=1e-5)
        assert subject.tokenizer.decode([int(row.argmax())]) == chosen.logprobs.tokens[place]
        ids = [*ids, int(row.argmax())]


def test_replies_are_the_same_for_the_same_seed_and_differ_by_it(model_server):
    def text(**more):
        return [
            choice.message.content
            for choice in ask(model_server, temperature=2, max_tokens=6, **more).choices
        ]

    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text() == text()
    assert len(set(text(seed=1, n=3))) > 1


def test_a_stop_ends_a_reply_and_is_not_in_it(model_server):
    whole = complete(
        model_server, prompt="the other", max_tokens=6, temperature=1, seed=4, logprobs=0
    ).choices[0]
    assert whole.finish_reason == "stop"
    stop = whole.text[2]
    cut = complete(
        model_server, prompt="the other", max_tokens=6, temperature=1, seed=4, logprobs=0, stop=stop
    )
    assert cut.choices[0].text == whole.text[: whole.text.index(stop)]
    assert len(cut.choices[0].logprobs.tokens) < len(whole.logprobs.tokens)


def test_replies_end_at_the_limit_and_prompts_may_not_be_longer_than_the_context(model_server):
    assert ask(model_server, max_tokens=2).choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(model_server, max_tokens=8190)
    assert ask(model_server, n=2).usage.completion_tokens == 10


# ---- batches -----------------------------------------------------------------------------------------


def test_batches_are_answered_after_some_looks_and_counted(tmp_path):
    def said(call):
        return call.prompt if call.prompt != "bad" else fault("context_too_long")(call)

    path = tmp_path / "asked.jsonl"
    asked = [ASKED | {"messages": [{"role": "user", "content": text}]} for text in ("one", "bad", "two é")]
    lines = [
        {"custom_id": f"item-{place}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for place, body in enumerate(asked)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with tiny_chat_server(ScriptedBackend(said), batch_looks=2, api_key="sk-test") as server:
        with OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as client:
            sent = client.files.create(file=path, purpose="batch")
            assert (sent.filename, sent.bytes) == ("asked.jsonl", path.stat().st_size)
            batch = client.batches.create(
                input_file_id=sent.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"a": "b"},
            )
            seen = [client.batches.retrieve(batch.id) for _ in range(3)]
            assert [each.status for each in seen] == ["in_progress", "in_progress", "completed"]
            done = seen[-1]
            assert (done.request_counts.completed, done.request_counts.failed) == (2, 1)
            good = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
            bad = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
            assert {line["custom_id"] for line in good} == {"item-0", "item-2"}
            assert good[0]["response"]["body"]["choices"][0]["message"]["content"] == "two é"
            assert bad[0]["response"]["status_code"] == 400
            assert client.batches.list().data[0].metadata == {"a": "b"}
            with pytest.raises(openai.NotFoundError):
                client.batches.retrieve("batch_of_somebody")
        keys = {body_key("/v1/chat/completions", body) for body in asked}
        assert set(server.log.asked) == keys and sum(server.log.answered.values()) == 2


# ---- by hand -----------------------------------------------------------------------------------------


def test_it_can_be_started_by_hand():
    command = [
        sys.executable,
        "-m",
        "autointerp.testing.tiny_chat_server",
        "--backend",
        "scripted",
        "--reply",
        "hi",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            answer = httpx2.post(f"{address}/chat/completions", json=ASKED).json()
            models = httpx2.get(f"{address}/models").json()
        finally:
            process.terminate()
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert models["data"][0]["id"] == "scripted"


def test_a_port_that_is_taken_is_one_line():
    with tiny_chat_server(ScriptedBackend(["a"])) as server:
        command = [sys.executable, "-m", "autointerp.testing.tiny_chat_server", "--backend", "oracle"]
        found = subprocess.run(
            [*command, "--port", str(server.port)], capture_output=True, text=True, check=False
        )
    assert found.returncode == 2
    assert found.stderr.startswith(f"cannot listen on port {server.port}: ") and found.stderr.count("\n") == 1
