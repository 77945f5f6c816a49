"""EvaluationReport -> what failed, each cause said once, however many results it took with it."""

from autointerp.records import EvaluationReport, MetricResult
from autointerp.reporting import numbers

__all__ = ["failure_lines"]

_NAMED = 3
"""Results of one cause that are named; the results' table has all."""


def failure_lines(report: EvaluationReport) -> list[str]:
    """One line for each checkpoint and cause: which results it took, and why; empty when nothing failed."""
    causes: dict[tuple[str, str], list[MetricResult]] = {}
    for failure in report.failures:
        reason = " ".join(getattr(failure.outcome, "reason", "").split())
        causes.setdefault((failure.checkpoint, reason), []).append(failure)
    return [
        f"{checkpoint}: {reason} — {_results(failures)}" for (checkpoint, reason), failures in causes.items()
    ]


def _results(failures: list[MetricResult]) -> str:
    named = ", ".join(
        f"{failure.metric} ({numbers.slice_words(failure.slice)})" for failure in failures[:_NAMED]
    )
    more = len(failures) - _NAMED
    return f"{named} and {more} more results" if more > 0 else named
