"""EvaluationReport -> headline metrics from site to site, where checkpoints sit on several."""

import re
from collections.abc import Iterable, Mapping, Sequence

from autointerp.records import CheckpointSummary, Estimate, EvaluationReport, MetricDefinition
from autointerp.reporting import numbers
from autointerp.reporting.chart_points import DELTA_CE, NORMALIZED_MSE
from autointerp.reporting.comparison import headline
from autointerp.reporting.parts import Axis, Cell, Column, LineChart, LinePoint, Part, Row, Section, Table
from autointerp.reporting.summary import headline_definitions, headline_outcomes, measure_cell

__all__ = ["layer_sections", "site_order"]

_DRAWN = (NORMALIZED_MSE, DELTA_CE)
_LOG_RATIO = 3.0
"""Values that span more than this are easier to tell apart on a logarithmic axis."""


def layer_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where all checkpoints sit on one site."""
    sites = site_order(
        checkpoint.site for checkpoint in report.checkpoints if checkpoint.role == "checkpoint"
    )
    if len(sites) < 2:
        return ()
    lines = _lines(report.checkpoints)
    parts: list[Part] = [_table(report, sites, lines)]
    definitions = {definition.name: definition for definition in report.definitions}
    charts = [_chart(report, definitions[name], sites, lines) for name in _DRAWN if name in definitions]
    parts += [chart for chart in charts if chart is not None]
    return (
        Section(
            name="layers",
            title="From site to site",
            lead="Headline metrics in the order of the sites. Lines join checkpoints of one architecture "
            "and width. Sites differ in what there is to rebuild: in the paper the error falls in the last "
            "layers while the loss that it costs rises throughout (Gao et al. 2024, Fig. 27).",
            parts=tuple(parts),
        ),
    )


def site_order(sites: Iterable[str]) -> tuple[str, ...]:
    """Different sites, by the numbers in their names, then by name: block 2 before block 10."""
    return tuple(sorted(dict.fromkeys(sites), key=_natural))


def _natural(site: str) -> tuple[tuple[int, ...], str]:
    return tuple(int(number) for number in re.findall(r"\d{1,9}", site)), site


def _lines(checkpoints: Sequence[CheckpointSummary]) -> dict[str, str]:
    """The line of each checkpoint: architecture and width, or its name where a site has several of these."""
    shape = {c.name: _shape(c) for c in checkpoints}
    places = [(shape[c.name], c.site) for c in checkpoints]
    doubled = {line for line, site in places if places.count((line, site)) > 1}
    return {name: name if line in doubled else line for name, line in shape.items()}


def _shape(checkpoint: CheckpointSummary) -> str:
    if checkpoint.role == "null":
        return f"null · {checkpoint.architecture} · {numbers.count(checkpoint.latent_count)} latents"
    return f"{checkpoint.architecture} · {numbers.count(checkpoint.latent_count)} latents"


def _table(report: EvaluationReport, sites: Sequence[str], lines: Mapping[str, str]) -> Table:
    definitions = headline_definitions(report)
    outcomes = headline_outcomes(report)
    order = {site: place for place, site in enumerate(sites)}
    shown = sorted(
        (c for c in report.checkpoints if c.site in order),
        key=lambda c: (c.role == "null", lines[c.name], order[c.site]),
    )
    columns = [Column("Site"), Column("Checkpoint")]
    columns += [Column(d.title, d.unit, d.better, d.meaning, is_numeric=True) for d in definitions]
    rows = tuple(
        Row(
            (
                Cell(checkpoint.site, sort=order[checkpoint.site]),
                Cell(checkpoint.name, sort=checkpoint.name, detail=lines[checkpoint.name]),
                *(measure_cell(outcomes.get((checkpoint.name, d.name))) for d in definitions),
            ),
            is_null=checkpoint.role == "null",
        )
        for checkpoint in shown
    )
    return Table("layers", "Headline metrics by site", tuple(columns), rows, is_filterable=len(rows) > 12)


def _chart(
    report: EvaluationReport, definition: MetricDefinition, sites: Sequence[str], lines: Mapping[str, str]
) -> LineChart | None:
    values = headline(report)
    shown = [c for c in report.checkpoints if (c.name, definition.name) in values and c.site in sites]
    if len({checkpoint.site for checkpoint in shown}) < 2:
        return None
    estimates = [values[c.name, definition.name] for c in shown]
    points = tuple(
        LinePoint(lines[c.name], c.site, e.value, e.low, e.high, is_null=c.role == "null")
        for c, e in zip(shown, estimates, strict=True)
    )
    unit = f" ({definition.unit})" if definition.unit else ""
    return LineChart(
        name=f"layers-{definition.name.partition('.')[2].replace('_', '-')}",
        title=f"{definition.title} by site",
        caption="One line for each architecture and width, in the order of the sites.",
        x=Axis("Site"),
        y=Axis(f"{definition.title}{unit}", "log" if _is_wide(estimates) else "linear", definition.better),
        x_order=tuple(sites),
        points=points,
    )


def _is_wide(estimates: Sequence[Estimate]) -> bool:
    bounds = [bound for estimate in estimates for bound in (estimate.low, estimate.value, estimate.high)]
    return min(bounds) > 0 and max(bounds) / min(bounds) > _LOG_RATIO
