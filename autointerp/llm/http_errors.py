"""An HTTP error of an endpoint -> heals with time, is this request's own fault, or ends the run."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from autointerp.errors import EndpointError
from autointerp.explanation_records import Refusal
from autointerp.llm.outcomes import Failure, FailureKind, Outcome
from autointerp.llm.secrecy import Secret, one_line

__all__ = ["HttpError", "judged", "parse_retry_after"]

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum context|max_model_len"
    r"|(prompt|input|request|message)s?\b.{0,60}too (long|large|many tokens)",
    re.IGNORECASE | re.DOTALL,
)
_FILTERED = re.compile(
    r"content.?(filter|policy|management)|moderation|flagged|responsible.?ai|safety system", re.IGNORECASE
)
_NO_MONEY = re.compile(
    r"insufficient.{0,3}(quota|credit|balance|fund)|billing.{0,3}(hard.{0,3}limit|not.{0,3}active)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model.{0,120}(not.(be )?found|not exist|no access)|(no such|unknown|invalid) model",
    re.IGNORECASE | re.DOTALL,
)
_MAY_HEAL: dict[int, FailureKind] = {
    408: "timeout",
    409: "server_error",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}


@dataclass(frozen=True)
class HttpError:
    """What an endpoint answered instead of a reply."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    endpoint: str
    key_variable: str
    secret: Secret

    @property
    def message(self) -> str:
        """What the body says, on one line without secrets."""
        said = _said(self.body)
        return one_line(said, secret=self.secret) or "no text"

    @property
    def words(self) -> str:
        """All of the body that tells what kind of error it is."""
        return self.body[:20_000].decode("utf-8", "replace")

    def says_no_model(self) -> bool:
        """Whether it says that there is no such model."""
        return bool(_NO_MODEL.search(self.words))


def judged(error: HttpError, *, today: float) -> Outcome | Failure:
    """What follows from an error: a failure that may heal, or a refusal of this request.

    Raises:
        EndpointError: wrong or missing key, no credit, no such model or path.
    """
    status, words = error.status, error.words
    where, said = error.endpoint, f"HTTP {status}: {error.message}"
    is_refused_for_content = status in (400, 403) and _FILTERED.search(words)
    if status == 402 or (status == 429 and _NO_MONEY.search(words)):
        remedy = "add credit there; running the same again goes on from the answers that are kept"
        raise EndpointError(f"the account has no credit left ({said})", where=where, remedy=remedy)
    if status in (401, 403) and not is_refused_for_content:
        raise EndpointError(*_about_the_key(error, said), where=where, remedy=_key_remedy(error))
    if status in (404, 405) or 300 <= status < 400 or (status == 400 and error.says_no_model()):
        remedy = "check llm.base_url (it usually ends in /v1) and llm.model"
        raise EndpointError(f"no such model or path ({said})", where=where, remedy=remedy)
    if is_refused_for_content:
        return Outcome(Refusal("content_filter", said))
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(words)):
        return Outcome(Refusal("too_long", said))
    if status in _MAY_HEAL or (status >= 500 and status != 501):
        kind = _MAY_HEAL.get(status, "server_error")
        return Failure(kind, said, parse_retry_after(error.headers, today=today))
    return Outcome(Refusal("failed_request", said))


def parse_retry_after(headers: Mapping[str, str], *, today: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or a date); None if neither says."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(parsedate_to_datetime(value).timestamp() - today, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def _about_the_key(error: HttpError, said: str) -> tuple[str]:
    if not error.secret:
        return (f"wants a key, and the environment variable {error.key_variable} is not set ({said})",)
    return (f"refused the key of the environment variable {error.key_variable} ({said})",)


def _key_remedy(error: HttpError) -> str:
    return f"set {error.key_variable}, or name another variable in llm.api_key_env"


def _said(body: bytes) -> str:
    """The message within an error's body, in whichever of the usual places it is."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body[:2000].decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        inner = found.get(name) if isinstance(found, Mapping) else None
        if inner:
            found = inner
    return found if isinstance(found, str) else json.dumps(found)[:2000]
