"""EvaluationReport -> the section on refined activations: what the encoder's amounts lose, and to where."""

from collections.abc import Mapping
from typing import Any, Literal

from autointerp.records import EvaluationReport
from autointerp.reporting import numbers
from autointerp.reporting.chart_points import L0, scatter_point, series_of
from autointerp.reporting.comparison import headline
from autointerp.reporting.parts import Axis, Cell, Column, Part, Row, ScatterChart, Section, Table
from autointerp.reporting.summary import headline_outcomes, measure_cell, summary_rows_order

__all__ = ["refinement_sections"]

_GAIN = "refinement.gain_normalized_mse"
_COLUMNS = (
    ("refinement.normalized_mse", "Refined MSE"),
    (_GAIN, "gained"),
    ("refinement.delta_ce_nats", "Refined delta CE"),
    ("refinement.gain_delta_ce_nats", "gained"),
    ("refinement.shrinkage", "Refined over original"),
    ("refinement.moved", "Moved"),
    ("refinement.zeroed_fraction", "Zeroed"),
    ("refinement.unsolved_fraction", "Not fully refined"),
)


def refinement_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where nothing was refined."""
    facts = report.studies.get("refinement")
    if not facts:
        return ()
    parts: list[Part] = [_table(report)]
    chart = _chart(report)
    if chart is not None:
        parts.append(chart)
    return (
        Section(
            name="refinement",
            title="What would better amounts gain?",
            lead="The latents that fire stay, their values become those that fit best (not below 0 where "
            "the dictionary's never are; decoder frozen). What is gained is lost by the encoder's amounts, "
            "what is left by its choice of latents and by the dictionary. Refined over original is above 1 "
            f"where values were too small. On the first {_count(facts)} tokens of the evaluated text; gains "
            "are before less after on the same tokens.",
            parts=tuple(parts),
        ),
    )


def _count(facts: Mapping[str, Any]) -> str:
    tokens = facts.get("token_count")
    return numbers.count(tokens) if isinstance(tokens, int) else "?"


def _table(report: EvaluationReport) -> Table:
    definitions = {definition.name: definition for definition in report.definitions}
    columns = [Column("Checkpoint")]
    for metric, title in _COLUMNS:
        found = definitions.get(metric)
        unit, hint = (found.unit, found.meaning) if found else ("", "")
        columns.append(Column(title, unit, "neither", hint, is_numeric=True))
    outcomes = headline_outcomes(report)
    rows = tuple(
        Row(
            (
                Cell(checkpoint.name, sort=checkpoint.name, detail=checkpoint.architecture),
                *(measure_cell(outcomes.get((checkpoint.name, metric))) for metric, _ in _COLUMNS),
            ),
            is_null=checkpoint.role == "null",
        )
        for checkpoint in summary_rows_order(report)
    )
    return Table("refinement", "Refined activations", tuple(columns), rows)


def _chart(report: EvaluationReport) -> ScatterChart | None:
    values = headline(report)
    shown = [c for c in report.checkpoints if (c.name, L0) in values and (c.name, _GAIN) in values]
    if not shown:
        return None
    several = len({checkpoint.site for checkpoint in shown}) > 1
    points = []
    for checkpoint in shown:
        x, y = values[checkpoint.name, L0], values[checkpoint.name, _GAIN]
        points.append(scatter_point(checkpoint, x, y, series=series_of(checkpoint, with_site=several)))
    return ScatterChart(
        name="refinement-gain",
        title="What the encoder's amounts lose",
        caption="The normalised MSE that the best values of the same latents would save, over the number of "
        "active latents. Lines join checkpoints of one architecture and width.",
        x=Axis("L0 (latents per token)", _scale(min(point.x_low for point in points))),
        y=Axis("Normalised MSE gained (ratio)", _scale(min(point.y_low for point in points)), "lower"),
        points=tuple(points),
    )


def _scale(lowest: float) -> Literal["linear", "log"]:
    return "log" if lowest > 0 else "linear"
