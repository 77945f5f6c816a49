"""Cells that tables of differences have: the difference, its p-value, what was detectable, the finding."""

from autointerp.records import Comparison, Measured
from autointerp.reporting import numbers
from autointerp.reporting.parts import Badge, Cell, Tone
from autointerp.reporting.summary import measure_cell

__all__ = ["TONES", "detectable_cell", "difference_cell", "finding_cell", "p_cell"]

TONES: dict[str, Tone] = {"better": "good", "worse": "bad"}


def difference_cell(comparison: Comparison) -> Cell:
    """The difference over its interval, or why there is none."""
    if not isinstance(comparison.outcome, Measured):
        return measure_cell(comparison.outcome)
    estimate = comparison.outcome.estimate
    decimals = numbers.decimals_for(estimate.low, estimate.high)
    interval = numbers.interval(estimate.low, estimate.high, decimals=decimals, show_sign=True)
    return Cell(
        numbers.signed(estimate.value, decimals),
        sort=estimate.value,
        kind="number",
        detail=interval,
        hint=f"{estimate.method}, n = {numbers.count(estimate.n)} ({estimate.sampled})",
    )


def p_cell(p: float | None) -> Cell:
    """A p-value, where there is one."""
    return _missing() if p is None else Cell(numbers.p_value(p), sort=p, kind="number")


def detectable_cell(least: float | None) -> Cell:
    """The smallest difference that would have been found, where that is known."""
    return _missing() if least is None else Cell(f"{least:.2g}", sort=least, kind="number")


def finding_cell(word: str) -> Cell:
    """A word of `finding`, as a badge."""
    return Cell("", sort=word, badges=(Badge(word, TONES.get(word, "neutral")),))


def _missing() -> Cell:
    return Cell("—", kind="missing")
