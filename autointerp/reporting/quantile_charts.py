"""EvaluationReport -> scores of explanations over how strongly their latents fire."""

from autointerp.records import EvaluationReport, Measured, MetricDefinition
from autointerp.reporting.chart_gaps import line_gaps
from autointerp.reporting.chart_points import definition_of, metric_axis
from autointerp.reporting.parts import Axis, LineChart, LinePoint

__all__ = ["quantile_charts"]

_DRAWN = (
    ("explanation.detection_auroc", "quantiles-detection", "Detection by strength"),
    ("explanation.fuzzing_auroc", "quantiles-fuzzing", "Fuzzing by strength"),
)


def quantile_charts(report: EvaluationReport) -> list[LineChart]:
    """A chart each score that is measured in at least two ranges of strength; of the headline's explainer."""
    charts = []
    for metric, name, title in _DRAWN:
        definition = definition_of(report, metric)
        chart = None if definition is None else _chart(report, definition, name, title)
        if chart is not None:
            charts.append(chart)
    return charts


def _chart(report: EvaluationReport, definition: MetricDefinition, name: str, title: str) -> LineChart | None:
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    found = [
        (result.checkpoint, int(result.slice["quantile"]), result.outcome.estimate)
        for result in report.results
        if result.metric == definition.name
        and set(result.slice) == {"quantile"}
        and isinstance(result.outcome, Measured)
    ]
    strata = sorted({stratum for _, stratum, _ in found})
    if len(strata) < 2:
        return None
    words = {stratum: str(stratum + 1) for stratum in strata}
    words[strata[0]] += " (weakest)" if strata[0] == 0 else ""
    words[strata[-1]] += " (strongest)"
    return LineChart(
        name=name,
        title=title,
        caption="Active passages of one range of strength against the same random silent ones, so that an "
        "explanation that is right only of the strongest firings falls to the left. Each range holds about "
        "as many of a latent's peaks. 0.5 is chance; means over latents, as the headline's.",
        x=Axis("Range of the activation's strength"),
        y=metric_axis(definition, [estimate for _, _, estimate in found]),
        x_order=tuple(words[stratum] for stratum in strata),
        points=tuple(
            LinePoint(checkpoint, words[stratum], e.value, e.low, e.high, is_null=checkpoint in nulls)
            for checkpoint, stratum, e in found
        ),
        gaps=line_gaps(report, definition.name, "quantile", {str(s): words[s] for s in strata}),
    )
