"""Imported results -> a section of the report: beside ours where they mean the same, else apart with why."""

from collections.abc import Sequence

from autointerp.records import EvaluationReport, Measured
from autointerp.reporting import numbers
from autointerp.reporting.imported.result import ImportedResult
from autointerp.reporting.parts import Cell, Column, Part, Row, Section, Table
from autointerp.reporting.summary import measure_cell

__all__ = ["imported_sections"]


def imported_sections(report: EvaluationReport, imported: Sequence[ImportedResult]) -> tuple[Section, ...]:
    """The section, or none where nothing was imported."""
    if not imported:
        return ()
    beside = [each for each in imported if each.ours]
    apart = [each for each in imported if not each.ours]
    parts: list[Part] = []
    if beside:
        parts.append(_beside(report, beside))
    if apart:
        parts.append(_apart(apart))
    return (
        Section(
            name="imported",
            title="Published by others",
            lead="Numbers that other programs found, as they were published: not run again here, and never "
            "ranked with ours. Intervals are ours, made from their examples where they published those.",
            parts=tuple(parts),
        ),
    )


def _beside(report: EvaluationReport, results: Sequence[ImportedResult]) -> Table:
    columns = (
        Column("Source"),
        Column("Dictionary"),
        Column("Metric"),
        Column("Theirs", is_numeric=True),
        Column("Ours, lowest to highest", is_numeric=True, hint="over this report's checkpoints"),
        Column("Caution"),
    )
    rows = tuple(
        Row((*_names(each), _value(each), _range(report, each.ours), Cell(each.caution))) for each in results
    )
    return Table("imported-beside", "What means the same", columns, rows, is_filterable=len(rows) > 12)


def _apart(results: Sequence[ImportedResult]) -> Table:
    columns = (
        Column("Source"),
        Column("Dictionary"),
        Column("Metric"),
        Column("Theirs", is_numeric=True),
        Column("Why it stands apart"),
    )
    rows = tuple(Row((*_names(each), _value(each), Cell(each.caution))) for each in results)
    return Table("imported-apart", "What is not comparable", columns, rows, is_filterable=len(rows) > 12)


def _names(result: ImportedResult) -> tuple[Cell, Cell, Cell]:
    return (
        Cell(result.source, sort=result.source),
        Cell(result.name, sort=result.name),
        Cell(result.metric, sort=result.metric, detail=f"ours: {result.ours}" if result.ours else ""),
    )


def _value(result: ImportedResult) -> Cell:
    if result.value is None:
        return Cell("—", kind="missing", detail=result.reason)
    if result.low is not None and result.high is not None:
        decimals = numbers.decimals_for(result.low, result.high)
        interval = numbers.interval(result.low, result.high, decimals=decimals)
        return Cell(
            f"{result.value:.{max(decimals, 0)}f}",
            sort=result.value,
            kind="number",
            detail=f"{interval}, {numbers.count(result.n or 0)} {result.sampled}s",
        )
    return Cell(f"{result.value:.4g}", sort=result.value, kind="number")


def _range(report: EvaluationReport, metric: str) -> Cell:
    judged = {each.name for each in report.checkpoints if each.role == "checkpoint"}
    found = [
        result.outcome
        for result in report.results
        if result.metric == metric
        and not result.slice
        and result.checkpoint in judged
        and isinstance(result.outcome, Measured)
    ]
    if not found:
        return Cell("—", kind="missing", detail="not measured in this run")
    ordered = sorted(found, key=lambda outcome: outcome.estimate.value)
    ends = [measure_cell(outcome) for outcome in (ordered[0], ordered[-1])]
    return Cell(f"{ends[0].text} to {ends[1].text}", sort=ordered[0].estimate.value, kind="number")
