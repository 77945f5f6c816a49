"""EvaluationReport -> charts of headline metrics over the number of latents, where a suite spans it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from autointerp.records import CheckpointSummary, Estimate, EvaluationReport, Measured
from autointerp.reporting import numbers
from autointerp.reporting.chart_points import L0, NORMALIZED_MSE, definition_of, metric_axis
from autointerp.reporting.comparison import headline
from autointerp.reporting.parts import Axis, ChartCurve, ChartPoint, ScatterChart, ScatterGap
from autointerp.reporting.summary import headline_outcomes
from autointerp.reporting.trade_offs import TRADE_OFFS, TradeOff

__all__ = ["width_charts"]

_SAME_SPARSITY = 1.05
"""Checkpoints whose L0 differ by less than this factor count as of one k, as for the laws."""
_LEAST_WIDTHS = 3
_CURVE_PLACES = 25
_GROUP = "Against width"
_LAW = "Dotted: the power law in width of that k, see the section on scaling."


class _Family(NamedTuple):
    """Checkpoints that differ in width alone."""

    series: str
    key: tuple[str, str, float]
    """Site, architecture and k, as the laws have them."""
    members: tuple[CheckpointSummary, ...]


def width_charts(report: EvaluationReport) -> list[ScatterChart]:
    """A chart each metric of which one architecture has three widths or more at one k, on one site."""
    values = headline(report)
    found = [_chart(report, trade_off, values) for trade_off in TRADE_OFFS]
    return [chart for chart in found if chart is not None]


def _chart(
    report: EvaluationReport, trade_off: TradeOff, values: Mapping[tuple[str, str], Estimate]
) -> ScatterChart | None:
    definition = definition_of(report, trade_off.metric)
    families = _families(report, trade_off.metric, values)
    if definition is None or not families:
        return None
    shown = [(family, member) for family in families for member in family.members]
    estimates = [values[member.name, definition.name] for _, member in shown]
    curves = _curves(report, families) if definition.name == NORMALIZED_MSE else ()
    return ScatterChart(
        name=f"width-{trade_off.name}",
        title=f"Width against {trade_off.words}",
        caption="Checkpoints of one architecture and k that differ in width, with their intervals; lines "
        f"join those of one k. {_LAW if curves else ''}".strip(),
        x=Axis("Latents", "log"),
        y=metric_axis(definition, estimates),
        points=tuple(
            _point(member, estimate, family.series)
            for (family, member), estimate in zip(shown, estimates, strict=True)
        ),
        curves=curves,
        gaps=_gaps(report, definition.name, families),
        group=_GROUP,
    )


def _gaps(report: EvaluationReport, metric: str, families: Sequence[_Family]) -> tuple[ScatterGap, ...]:
    """Checkpoints of a drawn architecture of which a number is not there: they may belong to a line."""
    outcomes = headline_outcomes(report)
    drawn = {family.key[:2] for family in families}
    gaps = []
    for c in report.checkpoints:
        architecture = c.architecture.partition("(")[0]
        if c.role != "checkpoint" or (c.site, architecture) not in drawn:
            continue
        found = [outcomes.get((c.name, name)) for name in (metric, L0)]
        missing = [outcome for outcome in found if not isinstance(outcome, Measured)]
        if missing:
            series = f"{architecture} · {numbers.count(c.latent_count)} latents"
            gaps.append(ScatterGap(c.name, series, None, missing[0]))
    return tuple(gaps)


def _families(
    report: EvaluationReport, metric: str, values: Mapping[tuple[str, str], Estimate]
) -> list[_Family]:
    has_sites = len({checkpoint.site for checkpoint in report.checkpoints}) > 1
    shapes: dict[tuple[str, str], list[CheckpointSummary]] = {}
    for c in report.checkpoints:
        if c.role == "checkpoint" and (c.name, L0) in values and (c.name, metric) in values:
            shapes.setdefault((c.site, c.architecture.partition("(")[0]), []).append(c)
    families = []
    for (site, architecture), members in shapes.items():
        sparsity = {member.name: values[member.name, L0].value for member in members}
        for k, names in _levels(sparsity):
            chosen = tuple(member for member in members if member.name in names)
            if len({member.latent_count for member in chosen}) >= _LEAST_WIDTHS:
                series = (
                    f"{architecture} · k = {numbers.plain(round(k, 1))}{f' · {site}' if has_sites else ''}"
                )
                families.append(_Family(series, (site, architecture, k), chosen))
    return families


def _levels(sparsity: Mapping[str, float]) -> list[tuple[float, set[str]]]:
    """Each k, the least of those within 5 % above it, with the names that share it; rising."""
    levels: list[tuple[float, set[str]]] = []
    for name in sorted(sparsity, key=lambda name: sparsity[name]):
        if not levels or sparsity[name] >= _SAME_SPARSITY * levels[-1][0]:
            levels.append((sparsity[name], set()))
        levels[-1][1].add(name)
    return levels


def _point(checkpoint: CheckpointSummary, estimate: Estimate, series: str) -> ChartPoint:
    width = float(checkpoint.latent_count)
    return ChartPoint(
        label=checkpoint.name,
        series=series,
        x=width,
        x_low=width,
        x_high=width,
        y=estimate.value,
        y_low=estimate.low,
        y_high=estimate.high,
    )


def _curves(report: EvaluationReport, families: Sequence[_Family]) -> tuple[ChartCurve, ...]:
    """The power law of each family that one could be fitted to."""
    laws = {
        (group["site"], group["architecture"], fit["k"]): fit
        for group in (report.studies.get("scaling") or {}).get("groups", ())
        for fit in group["fits"]
        if fit["law"] == "power" and fit["status"] == "measured"
    }
    return tuple(
        ChartCurve(family.series, _power_law(laws[family.key], family.members))
        for family in families
        if family.key in laws
    )


def _power_law(
    fit: Mapping[str, Any], members: Sequence[CheckpointSummary]
) -> tuple[tuple[float, float], ...]:
    constants = {constant["name"]: constant["value"] for constant in fit["constants"]}
    widths = [member.latent_count for member in members]
    first, last = math.log(min(widths)), math.log(max(widths))
    places = [first + (last - first) * step / (_CURVE_PLACES - 1) for step in range(_CURVE_PLACES)]
    return tuple(
        (math.exp(place), math.exp(constants["alpha"] + constants["beta_n"] * place)) for place in places
    )
