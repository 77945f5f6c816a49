"""EvaluationReport -> what charts cannot draw: the numbers that are not there, each with its reason."""

from collections.abc import Callable, Collection, Mapping

from autointerp.records import CheckpointSummary, EvaluationReport, Measured, Outcome, Undefined
from autointerp.reporting.parts import ChartGap, ScatterGap
from autointerp.reporting.summary import headline_outcomes

__all__ = ["histogram_gaps", "line_gaps", "scatter_gaps"]

_ABSENT = Undefined("not part of this run for this checkpoint")


def scatter_gaps(
    report: EvaluationReport,
    x: str | None,
    y: str,
    *,
    drawn: Collection[str],
    series: Callable[[CheckpointSummary], str],
) -> tuple[ScatterGap, ...]:
    """Checkpoints that are not drawn, with the outcomes of both metrics' headlines.

    Args:
        report: what the run found.
        x: a metric; None where the axis is of what every checkpoint has.
        y: the other one.
        drawn: names of those that have both numbers.
        series: what a checkpoint's is called.
    """
    outcomes = headline_outcomes(report)
    return tuple(
        ScatterGap(
            c.name,
            series(c),
            None if x is None else outcomes.get((c.name, x), _ABSENT),
            outcomes.get((c.name, y), _ABSENT),
            is_null=c.role == "null",
        )
        for c in report.checkpoints
        if c.name not in drawn
    )


def line_gaps(
    report: EvaluationReport, metric: str, setting: str, places: Mapping[str, str]
) -> tuple[ChartGap, ...]:
    """Of each checkpoint the places without a number; its headline's reason where the place has none itself.

    Args:
        report: what the run found.
        metric: what is drawn.
        setting: over what, the key of the slices.
        places: its values, as text, and how the chart calls them.
    """
    outcomes = {
        (result.checkpoint, str(result.slice[setting])): result.outcome
        for result in report.results
        if result.metric == metric and set(result.slice) == {setting}
    }
    headline = headline_outcomes(report)
    gaps = []
    for c in report.checkpoints:
        whole = headline.get((c.name, metric))
        for place, words in places.items():
            outcome = outcomes.get((c.name, place), whole)
            if outcome is not None and not isinstance(outcome, Measured):
                gaps.append(ChartGap(c.name, outcome, words, is_null=c.role == "null"))
    return tuple(gaps)


def histogram_gaps(report: EvaluationReport, metric: str, *, drawn: Collection[str]) -> tuple[ChartGap, ...]:
    """Checkpoints that are not drawn, with the outcome of a metric that rests on the same observations."""
    outcomes = headline_outcomes(report)
    gaps = []
    for c in report.checkpoints:
        outcome: Outcome = outcomes.get((c.name, metric), _ABSENT)
        if c.name not in drawn:
            why = _ABSENT if isinstance(outcome, Measured) else outcome
            gaps.append(ChartGap(c.name, why, is_null=c.role == "null"))
    return tuple(gaps)
