"""EvaluationReport and observations -> the charts, as data; a chart -> the table that says the same."""

import math
import re
from collections.abc import Sequence

import polars as pl

from autointerp.records import CheckpointSummary, Estimate, EvaluationReport, Measured, MetricDefinition
from autointerp.reporting import numbers
from autointerp.reporting.comparison import headline
from autointerp.reporting.parts import (
    Axis,
    Cell,
    Chart,
    ChartPoint,
    Column,
    HistogramChart,
    HistogramPanel,
    LineChart,
    LinePoint,
    Row,
    ScatterChart,
    Table,
)

__all__ = ["L0", "alternative", "chart_table", "charts_of", "density_histogram", "scatter_point", "series_of"]

L0 = "reconstruction.l0"
NORMALIZED_MSE = "reconstruction.normalized_mse"
DELTA_CE = "downstream.delta_ce_nats"
LATENT_DENSITY = "reconstruction.latent_density"
_BINS_PER_DECADE = 4
_BETTER_CORNER = {
    "lower": "Towards the lower left is better: fewer active latents for the same quality.",
    "higher": "Towards the upper left is better: fewer active latents for the same quality.",
    "neither": "",
}
_LOG_RATIO = 3.0
"""Values that span more than this are easier to tell apart on a logarithmic axis."""


def charts_of(report: EvaluationReport, observations: pl.DataFrame | None) -> tuple[Chart, ...]:
    """Those charts for which the report has numbers."""
    found = (
        _trade_off(report, NORMALIZED_MSE, "sparsity-reconstruction", "Sparsity against reconstruction"),
        _trade_off(report, DELTA_CE, "sparsity-loss", "Sparsity against the loss it costs the model"),
        _over_positions(report, NORMALIZED_MSE, "positions"),
        _over_positions(report, DELTA_CE, "positions-loss"),
        None if observations is None else density_histogram(report, observations),
    )
    return tuple(chart for chart in found if chart is not None)


def series_of(checkpoint: CheckpointSummary, *, with_site: bool = False) -> str:
    """What shares a colour and is joined by lines: architecture without its numbers, width, and the site.

    The site is named only where there are several.
    """
    site = f" · {checkpoint.site}" if with_site else ""
    if checkpoint.role == "null":
        return f"null{site}"
    family = checkpoint.architecture.partition("(")[0]
    return f"{family} · {numbers.count(checkpoint.latent_count)} latents{site}"


def _definition(report: EvaluationReport, name: str) -> MetricDefinition | None:
    return next((definition for definition in report.definitions if definition.name == name), None)


def _trade_off(report: EvaluationReport, metric: str, name: str, title: str) -> ScatterChart | None:
    sparsity, quality = _definition(report, L0), _definition(report, metric)
    values = headline(report)
    shown = [c for c in report.checkpoints if (c.name, L0) in values and (c.name, metric) in values]
    if sparsity is None or quality is None or not shown:
        return None
    several = len({checkpoint.site for checkpoint in shown}) > 1
    return ScatterChart(
        name=name,
        title=title,
        caption=(
            "One mark a checkpoint, with the intervals of both numbers. Lines join checkpoints of one "
            f"architecture and width{' on one site' if several else ''}. {_BETTER_CORNER[quality.better]}"
        ),
        x=_axis(sparsity, [values[c.name, L0] for c in shown]),
        y=_axis(quality, [values[c.name, metric] for c in shown]),
        points=tuple(
            scatter_point(
                c, values[c.name, L0], values[c.name, metric], series=series_of(c, with_site=several)
            )
            for c in shown
        ),
    )


def _axis(definition: MetricDefinition, estimates: Sequence[Estimate]) -> Axis:
    bounds = [bound for estimate in estimates for bound in (estimate.low, estimate.value, estimate.high)]
    is_log = min(bounds) > 0 and max(bounds) / min(bounds) > _LOG_RATIO
    scale = "log" if is_log else "linear"
    unit = f" ({definition.unit})" if definition.unit else ""
    return Axis(f"{definition.title}{unit}", scale, definition.better)


def scatter_point(checkpoint: CheckpointSummary, x: Estimate, y: Estimate, *, series: str) -> ChartPoint:
    """A checkpoint's place in a scatter chart, with its intervals."""
    return ChartPoint(
        label=checkpoint.name,
        series=series,
        x=x.value,
        x_low=x.low,
        x_high=x.high,
        y=y.value,
        y_low=y.low,
        y_high=y.high,
        is_null=checkpoint.role == "null",
    )


def _over_positions(report: EvaluationReport, metric: str, name: str) -> LineChart | None:
    definition = _definition(report, metric)
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
        y=_axis(definition, [estimate for _, _, estimate in found]),
        x_order=tuple(position.replace("-", "–") for position in order),
        points=tuple(
            LinePoint(name, place.replace("-", "–"), e.value, e.low, e.high, is_null=name in nulls)
            for name, place, e in found
        ),
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
    )


def alternative(chart: Chart) -> str:
    """One or two sentences for whoever cannot see the chart."""
    if chart.kind == "scatter":
        lowest, highest = min(chart.points, key=lambda p: p.y), max(chart.points, key=lambda p: p.y)
        return (
            f"{chart.title}. Scatter chart of {chart.y.title} over {chart.x.title}, "
            f"{len(chart.points)} marks, from {lowest.label} ({numbers.plain(lowest.y)}) "
            f"to {highest.label} ({numbers.plain(highest.y)})."
        )
    if chart.kind == "line":
        lines = len({point.label for point in chart.points})
        places = len(chart.x_order)
        across = f"{chart.x.title} ({places} values)"
        return f"{chart.title}. Line chart of {chart.y.title} over {across}, {lines} lines."
    return f"{chart.title}. {len(chart.panels)} histograms of latents over {chart.x.title}."


def chart_table(chart: Chart) -> Table:
    """The numbers that a chart draws."""
    if chart.kind == "scatter":
        columns, rows = _scatter_table(chart)
    elif chart.kind == "line":
        columns, rows = _line_table(chart)
    else:
        columns, rows = _histogram_table(chart)
    return Table(f"{chart.name}-data", f"Data of “{chart.title}”", columns, rows)


def _number(value: float, low: float, high: float) -> Cell:
    return Cell(numbers.value_with_interval(value, low, high), sort=value, kind="number")


def _scatter_table(chart: ScatterChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    columns = (
        Column("Checkpoint"),
        Column("Series"),
        Column(chart.x.title, is_numeric=True),
        Column(chart.y.title, is_numeric=True),
    )
    rows = tuple(
        Row(
            (
                Cell(p.label, sort=p.label),
                Cell(p.series, sort=p.series),
                _number(p.x, p.x_low, p.x_high),
                _number(p.y, p.y_low, p.y_high),
            ),
            is_null=p.is_null,
        )
        for p in chart.points
    )
    return columns, rows


def _line_table(chart: LineChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    columns = (Column("Checkpoint"), *(Column(x, is_numeric=True) for x in chart.x_order))
    found = {(p.label, p.x): p for p in chart.points}
    nulls = {p.label for p in chart.points if p.is_null}
    rows = []
    for label in dict.fromkeys(p.label for p in chart.points):
        cells = [Cell(label, sort=label)]
        for x in chart.x_order:
            p = found.get((label, x))
            cells.append(_number(p.y, p.y_low, p.y_high) if p else Cell("—", kind="missing"))
        rows.append(Row(tuple(cells), is_null=label in nulls))
    return columns, tuple(rows)


def _histogram_table(chart: HistogramChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    panel = chart.panels[0]
    edges = [panel.start + i * panel.width for i in range(len(panel.counts))]
    columns = (
        Column("Checkpoint"),
        Column("dead", is_numeric=True),
        *(Column(f"{numbers.fixed(edge, 2)}…", is_numeric=True) for edge in edges),
    )
    rows = tuple(
        Row(
            (
                Cell(p.label, sort=p.label),
                *(Cell(numbers.count(n), sort=n, kind="number") for n in (p.dead_count, *p.counts)),
            ),
            is_null=p.is_null,
        )
        for p in chart.panels
    )
    return columns, rows
