"""Paired comparisons -> which checkpoint leads a metric, and whether that can be said at all.

Nothing is computed here: the differences, intervals and adjusted p-values are those of the report. Two
results are never ranked by whether their own intervals overlap, which answers another question: checkpoints
see the same documents, so the difference is known better than either of its sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autointerp.records import (
    CheckpointSummary,
    Comparison,
    Estimate,
    EvaluationReport,
    Measured,
    MetricDefinition,
    slice_key,
)
from autointerp.reporting import numbers

__all__ = [
    "SIGNIFICANCE",
    "Lead",
    "Standing",
    "against_nulls",
    "find_comparison",
    "headline",
    "is_significant",
    "lead_of",
    "leads",
    "statement",
]

SIGNIFICANCE = 0.05
"""A difference counts when its p-value, adjusted over all comparisons of the report, is below this."""

Standing = Literal["best", "cannot tell", ""]


@dataclass(frozen=True)
class Lead:
    """Who has the best value of one metric on one site, nulls apart."""

    metric: str
    site: str
    leader: str
    is_certain: bool
    """The leader differs significantly from the runner-up and from all others that it was compared with."""
    tied: tuple[str, ...]
    """Whose measured difference from the leader is not significant."""
    runner_up: str | None
    comparison: Comparison | None
    """The paired one between leader and runner-up, as the report holds it."""

    def standing_of(self, checkpoint: str) -> Standing:
        """How a table marks this checkpoint's value; without a comparison, not at all."""
        if self.is_certain:
            return "best" if checkpoint == self.leader else ""
        return "cannot tell" if self.tied and checkpoint in {self.leader, *self.tied} else ""

    @property
    def is_compared(self) -> bool:
        """The difference between leader and runner-up was measured."""
        return self.comparison is not None and isinstance(self.comparison.outcome, Measured)


def headline(report: EvaluationReport) -> dict[tuple[str, str], Estimate]:
    """The measured estimates of the headline slice by (checkpoint, metric)."""
    return {
        (result.checkpoint, result.metric): result.outcome.estimate
        for result in report.results
        if not result.slice and isinstance(result.outcome, Measured)
    }


def find_comparison(
    report: EvaluationReport, metric: str, one: str, other: str, settings: Mapping[str, Any] | None = None
) -> Comparison | None:
    """The comparison of these two in either direction, or None."""
    wanted = slice_key(settings or {})
    for comparison in report.comparisons:
        if comparison.metric != metric or {comparison.checkpoint, comparison.reference} != {one, other}:
            continue
        if slice_key(comparison.slice) == wanted:
            return comparison
    return None


def is_significant(comparison: Comparison | None) -> bool:
    """There is a comparison, it has an adjusted p-value, and that is below `SIGNIFICANCE`."""
    if comparison is None or not isinstance(comparison.outcome, Measured):
        return False
    p = comparison.adjusted_p_value
    return p is not None and p < SIGNIFICANCE


def lead_of(report: EvaluationReport, definition: MetricDefinition, site: str) -> Lead | None:
    """The lead of one metric among the checkpoints on one site.

    None where there is nothing to lead: the metric has no better direction, or fewer than two checkpoints
    (nulls do not count) have a value.
    """
    values = headline(report)
    ranked = _ranked(report.checkpoints, values, definition, site)
    if definition.better == "neither" or len(ranked) < 2:
        return None
    leader, runner_up, *_ = ranked
    against = {name: find_comparison(report, definition.name, leader, name) for name in ranked[1:]}
    tied = tuple(
        name
        for name, comparison in against.items()
        if comparison is not None
        and isinstance(comparison.outcome, Measured)
        and not is_significant(comparison)
    )
    return Lead(
        metric=definition.name,
        site=site,
        leader=leader,
        is_certain=not tied and is_significant(against[runner_up]),
        tied=tied,
        runner_up=runner_up,
        comparison=against[runner_up],
    )


def _ranked(
    checkpoints: Sequence[CheckpointSummary],
    values: Mapping[tuple[str, str], Estimate],
    definition: MetricDefinition,
    site: str,
) -> list[str]:
    """Names of the checkpoints that have a value, best first, ties in the report's order."""
    sign = -1.0 if definition.better == "higher" else 1.0
    candidates = [
        checkpoint.name
        for checkpoint in checkpoints
        if checkpoint.role == "checkpoint"
        and checkpoint.site == site
        and (checkpoint.name, definition.name) in values
    ]
    return sorted(candidates, key=lambda name: sign * values[name, definition.name].value)


def leads(report: EvaluationReport) -> list[Lead]:
    """Every lead of the report: metrics in their order, sites in theirs."""
    sites = list(dict.fromkeys(checkpoint.site for checkpoint in report.checkpoints))
    found = (lead_of(report, definition, site) for definition in report.definitions for site in sites)
    return [lead for lead in found if lead is not None]


def statement(lead: Lead, definition: MetricDefinition) -> str:
    """One sentence: who leads, by how much, and how sure that is."""
    if lead.comparison is None or not lead.is_compared:
        return (
            f"{definition.title}: {lead.leader} has the best value, but its difference from {lead.runner_up} "
            "was not measured."
        )
    difference = _difference_from_leader(lead.comparison, lead.leader)
    if lead.is_certain:
        return f"{definition.title}: {lead.leader} is best; {difference} against {lead.runner_up}."
    others = " and ".join(lead.tied)
    return f"{definition.title}: cannot tell {lead.leader} from {others} ({difference})."


def _difference_from_leader(comparison: Comparison, leader: str) -> str:
    """`difference −0.012 [−0.015, −0.009], p < 0.001`, signed as leader minus the other."""
    assert isinstance(comparison.outcome, Measured)
    estimate = comparison.outcome.estimate
    sides = (estimate.value, estimate.low, estimate.high)
    if comparison.checkpoint != leader:
        sides = (-estimate.value, -estimate.high, -estimate.low)
    text = f"difference {numbers.value_with_interval(*sides, show_sign=True)}"
    if comparison.adjusted_p_value is None:
        return text
    p = numbers.p_value(comparison.adjusted_p_value)
    return f"{text}, p {p}" if p.startswith("<") else f"{text}, p = {p}"


def against_nulls(report: EvaluationReport, definitions: Sequence[MetricDefinition]) -> tuple[str, ...]:
    """Which metrics tell the checkpoints from the nulls on their sites, and who fails to be told apart.

    Nothing is said of a metric without a direction, or for which no such difference was measured.
    """
    pairs = [
        (checkpoint.name, null.name)
        for checkpoint in report.checkpoints
        for null in report.checkpoints
        if (checkpoint.role, null.role, checkpoint.site) == ("checkpoint", "null", null.site)
    ]
    values = headline(report)  # what has no value is said where that is said
    beaten, sentences = [], []
    for definition in definitions:
        if definition.better == "neither" or not any(_is_measured(report, definition, *p) for p in pairs):
            continue
        valued = [pair for pair in pairs if (pair[0], definition.name) in values]
        behind = [pair for pair in valued if not _is_better(report, definition, *pair)]
        if not behind:
            beaten.append(definition.title)
            continue
        sentences.append(f"{definition.title}: {_not_shown(behind, valued)}.")
    if beaten:
        sentences.insert(0, f"Every checkpoint is better than every null in {', '.join(beaten)}.")
    return tuple(sentences)


def _not_shown(behind: Sequence[tuple[str, str]], pairs: Sequence[tuple[str, str]]) -> str:
    if len(behind) == len(pairs):
        return "no checkpoint is shown to be better than a null"
    nulls: dict[str, list[str]] = {}
    for checkpoint, null in behind:
        nulls.setdefault(checkpoint, []).append(null)
    names = ", ".join(f"{checkpoint} (against {' and '.join(its)})" for checkpoint, its in nulls.items())
    return f"not shown to be better than a null: {names}"


def _is_measured(report: EvaluationReport, definition: MetricDefinition, one: str, other: str) -> bool:
    comparison = find_comparison(report, definition.name, one, other)
    return comparison is not None and isinstance(comparison.outcome, Measured)


def _is_better(report: EvaluationReport, definition: MetricDefinition, checkpoint: str, null: str) -> bool:
    """Significantly, on the units that both were measured on."""
    comparison = find_comparison(report, definition.name, checkpoint, null)
    if comparison is None or not is_significant(comparison) or not isinstance(comparison.outcome, Measured):
        return False
    difference = comparison.outcome.estimate.value
    difference = difference if comparison.checkpoint == checkpoint else -difference
    return difference < 0 if definition.better == "lower" else difference > 0
