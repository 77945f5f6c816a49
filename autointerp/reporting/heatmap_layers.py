"""A heat map as data -> the layers of its Vega-Lite specification.

One hue from weak to strong, so that the order is seen without any colour sense; values stand in the places,
and places without one are outlined and crossed out.
"""

from typing import Any

import altair as alt

from autointerp.records import Estimate, Measured
from autointerp.reporting import numbers
from autointerp.reporting.parts import HeatCell, HeatLabel, HeatmapChart

__all__ = ["HEAT_COUNT", "heatmap_height", "heatmap_layers"]

HEAT_COUNT = 6
"""Colours that the page has, `--heat-1` the weakest."""
_ROW = 17
_ROOM = 40
_MOST_WITH_VALUES = 16
"""Columns: with more, values would lie on one another."""
_STRONG_FROM = 4
"""From this colour on, text on it is the page's colour."""


def heatmap_height(chart: HeatmapChart) -> int:
    """Pixels, without the axes."""
    return _ROOM + _ROW * len(chart.rows)


def heatmap_layers(chart: HeatmapChart) -> alt.LayerChart:
    """Coloured places, crossed-out places, and values (`names-values`: left out where it is narrow).

    Raises:
        ValueError: the chart has more colours than the page.
    """
    if len(chart.limits) >= HEAT_COUNT:
        raise ValueError(f"{HEAT_COUNT} colours need at most {HEAT_COUNT - 1} limits, got {chart.limits}")
    rows = {label.name: _words(label) for label in chart.rows}
    columns = {label.name: _words(label) for label in chart.columns}
    x = alt.X(
        "column:N",
        sort=list(columns.values()),
        axis=alt.Axis(
            title=None, orient="top", labelAngle=35, labelAlign="right", labelLimit=150, grid=False
        ),
    )
    y = alt.Y("row:N", sort=list(rows.values()), axis=alt.Axis(title=None, grid=False))
    measured = [_measured(chart, cell, rows, columns) for cell in chart.cells if _value(cell) is not None]
    missing = [_missing(cell, rows, columns) for cell in chart.cells if _value(cell) is None]
    layers = []
    if measured:
        layers += _colored(chart, measured, x, y)
    if missing:
        layers += _crossed(chart, missing, x, y)
    return alt.layer(*layers)


def _colored(chart: HeatmapChart, values: list[dict[str, Any]], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    base = alt.Chart(alt.InlineData(values=values)).encode(x, y)
    scale = alt.Scale(type="threshold", domain=list(chart.limits), range=_colors(chart))
    legend = alt.Legend(title=chart.color.title, titleLimit=300, format="~g", symbolType="square")
    places = base.mark_rect(stroke="var(--paper)", strokeWidth=1).encode(
        fill=alt.Fill("value:Q", scale=scale, legend=legend),
        tooltip=[
            alt.Tooltip("row:N", title=chart.y.title.lower()),
            alt.Tooltip("column:N", title=chart.x.title.lower()),
            alt.Tooltip("interval:N", title=chart.color.title),
        ],
    )
    if len(chart.columns) > _MOST_WITH_VALUES:
        return [places]
    words = base.mark_text(fontSize=10).encode(
        text="text:N", color=alt.Color("ink:N", scale=None), tooltip=alt.value(None)
    )
    return [places, words.properties(name="names-values")]


def _crossed(chart: HeatmapChart, values: list[dict[str, Any]], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    base = alt.Chart(alt.InlineData(values=values)).encode(x, y)
    tooltip = [
        alt.Tooltip("row:N", title=chart.y.title.lower()),
        alt.Tooltip("column:N", title=chart.x.title.lower()),
        alt.Tooltip("status:N"),
        alt.Tooltip("reason:N"),
    ]
    places = base.mark_rect(fill="var(--wash)", stroke="var(--null)", strokeDash=[2, 2], strokeWidth=0.7)
    return [
        places.encode(tooltip=tooltip).properties(name="missing"),
        base.mark_text(fontSize=11, text="×", color="var(--ink-2)").encode(tooltip=tooltip),
    ]


def _colors(chart: HeatmapChart) -> list[str]:
    """The strongest for the best, where one direction is better."""
    return [f"var(--heat-{place})" for place in _places(chart)]


def _places(chart: HeatmapChart) -> list[int]:
    rising = [HEAT_COUNT - len(chart.limits) + place for place in range(len(chart.limits) + 1)]
    return rising[::-1] if chart.color.better == "lower" else rising


def _measured(
    chart: HeatmapChart, cell: HeatCell, rows: dict[str, str], columns: dict[str, str]
) -> dict[str, Any]:
    estimate = _value(cell)
    assert estimate is not None
    place = _places(chart)[sum(estimate.value >= limit for limit in chart.limits)]
    return {
        "row": rows[cell.row],
        "column": columns[cell.column],
        "value": estimate.value,
        "text": numbers.fixed(estimate.value, 2),
        "interval": numbers.value_with_interval(estimate.value, estimate.low, estimate.high),
        "ink": "var(--paper)" if place >= _STRONG_FROM else "var(--ink)",
    }


def _missing(cell: HeatCell, rows: dict[str, str], columns: dict[str, str]) -> dict[str, Any]:
    return {
        "row": rows[cell.row],
        "column": columns[cell.column],
        "status": cell.outcome.status,
        "reason": getattr(cell.outcome, "reason", ""),
    }


def _value(cell: HeatCell) -> Estimate | None:
    return cell.outcome.estimate if isinstance(cell.outcome, Measured) else None


def _words(label: HeatLabel) -> str:
    return f"{label.name} · {label.mark}" if label.mark else label.name
