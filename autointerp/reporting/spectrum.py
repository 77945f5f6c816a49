"""Densities of all latents -> how often latents fire, from the densest down, and the densest d_model."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from autointerp.records import CheckpointSummary, EvaluationReport
from autointerp.reporting.chart_data import LATENT_DENSITY
from autointerp.reporting.comparison import headline
from autointerp.reporting.numbers import count, plain
from autointerp.reporting.parts import Axis, Cell, ChartPoint, Column, Part, Row, ScatterChart, Section, Table
from autointerp.reporting.summary import headline_outcomes, measure_cell, summary_rows_order

__all__ = ["spectrum_chart", "spectrum_sections"]

_DENSEST, _L0 = "reconstruction.mean_density_of_densest", "reconstruction.l0"
_MARKS = 25
"""Of each checkpoint, evenly spread over the logarithm of the rank."""


def spectrum_sections(report: EvaluationReport, observations: pl.DataFrame | None) -> tuple[Section, ...]:
    """The section, or none where no densities were observed."""
    outcomes = headline_outcomes(report)
    has_table = any(metric == _DENSEST for _, metric in outcomes)
    chart = None if observations is None else spectrum_chart(report, observations)
    if not has_table and chart is None:
        return ()
    parts: list[Part] = [_table(report)] if has_table else []
    if chart is not None:
        parts.append(chart)
    return (
        Section(
            name="spectrum",
            title="How evenly do latents fire?",
            lead="A dictionary whose d_model densest latents do nearly all the firing has become a dense "
            "basis, as principal components are (Gao et al. 2024, Fig. 20): then their mean density is near "
            "L0 / d_model.",
            parts=tuple(parts),
        ),
    )


def _table(report: EvaluationReport) -> Table:
    outcomes, values = headline_outcomes(report), headline(report)
    rows = []
    for checkpoint in summary_rows_order(report):
        sparsity = values.get((checkpoint.name, _L0))
        rows.append(
            Row(
                (
                    Cell(checkpoint.name, sort=checkpoint.name, detail=checkpoint.architecture),
                    measure_cell(outcomes.get((checkpoint.name, _DENSEST))),
                    _bound(None if sparsity is None else sparsity.value / checkpoint.latent_count),
                    _bound(None if sparsity is None else min(1.0, sparsity.value / _width(checkpoint))),
                    Cell(count(_width(checkpoint)), sort=_width(checkpoint), kind="number"),
                ),
                is_null=checkpoint.role == "null",
            )
        )
    columns = (
        Column("Checkpoint"),
        Column("Density of the densest", is_numeric=True, hint="mean over the d_model densest latents"),
        Column("L0 / latents", is_numeric=True, hint="what it is where all latents fire alike"),
        Column("L0 / d_model", is_numeric=True, hint="what it is where no other latents fire"),
        Column("Latents counted", is_numeric=True, hint="d_model, or all where there are fewer"),
    )
    return Table("densest", "Mean density of the d_model densest latents", columns, tuple(rows))


def _width(checkpoint: CheckpointSummary) -> int:
    return min(checkpoint.d_model, checkpoint.latent_count)


def _bound(value: float | None) -> Cell:
    if value is None:
        return Cell("—", kind="missing", hint="L0 was not measured")
    return Cell(plain(value), sort=value, kind="number")


def spectrum_chart(report: EvaluationReport, observations: pl.DataFrame) -> ScatterChart | None:
    """Density over rank, both logarithmic, from the observations of `reconstruction.latent_density`.

    Latents that never fired have no logarithm and are left out. Rows of one latent are added up.
    """
    per_latent = (
        observations.filter(
            pl.col("metric") == LATENT_DENSITY,
            pl.col("slice") == "{}",
            pl.col("status") == "measured",
        )
        .group_by("checkpoint", "unit")
        .agg(pl.col("numerator").sum(), pl.col("denominator").sum())
        .filter(pl.col("numerator") > 0)
        .with_columns(density=pl.col("numerator") / pl.col("denominator"))
    )
    points: list[ChartPoint] = []
    for checkpoint in report.checkpoints:
        density = per_latent.filter(pl.col("checkpoint") == checkpoint.name)["density"].sort(descending=True)
        points += _marks(checkpoint, density.to_list())
    if not points:
        return None
    return ScatterChart(
        name="spectrum",
        title="Density by rank",
        caption="Latents of each checkpoint from the densest down, a mark for some of the ranks. No "
        "intervals: ranks are of this run's counts. Latents that never fired are left out.",
        x=Axis("Rank, the densest first", "log"),
        y=Axis("Share of tokens", "log"),
        points=tuple(points),
    )


def _marks(checkpoint: CheckpointSummary, densities: Sequence[float]) -> list[ChartPoint]:
    if not densities:
        return []
    ranks = np.unique(np.round(np.geomspace(1, len(densities), _MARKS)).astype(int)).tolist()
    return [
        ChartPoint(
            label=f"{checkpoint.name}, rank {rank}",
            series=checkpoint.name,
            x=float(rank),
            x_low=float(rank),
            x_high=float(rank),
            y=densities[rank - 1],
            y_low=densities[rank - 1],
            y_high=densities[rank - 1],
            is_null=checkpoint.role == "null",
        )
        for rank in ranks
    ]
