"""Which errors heal, which are one request's own, which end the run."""

import json
from email.utils import formatdate

import pytest

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.http_errors import HttpError, judged, parse_retry_after
from autointerp.llm.outcomes import Failure, Outcome
from autointerp.llm.secrecy import Secret

KEY = "sk-live-0123456789abcdef"


def error(status: int, message: str = "", code: str = "", *, key: str = KEY, **headers: str) -> HttpError:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return HttpError(status, body, headers, "http://h/v1", "THE_KEY", Secret(key))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(408, "timeout"), (409, "server_error"), (429, "rate_limited"), (500, "server_error"),
     (502, "server_error"), (503, "overloaded"), (504, "server_error"), (529, "overloaded")],
)  # fmt: skip
def test_what_heals(status: int, kind: str) -> None:
    found = judged(error(status, "later"), today=0)
    assert isinstance(found, Failure)
    assert found.kind == kind
    assert found.is_overload == (kind in ("timeout", "rate_limited", "overloaded"))


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (error(400, "", "context_length_exceeded"), "too_long"),
        (error(400, "This model's maximum context length is 4096 tokens."), "too_long"),
        (error(413, "huge"), "too_long"),
        (error(500, "Requested tokens (900) exceed context window of 512"), "too_long"),
        (error(400, "The response was filtered", "content_filter"), "content_filter"),
        (error(403, "Your input was flagged by moderation"), "content_filter"),
        (error(400, "Unsupported value: 'top_p' with this model.", "unsupported_value"), "failed_request"),
        (error(422, "not valid"), "failed_request"),
        (error(501, "not built"), "failed_request"),
    ],
)
def test_what_is_this_requests_own(found: HttpError, cause: str) -> None:
    outcome = judged(found, today=0)
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.answer, Refusal)
    assert outcome.answer.cause == cause
    assert outcome.is_final == (cause != "failed_request")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (error(401, "wrong"), "THE_KEY"),
        (error(401, "wrong", key=""), "is not set"),
        (error(403, "not for you"), "THE_KEY"),
        (error(402, "pay"), "no credit"),
        (error(429, "You exceeded your current quota", "insufficient_quota"), "no credit"),
        (error(404, "The model `x` does not exist"), "no such model"),
        (error(400, "no such model: x"), "no such model"),
        (error(405), "no such model or path"),
        (error(307), "no such model or path"),
    ],
)
def test_what_ends_the_run(found: HttpError, says: str) -> None:
    with pytest.raises(EndpointError, match=says):
        judged(found, today=0)


def test_a_rate_limit_that_talks_of_billing_heals() -> None:
    said = (
        "Rate limit reached. Add a payment method at https://platform.openai.com/account/billing to raise it."
    )
    assert isinstance(judged(error(429, said, "rate_limit_exceeded"), today=0), Failure)


def test_a_gateway_that_took_too_long_is_no_long_prompt() -> None:
    assert isinstance(judged(error(504, "the upstream request took too long"), today=0), Failure)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(1030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(990, usegmt=True)}, 0.0),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, today=1000.0) == seconds


@pytest.mark.parametrize(
    "body", [b"", b"<html>no</html>", b'{"error": "x"}', b'{"detail": [{"msg": "x"}]}', b"[1]", b"\xff" * 50]
)
def test_bodies_of_any_shape_make_one_line(body: bytes) -> None:
    found = HttpError(422, body, {}, "http://h/v1", "THE_KEY", Secret(""))
    assert found.message
    assert "\n" not in found.message


def test_the_key_is_not_told_when_the_server_quotes_it() -> None:
    with pytest.raises(EndpointError) as caught:
        judged(error(401, f"Incorrect API key provided: {KEY}\nBearer {KEY}"), today=0)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
