"""What is sent: only what the endpoint was measured to take."""

from typing import Any

import pytest

from autointerp.llm.requests import Message, Request
from autointerp.llm.wire_format import Dialect, body_of, path_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(text: str = "hello", **more: Any) -> Request:
    return Request(messages=(Message("system", "s"), Message("user", text)), **more)


def test_a_plain_chat() -> None:
    request = chat(temperature=0.5, seed=3, stop=("\n",), top_p=0.9, top_logprobs=5)
    assert path_of(request) == "/chat/completions"
    assert body_of(request, model="m", dialect=Dialect(top_logprobs=4)) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
        "max_tokens": 256,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 4,
    }


def test_what_the_endpoint_does_not_take_is_left_out() -> None:
    dialect = Dialect(max_tokens_name="max_completion_tokens", takes_temperature=False, takes_seed=False)
    body = body_of(chat(temperature=0.0, seed=3, top_p=0.5), model="m", dialect=dialect)
    assert set(body) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(("fewest", "asked", "sent"), [(0, 0, 0), (1, 0, 1), (0, 7, 7), (1, 7, 7)])
def test_an_echo_asks_for_as_few_tokens_as_the_endpoint_takes(fewest: int, asked: int, sent: int) -> None:
    request = Request(prompt="a b", max_tokens=asked, echo=True, top_logprobs=3)
    body = body_of(request, model="m", dialect=Dialect(echo_max_tokens=fewest))
    assert path_of(request) == "/completions"
    assert body == {
        "model": "m",
        "prompt": "a b",
        "max_tokens": sent,
        "echo": True,
        "logprobs": 3,
        "temperature": 0.0,
    }


def test_structure_is_asked_for_as_strictly_as_it_is_obeyed() -> None:
    def sent(structured: Any, text: str = "in JSON") -> Any:
        body = body_of(chat(text, json_schema=SCHEMA), model="m", dialect=Dialect(structured=structured))
        return body.get("response_format")

    strict = sent("json_schema")
    assert strict["type"] == "json_schema"
    assert strict["json_schema"]["schema"] == SCHEMA
    assert sent("json_object") == {"type": "json_object"}
    assert sent("json_object", "in words") is None
    assert sent("none") is None


def test_half_a_surrogate_pair_is_sent_as_a_question_mark() -> None:
    body = body_of(chat("a\ud800b é"), model="m", dialect=Dialect())
    assert body["messages"][1]["content"] == "a?b é"
    body["messages"][1]["content"].encode()


def test_openrouter_is_told_to_choose_a_provider_that_takes_everything() -> None:
    body = body_of(chat(), model="m", dialect=Dialect(provider_must_obey=True))
    assert body["provider"] == {"require_parameters": True}
