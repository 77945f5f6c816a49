"""Whatever JSON a server answers: an answer, a refusal with its cause, or a failure; nothing made up."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.explanation_records import Refusal
from autointerp.llm.answer_json import outcome_from_json, outcome_to_json
from autointerp.llm.outcomes import Failure, Outcome
from autointerp.llm.reply_reading import read_reply, token_logprobs
from autointerp.llm.requests import Message, Reply, Request, TokenLogprob, Usage

ASK = Request(messages=(Message("user", "how are you"),))


def reply(message: Any = None, **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "fine"} if message is None else message
    first = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    return {"model": "m", "system_fingerprint": "f", "choices": [first]}


def read(content: Any, request: Request = ASK) -> Outcome | Failure:
    return read_reply(json.dumps(content).encode(), request)


def answer(content: Any, request: Request = ASK) -> Reply | Refusal:
    outcome = read(content, request)
    assert isinstance(outcome, Outcome)
    return outcome.answer


def test_a_plain_reply_with_its_bill() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    outcome = read(reply() | {"usage": usage})
    assert isinstance(outcome, Outcome)
    assert outcome.answer == Reply("fine", "m", "f", Usage(12, 3, 8))
    assert outcome.usage == Usage(12, 3, 8)


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": True, "completion_tokens": 2},
     {"prompt_tokens": 10**30, "completion_tokens": 2}, {"prompt_tokens": "12", "completion_tokens": 2}, [3]],
)  # fmt: skip
def test_counts_that_cannot_be_are_estimated_and_said_to_be(usage: Any) -> None:
    outcome = read(reply() | {"usage": usage})
    assert isinstance(outcome, Outcome)
    assert outcome.usage.is_estimated
    assert outcome.usage.prompt_tokens == math.ceil(len("how are you") / 3.5)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (reply(finish_reason="content_filter"), "content_filter"),
        (reply({"content": None, "refusal": "I will not."}), "content_filter"),
        (reply(finish_reason="length"), "cut_off"),
        (reply({"content": None}), "empty"),
        (reply({"content": "  \n"}), "empty"),
        (reply({"content": []}), "empty"),
    ],
)
def test_unusable_replies_are_refusals_that_were_paid(content: Any, cause: str) -> None:
    found = read(content | {"usage": {"prompt_tokens": 5, "completion_tokens": 7}})
    assert isinstance(found, Outcome)
    assert isinstance(found.answer, Refusal)
    assert found.answer.cause == cause
    assert found.usage == Usage(5, 7)
    assert found.is_final


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "fi"}, {"type": "image"}, {"type": "text", "text": "ne"}, "x", None]
    found = answer(reply({"content": parts}))
    assert isinstance(found, Reply)
    assert found.text == "fine"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [3]}', b'{"choices": {"0": 1}}',
     b'{"choices": [{"message": "x"}]}', b'{"choices": [{"message": {"content": 5}}]}', b"\xff\xfe",
     b"[" * 100_000, b"<html></html>", b'{"choices": [{"message": {"content": "abc'],
)  # fmt: skip
def test_damaged_bodies_are_failures_that_may_heal(body: bytes) -> None:
    found = read_reply(body, ASK)
    assert isinstance(found, Failure)
    assert found.kind == "damaged_reply"
    assert found.may_be_paid


def test_a_cut_is_no_fault_where_only_the_beginning_is_read() -> None:
    content = reply(finish_reason="length")
    for request in (
        Request(messages=ASK.messages, max_tokens=256, may_cut=True),
        Request(messages=ASK.messages, max_tokens=1, top_logprobs=5),
    ):
        found = answer(
            content | {"choices": [content["choices"][0] | {"logprobs": chat_logprobs()}]}, request
        )
        assert isinstance(found, Reply)
        assert found.finish_reason == "length"
    longer = Request(messages=ASK.messages, max_tokens=2, top_logprobs=5)
    found = answer(content | {"choices": [content["choices"][0] | {"logprobs": chat_logprobs()}]}, longer)
    assert isinstance(found, Refusal)


def chat_logprobs(token: str = "fine", logprob: Any = -0.5, top: Any = ()) -> dict[str, Any]:
    tops = [{"token": text, "logprob": number} for text, number in top]
    return {"content": [{"token": token, "logprob": logprob, "top_logprobs": tops}]}


WANTS = Request(messages=ASK.messages, top_logprobs=5)


def test_log_probabilities_with_alternatives_likeliest_first() -> None:
    top = [("bad", -2.0), ("fine", -0.5), ("bad", -2.0), ("�", -3.0), ("�", -4.0)]
    found = answer(reply(logprobs=chat_logprobs(top=top)), WANTS)
    assert isinstance(found, Reply)
    expected = (("fine", -0.5), ("bad", -2.0), ("�", -3.0), ("�", -4.0))
    assert found.logprobs == (TokenLogprob("fine", -0.5, expected),)


def test_alternatives_that_are_no_numbers_are_left_out() -> None:
    top = [
        ("a", float("nan")),
        ("b", float("-inf")),
        ("c", None),
        ("d", 3.0),
        ("e", True),
        ("f", -1),
        ("g", 10**400),
    ]
    found = answer(reply(logprobs=chat_logprobs(top=top)), WANTS)
    assert isinstance(found, Reply)
    assert found.logprobs is not None
    assert found.logprobs[0].top == (("f", -1.0),)


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, [1], "x", chat_logprobs(logprob=None),
     chat_logprobs(logprob=float("nan")), chat_logprobs(logprob=0.5), chat_logprobs(logprob="-1")],
)  # fmt: skip
def test_log_probabilities_that_are_not_whole_are_missing(logprobs: Any) -> None:
    found = answer(reply(logprobs=logprobs), WANTS)
    assert isinstance(found, Refusal)
    assert found.cause == "missing_logprobs"


def test_a_blank_token_with_its_log_probability_is_an_answer() -> None:
    content = reply({"content": "\n"}, logprobs=chat_logprobs("\n"))
    assert isinstance(answer(content, WANTS), Reply)


def test_echoed_prompt_with_positions() -> None:
    request = Request(prompt="a b", max_tokens=0, echo=True, top_logprobs=2)
    logprobs = {
        "tokens": ["a", " b"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {" b": -1.5, " c": -0.25}],
        "text_offset": [0, 1],
    }
    choice = {"text": "a b", "finish_reason": "length", "logprobs": logprobs}
    found = answer({"choices": [choice], "model": None}, request)
    assert isinstance(found, Reply)
    assert found.logprobs == (
        TokenLogprob("a", None, (), 0),
        TokenLogprob(" b", -1.5, ((" c", -0.25), (" b", -1.5)), 1),
    )
    assert found.model == ""


@pytest.mark.parametrize(
    "change",
    [{"token_logprobs": [None]}, {"token_logprobs": [None, None]}, {"tokens": []}, {"tokens": ["a", 3]}],
)
def test_uneven_columns_are_missing(change: dict[str, Any]) -> None:
    columns = {"tokens": ["a", " b"], "token_logprobs": [None, -1.5]} | change
    assert token_logprobs(columns, is_chat=False) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NUMBER = st.floats() | st.integers() | st.none() | st.booleans() | st.just(10**400)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "token": st.text(max_size=4) | JSON,
        "logprob": NUMBER,
        "top_logprobs": st.lists(st.fixed_dictionaries({"token": st.sampled_from("aab"), "logprob": NUMBER}))
        | JSON,
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "message": st.fixed_dictionaries({}, optional={"content": st.text() | JSON, "refusal": JSON}) | JSON,
        "finish_reason": st.sampled_from(["stop", "length", "content_filter"]) | JSON,
        "logprobs": st.fixed_dictionaries({"content": st.lists(ENTRY, max_size=3) | JSON}) | JSON,
    },
)
BODY = (
    st.fixed_dictionaries(
        {"choices": st.lists(CHOICE, max_size=2) | JSON}, optional={"usage": JSON, "model": JSON}
    )
    | JSON
)


@given(content=BODY, wants=st.booleans())
def test_any_json_is_read_without_inventing_numbers(content: Any, wants: bool) -> None:
    request = WANTS if wants else ASK
    body = json.dumps(content).encode()
    found = read_reply(body, request)
    if isinstance(found, Failure):
        return
    assert found.usage.prompt_tokens >= 0 and found.usage.completion_tokens >= 0
    assert 0 <= found.usage.cached_tokens <= found.usage.prompt_tokens
    if isinstance(found.answer, Reply):
        assert found.answer.text.strip() or found.answer.logprobs
        for token in found.answer.logprobs or ():
            numbers = [token.logprob, *(number for _, number in token.top)]
            assert all(number is not None and math.isfinite(number) and number <= 0 for number in numbers)
            assert [number for _, number in token.top] == sorted((n for _, n in token.top), reverse=True)
    again = outcome_from_json(json.loads(json.dumps(outcome_to_json(found))))
    assert again == found
