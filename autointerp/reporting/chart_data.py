"""EvaluationReport and observations -> the charts of the section on charts, as data."""

import math
import re

import polars as pl

from autointerp.records import EvaluationReport, Measured
from autointerp.reporting.chart_gaps import histogram_gaps, line_gaps
from autointerp.reporting.chart_points import DELTA_CE, NORMALIZED_MSE, definition_of, metric_axis
from autointerp.reporting.parts import Axis, Chart, HistogramChart, HistogramPanel, LineChart, LinePoint
from autointerp.reporting.trade_offs import trade_off_charts
from autointerp.reporting.width_charts import width_charts

__all__ = ["LATENT_DENSITY", "charts_of", "density_histogram"]

LATENT_DENSITY = "reconstruction.latent_density"
_DEAD_FRACTION = "reconstruction.dead_fraction"
"""Rests on the same observations."""
_BINS_PER_DECADE = 4


def charts_of(report: EvaluationReport, observations: pl.DataFrame | None) -> tuple[Chart, ...]:
    """Those charts for which the report has numbers."""
    found = (
        *trade_off_charts(report),
        *width_charts(report),
        _over_positions(report, NORMALIZED_MSE, "positions"),
        _over_positions(report, DELTA_CE, "positions-loss"),
        None if observations is None else density_histogram(report, observations),
    )
    return tuple(chart for chart in found if chart is not None)


def _over_positions(report: EvaluationReport, metric: str, name: str) -> LineChart | None:
    definition = definition_of(report, metric)
    nulls = {c.name for c in report.checkpoints if c.role == "null"}
    found = [
        (result.checkpoint, str(result.slice["position"]), result.outcome.estimate)
        for result in report.results
        if result.metric == metric
        and set(result.slice) == {"position"}
        and isinstance(result.outcome, Measured)
    ]
    order = sorted({position for _, position, _ in found}, key=_first_number)
    if definition is None or len(order) < 2:
        return None
    return LineChart(
        name=name,
        title=f"{definition.title} by position",
        caption="Positions counted from the start of the context. The headline number leaves out position 0.",
        x=Axis("Position of the token in its context"),
        y=metric_axis(definition, [estimate for _, _, estimate in found]),
        x_order=tuple(position.replace("-", "–") for position in order),
        points=tuple(
            LinePoint(name, place.replace("-", "–"), e.value, e.low, e.high, is_null=name in nulls)
            for name, place, e in found
        ),
        gaps=line_gaps(report, metric, "position", {place: place.replace("-", "–") for place in order}),
        group="Over the context",
    )


def _first_number(text: str) -> tuple[float, str]:
    digits = re.match(r"\d+", text)
    return (float(digits.group()) if digits else math.inf, text)


def density_histogram(report: EvaluationReport, observations: pl.DataFrame) -> HistogramChart | None:
    """Latents by how often they fire, from the observations of `reconstruction.latent_density`.

    Rows have unit = latent, numerator = tokens on which it fired, denominator = tokens seen; rows of one
    latent are added up. Quarter-decade bins of log10(numerator / denominator), the same for every checkpoint.
    """
    names = [checkpoint.name for checkpoint in report.checkpoints]
    per_latent = (
        observations.filter(
            pl.col("checkpoint").is_in(names),
            pl.col("metric") == LATENT_DENSITY,
            pl.col("slice") == "{}",
            pl.col("status") == "measured",
        )
        .group_by("checkpoint", "unit")
        .agg(pl.col("numerator").sum(), pl.col("denominator").sum())
        .filter(pl.col("denominator") > 0)
    )
    firing = per_latent.filter(pl.col("numerator") > 0)
    if firing.is_empty():
        return None
    binned = firing.select(
        "checkpoint",
        bin=((pl.col("numerator") / pl.col("denominator")).log10() * _BINS_PER_DECADE)
        .floor()
        .clip(upper_bound=-1)  # a latent that always fires belongs to the last bin, which ends at log10(1)
        .cast(pl.Int64),
    )
    lowest, highest = binned["bin"].min(), binned["bin"].max()
    assert isinstance(lowest, int) and isinstance(highest, int)
    counts = {(name, place): n for name, place, n in binned.group_by("checkpoint", "bin").len().iter_rows()}
    dead = dict(per_latent.filter(pl.col("numerator") == 0).group_by("checkpoint").len().iter_rows())
    seen = set(per_latent["checkpoint"].unique())
    panels = [
        HistogramPanel(
            label=checkpoint.name,
            start=lowest / _BINS_PER_DECADE,
            width=1 / _BINS_PER_DECADE,
            counts=tuple(counts.get((checkpoint.name, place), 0) for place in range(lowest, highest + 1)),
            dead_count=dead.get(checkpoint.name, 0),
            is_null=checkpoint.role == "null",
        )
        for checkpoint in report.checkpoints
        if checkpoint.name in seen
    ]
    return HistogramChart(
        name="density",
        title="How often latents fire",
        caption="Latents by the share of tokens on which they are active. Dead latents, which never fired "
        "here, are counted beside each histogram.",
        x=Axis("Share of tokens, log10"),
        panels=tuple(panels),
        gaps=histogram_gaps(report, _DEAD_FRACTION, drawn=seen),
    )
