"""EvaluationReport -> the summary table: a row each checkpoint, a column each headline metric."""

import math
from collections.abc import Mapping, Sequence

from autointerp.records import (
    CheckpointSummary,
    Estimate,
    EvaluationReport,
    Measured,
    MetricDefinition,
    Outcome,
)
from autointerp.reporting import numbers
from autointerp.reporting.comparison import Lead, against_nulls, leads, statement
from autointerp.reporting.parts import Badge, Callout, Cell, Column, RangeBar, Row, Section, Table

__all__ = [
    "headline_definitions",
    "headline_outcomes",
    "subject_facts",
    "summary_rows_order",
    "summary_section",
]

_LOG_RATIO = 10.0
"""A column whose values span more than this is drawn on a logarithmic scale."""
_FIRST = (
    "reconstruction.l0",
    "reconstruction.normalized_mse",
    "downstream.delta_ce_nats",
    "downstream.kl_nats",
)
"""Columns that a narrow terminal shows before all others."""
_MARGIN = 0.04
"""Of a scale's length, left free at either end."""


def headline_definitions(report: EvaluationReport) -> list[MetricDefinition]:
    """The summary's metrics that have a result of any status at the headline slice, the weightiest first."""
    shown = {result.metric for result in report.results if not result.slice}
    found = [d for d in report.definitions if d.in_summary and d.name in shown]
    return sorted(found, key=lambda d: _FIRST.index(d.name) if d.name in _FIRST else len(_FIRST))


def headline_outcomes(report: EvaluationReport) -> dict[tuple[str, str], Outcome]:
    """Outcomes of the headline slice by (checkpoint, metric)."""
    return {(r.checkpoint, r.metric): r.outcome for r in report.results if not r.slice}


def subject_facts(report: EvaluationReport) -> list[tuple[str, str]]:
    """(title, value with its interval and unit) of what was measured of the subject, not of a checkpoint."""
    definitions = {definition.name: definition for definition in report.definitions}
    checkpoints = {checkpoint.name for checkpoint in report.checkpoints}
    facts = []
    for result in report.results:
        definition = definitions.get(result.metric)
        if result.slice or result.checkpoint in checkpoints or definition is None:
            continue
        if isinstance(result.outcome, Measured):
            estimate = result.outcome.estimate
            value = numbers.fixed(estimate.value, numbers.decimals_for(estimate.low, estimate.high))
            ends = numbers.interval(estimate.low, estimate.high)
            facts.append((definition.title, f"{value} {definition.unit} {ends}"))
    return facts


def summary_rows_order(report: EvaluationReport) -> list[CheckpointSummary]:
    """By site as first met, nulls below the checkpoints of their site, else as the report has them."""
    sites = list(dict.fromkeys(checkpoint.site for checkpoint in report.checkpoints))
    return sorted(report.checkpoints, key=lambda c: (sites.index(c.site), c.role == "null"))


def summary_section(report: EvaluationReport) -> Section:
    """The first thing a reader sees: who leads, and the numbers."""
    found = leads(report)
    findings = Callout("What can be said", _findings(report, found), "neutral")
    return Section(
        name="summary",
        title="Summary",
        lead=f"Each number stands with its {_level_words(report)} interval. A value is marked best only "
        "where its paired difference from the runner-up is significant after correction for all "
        "comparisons of the report. Checkpoints differ in width and sparsity: the charts show what one "
        "costs in the other.",
        parts=(summary_table(report, found), findings),
    )


def _level_words(report: EvaluationReport) -> str:
    levels = {r.outcome.estimate.level for r in report.results if isinstance(r.outcome, Measured)}
    return f"{round(100 * levels.pop(), 1):g} %" if len(levels) == 1 else "confidence"


def _findings(report: EvaluationReport, found: Sequence[Lead]) -> tuple[str, ...]:
    """One sentence a metric whose leaders were compared, and one for all others."""
    headlines = headline_definitions(report)
    definitions = {definition.name: definition for definition in headlines}
    found = [lead for lead in found if lead.metric in definitions]
    sentences = [
        statement(lead, definitions[lead.metric]) + _site_words(report, lead)
        for lead in found
        if lead.is_compared
    ]
    open_titles = dict.fromkeys(definitions[lead.metric].title for lead in found if not lead.is_compared)
    if open_titles:
        sentences.append(
            f"Nothing is said of {', '.join(open_titles)}: the best two were not compared there."
        )
    return (*against_nulls(report, headlines), *sentences) or ("There is nothing to compare.",)


def _site_words(report: EvaluationReport, lead: Lead) -> str:
    several = len({checkpoint.site for checkpoint in report.checkpoints}) > 1
    return f" (At {lead.site}.)" if several else ""


def summary_table(report: EvaluationReport, found: Sequence[Lead]) -> Table:
    """Checkpoints by headline metrics; every hole says why it is one."""
    definitions = headline_definitions(report)
    outcomes = headline_outcomes(report)
    scales = {d.name: _scale(report, outcomes, d.name) for d in definitions}
    decimals = {d.name: _column_decimals(report, outcomes, d.name) for d in definitions}
    rows = []
    for checkpoint in summary_rows_order(report):
        cells = [_name_cell(checkpoint)]
        for definition in definitions:
            outcome = outcomes.get((checkpoint.name, definition.name))
            marks = _marks(checkpoint, definition, found)
            name = definition.name
            cells.append(measure_cell(outcome, scales[name], marks, column_decimals=decimals[name]))
        rows.append(Row(tuple(cells), is_null=checkpoint.role == "null"))
    columns = [Column("Checkpoint")]
    columns += [Column(d.title, d.unit, d.better, d.meaning, is_numeric=True) for d in definitions]
    return Table("summary", "Checkpoints and their headline metrics", tuple(columns), tuple(rows))


def _name_cell(checkpoint: CheckpointSummary) -> Cell:
    width = f"{checkpoint.architecture} · {numbers.count(checkpoint.latent_count)} latents"
    badges = (Badge("null", "null", "A control run through the same pipeline"),)
    return Cell(
        checkpoint.name,
        sort=checkpoint.name,
        detail=width,
        hint=checkpoint.path,
        badges=badges if checkpoint.role == "null" else (),
    )


def _marks(
    checkpoint: CheckpointSummary, definition: MetricDefinition, found: Sequence[Lead]
) -> tuple[Badge, ...]:
    for lead in found:
        standing = lead.standing_of(checkpoint.name)
        if lead.metric != definition.name or lead.site != checkpoint.site or not standing:
            continue
        if standing == "best":
            return (Badge("best", "good", statement(lead, definition)),)
        return (Badge("cannot tell", "neutral", statement(lead, definition)),)
    return ()


def _column_decimals(
    report: EvaluationReport, outcomes: Mapping[tuple[str, str], Outcome], metric: str
) -> int | None:
    """The number of decimals that most checkpoints of a column need; the larger of two equally frequent."""
    found = [outcomes.get((c.name, metric)) for c in report.checkpoints if c.role == "checkpoint"]
    wide = [o.estimate for o in found if isinstance(o, Measured) and o.estimate.low < o.estimate.high]
    needed = [numbers.decimals_for(estimate.low, estimate.high) for estimate in wide]
    return max(needed, key=lambda n: (needed.count(n), n)) if needed else None


def measure_cell(
    outcome: Outcome | None,
    scale: "Scale | None" = None,
    badges: tuple[Badge, ...] = (),
    *,
    column_decimals: int | None = None,
) -> Cell:
    """A value over its interval, or the status with its reason.

    `column_decimals` aligns a column: it is used where it is within one of what the interval asks for.
    """
    if outcome is None:
        return Cell("—", kind="missing", hint="Not part of this run for this checkpoint")
    if not isinstance(outcome, Measured):
        badge = Badge(outcome.status, "bad" if outcome.status == "failed" else "neutral", outcome.reason)
        return Cell("", kind="missing", hint=outcome.reason, badges=(badge,))
    estimate = outcome.estimate
    decimals = numbers.decimals_for(estimate.low, estimate.high)
    is_exact = estimate.low == estimate.high
    if column_decimals is not None and not is_exact and abs(column_decimals - decimals) <= 1:
        decimals = column_decimals
    return Cell(
        numbers.fixed(estimate.value, decimals),
        sort=estimate.value,
        kind="number",
        detail=numbers.interval(estimate.low, estimate.high, decimals=decimals),
        half_width=f"±{numbers.fixed((estimate.high - estimate.low) / 2, decimals)}",
        hint=f"{estimate.method}, n = {numbers.count(estimate.n)} ({estimate.sampled})",
        bar=scale(estimate) if scale else None,
        badges=badges,
    )


class Scale:
    """Where values lie between a column's smallest and largest bound, on a linear or logarithmic scale."""

    def __init__(self, low: float, high: float) -> None:
        self._is_log = low > 0 and high / low > _LOG_RATIO
        self._low, self._high = self._place(low), self._place(high)
        margin = _MARGIN * (self._high - self._low)
        self._low, self._high = self._low - margin, self._high + margin

    def _place(self, value: float) -> float:
        return math.log(value) if self._is_log and value > 0 else value

    def _fraction(self, value: float) -> float:
        if self._is_log and value <= 0:
            return 0.0
        return min(max((self._place(value) - self._low) / (self._high - self._low), 0.0), 1.0)

    def __call__(self, estimate: Estimate) -> RangeBar:
        """The estimate's bar; a value outside is pinned to the edge and says so."""
        low, value, high = (self._fraction(x) for x in (estimate.low, estimate.value, estimate.high))
        if low == high == 1.0:
            return RangeBar(low, value, high, "right")
        if low == high == 0.0:
            return RangeBar(low, value, high, "left")
        return RangeBar(low, value, high)


def _scale(
    report: EvaluationReport, outcomes: Mapping[tuple[str, str], Outcome], metric: str
) -> Scale | None:
    """The scale of one column, set by the checkpoints; by all where nulls are all there is."""
    judged = [c.name for c in report.checkpoints if c.role == "checkpoint"]
    for names in (judged, [c.name for c in report.checkpoints]):
        found = [outcomes.get((name, metric)) for name in names]
        bounds = [(o.estimate.low, o.estimate.high) for o in found if isinstance(o, Measured)]
        if bounds and min(bounds)[0] < max(high for _, high in bounds):
            return Scale(min(bounds)[0], max(high for _, high in bounds))
    return None
