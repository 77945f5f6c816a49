"""What came in at the tiny server: how often each body was asked, and how often it was answered."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CallLog", "CallRecord"]


@dataclass(frozen=True)
class CallRecord:
    """One finished call."""

    key: str
    """See `exchange.body_key`."""
    path: str
    status: int
    """Of HTTP; 0 where the connection was dropped before or in the answer."""
    fault: str


class CallLog:
    """Counts calls; for use from the server's thread and the test's."""

    def __init__(self) -> None:
        """Nothing was asked."""
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._records: list[CallRecord] = []
        self._in_flight = self._most_at_once = 0

    def begin(self, key: str) -> tuple[int, int, int]:
        """Note a call; returns how many there were before, how many of the same body, how many are open."""
        with self._lock:
            number, earlier = self._asked.total(), self._asked[key]
            self._asked[key] += 1
            self._in_flight += 1
            self._most_at_once = max(self._most_at_once, self._in_flight)
            return number, earlier, self._in_flight

    def end(self, record: CallRecord) -> None:
        """Note how it ended."""
        with self._lock:
            self._in_flight -= 1
            self._records.append(record)
            if record.status == 200:
                self._answered[record.key] += 1

    @property
    def asked(self) -> Mapping[str, int]:
        """How often each body came in."""
        with self._lock:
            return Counter(self._asked)

    @property
    def answered(self) -> Mapping[str, int]:
        """How often each body was answered with status 200, wholly: what a provider would charge."""
        with self._lock:
            return Counter(self._answered)

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """The calls that ended, in the order in which they ended."""
        with self._lock:
            return tuple(self._records)

    @property
    def most_at_once(self) -> int:
        """The largest number of calls that were open at the same time."""
        return self._most_at_once

    def summary(self) -> dict[str, Any]:
        """Counts for a person: calls, answers, statuses, faults, the most at once."""
        records = self.records
        return {
            "asked": sum(self.asked.values()),
            "answered": sum(self.answered.values()),
            "distinct": len(self.asked),
            "by_status": dict(sorted(Counter(record.status for record in records).items())),
            "by_fault": dict(sorted(Counter(record.fault for record in records if record.fault).items())),
            "most_at_once": self.most_at_once,
        }
