"""EvaluationReport -> the sections after the summary: charts, what is missing, comparisons, results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autointerp.records import (
    Comparison,
    EvaluationReport,
    Measured,
    MetricDefinition,
    MetricResult,
)
from autointerp.reporting import numbers
from autointerp.reporting.comparison import SIGNIFICANCE, is_significant
from autointerp.reporting.parts import (
    Badge,
    Callout,
    Cell,
    Chart,
    Column,
    Part,
    Row,
    Section,
    Table,
)
from autointerp.reporting.summary import measure_cell

__all__ = [
    "charts_section",
    "comparisons_section",
    "missing_results",
    "missing_section",
    "results_section",
]

_STATUS_ORDER = {"failed": 0, "undefined": 1, "skipped": 2}


def missing_results(report: EvaluationReport) -> list[MetricResult]:
    """Results without a number: failed first, then undefined, then skipped."""
    missing = [result for result in report.results if not isinstance(result.outcome, Measured)]
    return sorted(missing, key=lambda result: _STATUS_ORDER[result.outcome.status])


def missing_section(report: EvaluationReport) -> Section:
    """Everything that has no number, a row for each checkpoint and reason; never left out."""
    causes: dict[tuple[str, str, str], list[MetricResult]] = {}
    for result in missing_results(report):
        reason = getattr(result.outcome, "reason", "")
        causes.setdefault((result.outcome.status, result.checkpoint, reason), []).append(result)
    rows = tuple(
        Row(
            (
                _status_cell(status),
                Cell(checkpoint, sort=checkpoint),
                _metrics_cell(results, _titles(report)),
                Cell(reason),
            )
        )
        for (status, checkpoint, reason), results in causes.items()
    )
    columns = tuple(Column(title) for title in ("Status", "Checkpoint", "Metrics", "Reason"))
    table = Table("missing", "Results without a number", columns, rows, is_filterable=len(rows) > 12)
    nothing = Callout("Nothing is missing", ("Every metric that was asked for has a number.",), "good")
    if not report.results:
        nothing = Callout("No results", ("This run has no results at all.",), "neutral")
    return Section(
        name="missing",
        title="What has no number",
        lead="Failed: it exists, but computing it went wrong. Undefined: it does not exist here. Skipped: "
        "not tried, on purpose. None of these ever counts as zero.",
        parts=(table,) if rows else (nothing,),
    )


def _metrics_cell(results: Sequence[MetricResult], titles: Mapping[str, str]) -> Cell:
    """The metrics that one reason took, with the slice where it is not the headline one."""
    words = [
        titles.get(result.metric, result.metric)
        + (f" ({numbers.slice_words(result.slice)})" if result.slice else "")
        for result in results
    ]
    names = sorted({result.metric for result in results})
    return Cell(", ".join(words), sort=names[0], hint=", ".join(names))


def _status_cell(status: str) -> Cell:
    tone = {"measured": "good", "failed": "bad"}.get(status, "neutral")
    return Cell("", sort=status, badges=(Badge(status, tone),))  # type: ignore[arg-type]


def _titles(report: EvaluationReport) -> dict[str, str]:
    return {definition.name: definition.title for definition in report.definitions}


def charts_section(charts: Sequence[Chart]) -> Section:
    """The charts, or why there are none."""
    none = Callout("No charts", ("None of the metrics that are drawn was measured in this run.",), "neutral")
    return Section(
        name="charts",
        title="Charts",
        lead="Bars are intervals; nulls are grey crosses or dashed lines. Hover for the numbers, click a "
        "legend entry to single it out; every chart has its data as a table below it.",
        parts=tuple(charts) or (none,),
    )


def comparisons_section(report: EvaluationReport) -> Section:
    """Paired differences, checkpoints among themselves and against nulls, in two tables."""
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    among = [c for c in report.comparisons if not nulls & {c.checkpoint, c.reference}]
    against = [c for c in report.comparisons if nulls & {c.checkpoint, c.reference}]
    parts: list[Part] = []
    for name, caption, found in (
        ("against-null", "Checkpoints against nulls", against),
        ("among", "Checkpoints among themselves", among),
    ):
        if found:
            parts.append(_comparison_table(report, name, caption, found))
        else:
            parts.append(Callout(caption, ("There is no such comparison in this run.",), "neutral"))
    return Section(
        name="comparisons",
        title="Comparisons",
        lead="Paired differences on the units that both have seen: checkpoint minus reference. p is adjusted "
        f"for all comparisons of the report (false discovery rate); below {SIGNIFICANCE} it counts.",
        parts=tuple(parts),
    )


def _comparison_table(
    report: EvaluationReport, name: str, caption: str, comparisons: Sequence[Comparison]
) -> Table:
    definitions = {definition.name: definition for definition in report.definitions}
    columns = (
        Column("Checkpoint"),
        Column("Reference"),
        Column("Metric"),
        Column("Slice"),
        Column("Difference", is_numeric=True, hint="checkpoint minus reference, with its interval"),
        Column("p, adjusted", is_numeric=True),
        Column("Finding"),
    )
    rows = tuple(
        Row(
            (
                Cell(c.checkpoint, sort=c.checkpoint),
                Cell(c.reference, sort=c.reference),
                _metric_cell(definitions.get(c.metric), c.metric),
                Cell(numbers.slice_words(c.slice), sort=numbers.slice_words(c.slice)),
                _difference_cell(c),
                _p_cell(c),
                _finding_cell(c, definitions.get(c.metric)),
            )
        )
        for c in comparisons
    )
    return Table(name, caption, columns, rows, is_filterable=len(rows) > 12)


def _metric_cell(definition: MetricDefinition | None, name: str) -> Cell:
    title = definition.title if definition else name
    return Cell(title, sort=title, detail=definition.unit if definition else "", hint=name)


def _difference_cell(comparison: Comparison) -> Cell:
    if not isinstance(comparison.outcome, Measured):
        return measure_cell(comparison.outcome)
    estimate = comparison.outcome.estimate
    decimals = numbers.decimals_for(estimate.low, estimate.high)
    return Cell(
        numbers.signed(estimate.value, decimals),
        sort=estimate.value,
        kind="number",
        detail=numbers.interval(estimate.low, estimate.high, decimals=decimals, show_sign=True),
        hint=f"{estimate.method}, n = {numbers.count(estimate.n)} ({estimate.sampled})",
    )


def _p_cell(comparison: Comparison) -> Cell:
    p = comparison.adjusted_p_value
    if p is None:
        return Cell("—", kind="missing")
    raw = "" if comparison.p_value is None else f"before adjustment {numbers.p_value(comparison.p_value)}"
    return Cell(numbers.p_value(p), sort=p, kind="number", hint=raw)


def _finding_cell(comparison: Comparison, definition: MetricDefinition | None) -> Cell:
    """`better`, `worse` (of the checkpoint, by the metric's direction), `differs` or `cannot tell`."""
    if not isinstance(comparison.outcome, Measured):
        return Cell("—", kind="missing")
    if not is_significant(comparison):
        return Cell("", sort="cannot tell", badges=(Badge("cannot tell"),))
    better = definition.better if definition else "neither"
    if better == "neither":
        return Cell("", sort="differs", badges=(Badge("differs"),))
    is_better = (comparison.outcome.estimate.value > 0) == (better == "higher")
    badge = Badge("better", "good") if is_better else Badge("worse")
    return Cell("", sort=badge.text, badges=(badge,))


def results_section(report: EvaluationReport) -> Section:
    """Every result at every slice."""
    definitions = {definition.name: definition for definition in report.definitions}
    columns = (
        Column("Checkpoint"),
        Column("Metric"),
        Column("Slice"),
        Column("Value", is_numeric=True),
        Column("n", is_numeric=True),
        Column("Interval by"),
    )
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    rows = tuple(
        Row(
            (
                Cell(result.checkpoint, sort=result.checkpoint),
                _metric_cell(definitions.get(result.metric), result.metric),
                Cell(numbers.slice_words(result.slice), sort=numbers.slice_words(result.slice)),
                _value_cell(result),
                *_basis_cells(result),
            ),
            is_null=result.checkpoint in nulls,
        )
        for result in report.results
    )
    return Section(
        name="results",
        title="All results",
        lead="Every metric of every checkpoint, the headline slice and all others.",
        parts=(Table("results", "All results", columns, rows, is_filterable=True),),
    )


def _value_cell(result: MetricResult) -> Cell:
    cell = measure_cell(result.outcome)
    return replace(cell, hint="") if isinstance(result.outcome, Measured) else cell  # it stands beside it


def _basis_cells(result: MetricResult) -> tuple[Cell, Cell]:
    """What the number rests on, and how its interval was made."""
    if not isinstance(result.outcome, Measured):
        return Cell("—", kind="missing"), Cell(result.outcome.reason)
    estimate = result.outcome.estimate
    sampled = Cell(numbers.count(estimate.n), sort=estimate.n, kind="number", detail=estimate.sampled)
    return sampled, Cell(estimate.method, sort=estimate.method)
