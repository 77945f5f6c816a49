"""EvaluationReport -> charts of every headline metric against the number of active latents."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from autointerp.records import CheckpointSummary, Estimate, EvaluationReport, MetricDefinition
from autointerp.reporting.chart_gaps import scatter_gaps
from autointerp.reporting.chart_points import (
    DELTA_CE,
    L0,
    NORMALIZED_MSE,
    definition_of,
    metric_axis,
    scatter_point,
    series_of,
)
from autointerp.reporting.comparison import headline
from autointerp.reporting.pareto import on_front
from autointerp.reporting.parts import ScatterChart

__all__ = ["TRADE_OFFS", "TradeOff", "trade_off_charts"]


class TradeOff(NamedTuple):
    """A metric that is bought with active latents, and what its charts are called."""

    metric: str
    name: str
    """The last part of its charts' names."""
    words: str


TRADE_OFFS = (
    TradeOff(NORMALIZED_MSE, "reconstruction", "reconstruction"),
    TradeOff(DELTA_CE, "loss", "the loss it costs the model"),
    TradeOff("probe.loss_nats", "probes", "probe loss"),
    TradeOff("n2g.f1", "graphs", "how well graphs explain"),
    TradeOff("ablation.sparsity", "effects", "how sparse effects are"),
    TradeOff("explanation.detection_auroc", "detection", "explanations, by detection"),
    TradeOff("explanation.fuzzing_auroc", "fuzzing", "explanations, by fuzzing"),
    TradeOff("explanation.simulation_correlation", "simulation", "explanations, by simulation"),
)
"""In the order of the page."""
_GROUP = "Against sparsity"
_BETTER_CORNER = {
    "lower": "Towards the lower left is better: fewer active latents for the same quality.",
    "higher": "Towards the upper left is better: fewer active latents for the same quality.",
}
_FRONT = "Dashed: no other checkpoint does as well with fewer active latents, or better with as many."


def trade_off_charts(report: EvaluationReport) -> list[ScatterChart]:
    """A chart each metric that is measured, together with L0, of at least two checkpoints (nulls apart)."""
    found = [_chart(report, trade_off) for trade_off in TRADE_OFFS]
    charts = [chart for chart in found if chart is not None]
    return [*charts[:1], *(_brief(chart, charts[0]) for chart in charts[1:])]


def _brief(chart: ScatterChart, first: ScatterChart) -> ScatterChart:
    """What all have in common is said once."""
    corner = "" if chart.y.better == "neither" else f"{_BETTER_CORNER[chart.y.better]} "
    return replace(chart, caption=f"{corner}Marks and lines as in “{first.title}”.")


def _chart(report: EvaluationReport, trade_off: TradeOff) -> ScatterChart | None:
    metric = trade_off.metric
    sparsity, quality = definition_of(report, L0), definition_of(report, metric)
    values = headline(report)
    shown = [c for c in report.checkpoints if (c.name, L0) in values and (c.name, metric) in values]
    judged = [checkpoint for checkpoint in shown if checkpoint.role == "checkpoint"]
    if sparsity is None or quality is None or len(judged) < 2:
        return None
    several = len({checkpoint.site for checkpoint in shown}) > 1
    pairs = {c.name: (values[c.name, L0], values[c.name, metric]) for c in shown}
    fronts = _fronts(judged, pairs, quality)
    return ScatterChart(
        name=f"sparsity-{trade_off.name}",
        title=f"Sparsity against {trade_off.words}",
        caption=_caption(quality, has_sites=several),
        x=metric_axis(sparsity, [x for x, _ in pairs.values()]),
        y=metric_axis(quality, [y for _, y in pairs.values()]),
        points=tuple(
            scatter_point(
                c, *pairs[c.name], series=series_of(c, with_site=several), front=fronts.get(c.name, "")
            )
            for c in shown
        ),
        gaps=scatter_gaps(report, L0, metric, drawn=pairs, series=lambda c: series_of(c, with_site=several)),
        group=_GROUP,
    )


def _caption(quality: MetricDefinition, *, has_sites: bool) -> str:
    sentences = [
        "One mark a checkpoint, with the intervals of both numbers.",
        f"Lines join checkpoints of one architecture and width{' on one site' if has_sites else ''}.",
    ]
    if quality.better != "neither":
        sentences += [_BETTER_CORNER[quality.better], _FRONT]
        sentences += ["Each site has its own."] if has_sites else []
    return " ".join(sentences)


def _fronts(
    judged: Sequence[CheckpointSummary],
    pairs: dict[str, tuple[Estimate, Estimate]],
    quality: MetricDefinition,
) -> dict[str, str]:
    """The site of each checkpoint that is on its site's front, by point values."""
    if quality.better == "neither":
        return {}
    fronts: dict[str, str] = {}
    for site in dict.fromkeys(checkpoint.site for checkpoint in judged):
        names = [checkpoint.name for checkpoint in judged if checkpoint.site == site]
        places = [(pairs[name][0].value, pairs[name][1].value) for name in names]
        is_on = on_front(places, better=quality.better)
        fronts |= {name: site for name, found in zip(names, is_on, strict=True) if found}
    return fronts
