"""What sending a request once can end in: an answer with its bill, or a failure that may heal."""

from dataclasses import dataclass
from typing import Literal

from autointerp.explanation_records import Refusal
from autointerp.llm.requests import Reply, Usage

__all__ = ["NOTHING_USED", "Failure", "FailureKind", "Outcome"]

NOTHING_USED = Usage(0, 0)

FailureKind = Literal[
    "rate_limited",  # 429
    "overloaded",  # 503, 529
    "server_error",  # another 5xx, 408, 409
    "timeout",
    "connection",  # refused, or not made in time: nothing was sent
    "dropped",  # reset, or ended before the reply did
    "damaged_reply",  # a 200 whose body is no such reply
]


@dataclass(frozen=True)
class Outcome:
    """An answer, usable or refused, and what it cost."""

    answer: Reply | Refusal
    usage: Usage = NOTHING_USED
    model: str = ""
    """As the server names what answered."""
    fingerprint: str = ""
    attempts: int = 1
    """How often the request was sent."""

    @property
    def is_final(self) -> bool:
        """Whether asking again would change nothing; a failed request is asked again by the next sitting."""
        return not (isinstance(self.answer, Refusal) and self.answer.cause == "failed_request")


@dataclass(frozen=True)
class Failure:
    """No answer this time; sending the same again may bring one."""

    kind: FailureKind
    detail: str
    """One line without secrets."""
    retry_after_seconds: float | None = None
    """What the server asked to wait."""

    @property
    def is_overload(self) -> bool:
        """Whether fewer requests at once would help."""
        return self.kind in ("rate_limited", "overloaded", "timeout")

    @property
    def may_be_paid(self) -> bool:
        """Whether the provider may have worked, and bill it, though nothing usable came."""
        return self.kind in ("timeout", "dropped", "damaged_reply")
