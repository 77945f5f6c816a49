"""An outcome -> flat fields, under the names that every file of a report has for them."""

from typing import Any

from autointerp.records import Measured, Outcome

__all__ = ["outcome_fields"]


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """`status`, and either the number with its interval and n, or the reason why there is none."""
    if not isinstance(outcome, Measured):
        return {"status": outcome.status, "reason": outcome.reason}
    estimate = outcome.estimate
    return {
        "status": "measured",
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "ci_level": estimate.level,
        "ci_method": estimate.method,
        "n": estimate.n,
        "sampled": estimate.sampled,
    }
