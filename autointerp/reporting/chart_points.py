"""What a report says of a checkpoint -> its place, its series and the axes of a chart."""

from collections.abc import Sequence

from autointerp.records import CheckpointSummary, Estimate, EvaluationReport, MetricDefinition
from autointerp.reporting import numbers
from autointerp.reporting.parts import Axis, ChartPoint

__all__ = ["DELTA_CE", "L0", "NORMALIZED_MSE", "definition_of", "metric_axis", "scatter_point", "series_of"]

L0 = "reconstruction.l0"
NORMALIZED_MSE = "reconstruction.normalized_mse"
DELTA_CE = "downstream.delta_ce_nats"
_LOG_RATIO = 3.0
"""Values that span more than this are easier to tell apart on a logarithmic axis."""


def definition_of(report: EvaluationReport, name: str) -> MetricDefinition | None:
    """Of a metric, where the report has it."""
    return next((definition for definition in report.definitions if definition.name == name), None)


def series_of(checkpoint: CheckpointSummary, *, with_site: bool = False) -> str:
    """What shares a colour and is joined by lines: architecture without its numbers, width, and the site.

    The site is named only where there are several.
    """
    site = f" · {checkpoint.site}" if with_site else ""
    if checkpoint.role == "null":
        return f"null{site}"
    family = checkpoint.architecture.partition("(")[0]
    return f"{family} · {numbers.count(checkpoint.latent_count)} latents{site}"


def metric_axis(definition: MetricDefinition, estimates: Sequence[Estimate]) -> Axis:
    """With the unit in its title; logarithmic where values are above 0 and span much."""
    bounds = [bound for estimate in estimates for bound in (estimate.low, estimate.value, estimate.high)]
    is_log = min(bounds) > 0 and max(bounds) / min(bounds) > _LOG_RATIO
    unit = f" ({definition.unit})" if definition.unit else ""
    return Axis(f"{definition.title}{unit}", "log" if is_log else "linear", definition.better)


def scatter_point(
    checkpoint: CheckpointSummary, x: Estimate, y: Estimate, *, series: str, front: str = ""
) -> ChartPoint:
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
        front=front,
    )
