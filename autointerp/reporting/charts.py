"""Charts as data -> Vega-Lite specifications, and these -> pictures.

Colours are CSS variables (`var(--series-1)`), so that one specification is readable on light and dark pages
and on paper; `chart_svg` and `chart_png`, which know no page, put the light theme's colours in their place.
"""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from autointerp.reporting.chart_tables import alternative
from autointerp.reporting.heatmap_layers import heatmap_height, heatmap_layers
from autointerp.reporting.label_places import Spot, label_places
from autointerp.reporting.parts import (
    Axis,
    Chart,
    HistogramChart,
    HistogramPanel,
    LineChart,
    ScatterChart,
)
from autointerp.reporting.token_text import harmless

__all__ = ["LIGHT_COLORS", "chart_png", "chart_svg", "log_ticks", "vega_lite_specs"]

SERIES_COUNT = 8
LIGHT_COLORS = {
    "--paper": "#ffffff",
    "--wash": "#f6f7f9",
    "--ink": "#1b1f24",
    "--ink-2": "#59626d",
    "--line": "#dfe3e8",
    "--null": "#8a939e",
    "--series-1": "#2563c9",
    "--series-2": "#c2410c",
    "--series-3": "#0f8a6a",
    "--series-4": "#8b3fc1",
    "--series-5": "#a87a00",
    "--series-6": "#c2256b",
    "--series-7": "#0b87b0",
    "--series-8": "#5b6b1f",
    "--heat-1": "#edf3fc",
    "--heat-2": "#c6daf4",
    "--heat-3": "#8fb8ea",
    "--heat-4": "#3874c0",
    "--heat-5": "#225a9f",
    "--heat-6": "#0e3566",
}
"""The light theme, for pictures that stand outside a page; the page's style sheet holds the same values."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_MOST_LABELS = 14
"""With more marks than this, names beside them would lie on one another."""
_LOG_MARGIN = 1.25
_LINEAR_MARGIN = 0.06
_HEIGHT = 380
_PICTURE_WIDTH = 640
_LONGEST_ENTRY = 260
_NARROWEST = 480
"""Of a plot with names beside its marks, without its axes: the page leaves them out where it has less."""
_PANEL_HEIGHT = 130


def vega_lite_specs(chart: Chart) -> list[dict[str, Any]]:
    """Specifications to be drawn side by side: one, or for histograms one a panel, with common axes."""
    if chart.kind == "scatter":
        return [_finish(_scatter(chart), chart)]
    if chart.kind == "line":
        return [_finish(_lines(chart), chart)]
    if chart.kind == "heatmap":
        return [_finish(heatmap_layers(chart), chart, height=heatmap_height(chart))]
    return [_finish(_panel(panel, chart), chart, height=_PANEL_HEIGHT) for panel in chart.panels]


def chart_svg(spec: dict[str, Any]) -> str:
    """An SVG of one specification, in the light theme's colours."""
    return vl_convert.vegalite_to_svg(_with_light_colors(spec))


def chart_png(spec: dict[str, Any], *, scale: float = 2.0) -> bytes:
    """A PNG of one specification, in the light theme's colours."""
    return vl_convert.vegalite_to_png(_with_light_colors(spec), scale=scale)


def _with_light_colors(spec: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps({**spec, "background": "#ffffff"})
    for name, color in LIGHT_COLORS.items():
        text = text.replace(f"var({name})", color)
    resolved = json.loads(text)
    if resolved.get("width") == "container":
        resolved["width"] = _PICTURE_WIDTH
    return resolved


def _finish(chart: alt.LayerChart, source: Chart, *, height: int = _HEIGHT) -> dict[str, Any]:
    """The common dress, and the text alternative."""
    spec = chart.properties(width="container", height=height, background="transparent").to_dict()
    spec = _harmless(spec)
    spec["description"] = harmless(alternative(source))
    entry = _legend_entry(source)
    spec["config"] = _config(legend_columns=max(1, _PICTURE_WIDTH // entry))
    spec["usermeta"] = {"legendEntry": entry}  # pixels: the page has as many columns as its width allows
    return spec


def _harmless(part: Any) -> Any:
    """Names come from outside: what would turn the words around it is shown instead."""
    if isinstance(part, str):
        return harmless(part)
    if isinstance(part, list):
        return [_harmless(each) for each in part]
    if isinstance(part, dict):
        return {key: _harmless(value) for key, value in part.items()}
    return part


def _legend_entry(chart: Chart) -> int:
    """How wide one entry of the legend is, about."""
    names: set[str] = set()
    if chart.kind == "scatter":
        names = {point.series for point in chart.points}
    elif chart.kind == "line":
        names = {point.label for point in chart.points}
    longest = max((len(name) for name in names), default=0)
    return min(round(6.4 * longest), _LONGEST_ENTRY) + 28


def _config(*, legend_columns: int) -> dict[str, Any]:
    axis = {
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--line)",
        "labelColor": "var(--ink-2)",
        "titleColor": "var(--ink-2)",
        "titleFontWeight": 500,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titlePadding": 8,
        "labelFlush": False,
        "titleLimit": 340,
    }
    legend = {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink-2)",
        "labelFontSize": 12,
        "orient": "top",
        "direction": "horizontal",
        "columns": legend_columns,
        "labelLimit": _LONGEST_ENTRY,
        "symbolSize": 90,
        "symbolLimit": 0,  # by itself Vega leaves out all after the thirtieth
        "title": None,
    }
    return {
        "font": _FONT,
        "axisY": {"labelLimit": 200},
        "view": {"stroke": None},
        "axis": axis,
        "legend": legend,
        "title": {"anchor": "start", "color": "var(--ink)", "fontSize": 14, "offset": 12},
    }


def _scale(axis: Axis, bounds: Sequence[float]) -> alt.Scale:
    """A domain a little wider than what is drawn."""
    return alt.Scale(type=axis.scale, domain=list(_domain(axis, bounds)), nice=False)


def _domain(axis: Axis, bounds: Sequence[float]) -> tuple[float, float]:
    low, high = min(bounds), max(bounds)
    if axis.scale == "log":
        return low / _LOG_MARGIN, high * _LOG_MARGIN
    margin = _LINEAR_MARGIN * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _axis(axis: Axis, bounds: Sequence[float]) -> alt.Axis:
    title = axis.title if axis.better == "neither" else f"{axis.title}, {axis.better} is better"
    if axis.scale == "linear":
        return alt.Axis(title=title, format="~g", tickCount=6, grid=True)
    return alt.Axis(title=title, format=".3~r", values=log_ticks(*_domain(axis, bounds)), grid=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in [low, high]: of the steps 1, then 1-2-5, then 1 to 9, the first to give three."""
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _series_colors(names: Sequence[str], nulls: set[str]) -> alt.Scale:
    """A colour each series in order of appearance; nulls are grey and take none away."""
    colors, used = [], 0
    for name in names:
        colors.append("var(--null)" if name in nulls else f"var(--series-{used % SERIES_COUNT + 1})")
        used += name not in nulls
    return alt.Scale(domain=list(names), range=colors)


def _scatter(chart: ScatterChart) -> alt.LayerChart:
    names = list(dict.fromkeys(point.series for point in chart.points))
    nulls = {point.series for point in chart.points if point.is_null}
    chosen = alt.selection_point(name="chosen", fields=["series"], bind="legend")
    across = [bound for point in chart.points for bound in (point.x_low, point.x, point.x_high)]
    along = [bound for point in chart.points for bound in (point.y_low, point.y, point.y_high)]
    x_scale, y_scale = _scale(chart.x, across), _scale(chart.y, along)
    x_axis, y_axis = _axis(chart.x, across), _axis(chart.y, along)
    x, y = alt.X("x:Q", scale=x_scale, axis=x_axis), alt.Y("y:Q", scale=y_scale, axis=y_axis)
    base = alt.Chart(alt.InlineData(values=[vars(point) for point in chart.points])).encode(
        color=alt.Color("series:N", scale=_series_colors(names, nulls)),
        opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.15)),
    )
    shape = alt.Shape("series:N", scale=_series_shapes(names, nulls))
    marks = base.mark_point(size=70, strokeWidth=2, fill="var(--paper)")
    layers = [
        *_front(chart, x, y),
        *_curves(chart, x, y, _series_colors(names, nulls)),
        base.mark_line(strokeWidth=1.2, opacity=0.45).encode(x, y, order=alt.Order("x:Q")),
        marks.encode(x, y, shape, tooltip=_scatter_tooltip(chart)).add_params(chosen),
        base.mark_rule(strokeWidth=1.8).encode(
            x, alt.Y("y_low:Q", scale=y_scale, axis=y_axis), alt.Y2("y_high:Q")
        ),
        base.mark_rule(strokeWidth=1.8).encode(
            alt.X("x_low:Q", scale=x_scale, axis=x_axis), alt.X2("x_high:Q"), y
        ),
    ]
    if len(chart.points) <= _MOST_LABELS:
        layers += _names_beside(chart, x, y, _spots(chart, across, along))
    return alt.layer(*layers)


def _front(chart: ScatterChart, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """A staircase through what no other checkpoint of a site beats: all that lies beyond it is beaten."""
    values = [{"site": p.front, "x": p.x, "y": p.y} for p in chart.points if p.front]
    if not values:
        return []
    look = {"interpolate": "step-after", "strokeDash": [5, 4], "strokeWidth": 1.1, "color": "var(--ink-2)"}
    base = alt.Chart(alt.InlineData(values=values), name="front")
    return [base.mark_line(**look).encode(x, y, detail="site:N", order=alt.Order("x:Q"))]


def _curves(chart: ScatterChart, x: alt.X, y: alt.Y, colors: alt.Scale) -> list[alt.Chart]:
    values = [
        {"series": curve.series, "x": across, "y": along}
        for curve in chart.curves
        for across, along in curve.places
    ]
    if not values:
        return []
    base = alt.Chart(alt.InlineData(values=values), name="curves")
    line = base.mark_line(strokeDash=[1, 4], strokeCap="round", strokeWidth=2)
    return [line.encode(x, y, color=alt.Color("series:N", scale=colors), order=alt.Order("x:Q"))]


def _names_beside(chart: ScatterChart, x: alt.X, y: alt.Y, spots: Sequence[Spot]) -> list[alt.Chart]:
    """Names next to the marks, each twice: a halo in the page's colour keeps lines from crossing letters."""
    places = label_places(spots, width=_NARROWEST, height=_HEIGHT)
    layers = []
    for number, place in enumerate(dict.fromkeys(place for place in places if place)):
        found = [point for point, other in zip(chart.points, places, strict=True) if other == place]
        values = [{"label": point.label, "x": point.x, "y": point.y} for point in found]
        base = alt.Chart(alt.InlineData(values=values), name=f"names-{number}").encode(x, y, text="label:N")
        look = {"align": place.align, "dx": place.dx, "dy": place.dy, "fontSize": 11, "limit": 190}
        halo = base.mark_text(**look, color="var(--paper)", stroke="var(--paper)", strokeWidth=3)
        layers += [halo.properties(name=f"names-{number}-halo"), base.mark_text(**look, color="var(--ink-2)")]
    return layers


def _spots(chart: ScatterChart, across: Sequence[float], along: Sequence[float]) -> list[Spot]:
    """Where marks stand in the narrowest plot that has names."""
    return [
        Spot(
            _NARROWEST * _fraction(chart.x, across, point.x),
            _HEIGHT * (1 - _fraction(chart.y, along, point.y)),
            point.label,
        )
        for point in chart.points
    ]


def _fraction(axis: Axis, bounds: Sequence[float], value: float) -> float:
    """Of the axis' length."""
    low, high = _domain(axis, bounds)
    if axis.scale == "log":
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _scatter_tooltip(chart: ScatterChart) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("series:N"),
        alt.Tooltip("x:Q", title=chart.x.title, format=".4~g"),
        alt.Tooltip("y:Q", title=chart.y.title, format=".4~g"),
        alt.Tooltip("y_low:Q", title="from", format=".4~g"),
        alt.Tooltip("y_high:Q", title="to", format=".4~g"),
    ]


def _series_shapes(names: Sequence[str], nulls: set[str]) -> alt.Scale:
    """A shape each series, so that colour is never the only difference; nulls are crosses."""
    shapes = itertools.cycle(("circle", "square", "triangle-up", "diamond", "triangle-down"))
    return alt.Scale(domain=list(names), range=["cross" if name in nulls else next(shapes) for name in names])


def _lines(chart: LineChart) -> alt.LayerChart:
    names = list(dict.fromkeys(point.label for point in chart.points))
    nulls = {point.label for point in chart.points if point.is_null}
    chosen = alt.selection_point(name="chosen", fields=["label"], bind="legend")
    bounds = [bound for point in chart.points for bound in (point.y_low, point.y, point.y_high)]
    y_scale = _scale(chart.y, bounds)
    x = alt.X(
        "x:O",
        sort=list(chart.x_order),
        axis=alt.Axis(title=chart.x.title, labelAngle=0, grid=False),
        scale=alt.Scale(type="point", padding=0.4),
    )
    y_axis = _axis(chart.y, bounds)
    y = alt.Y("y:Q", scale=y_scale, axis=y_axis)
    base = alt.Chart(alt.InlineData(values=[vars(point) for point in chart.points])).encode(
        color=alt.Color("label:N", scale=_series_colors(names, nulls)),
        xOffset=alt.XOffset("label:N", sort=names, scale=alt.Scale(type="point", range=_side_by_side(names))),
        opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.12)),
    )
    dashes = alt.StrokeDash(
        "is_null:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 4]]), legend=None
    )
    return alt.layer(
        base.mark_line(strokeWidth=1.8).encode(x, y, dashes),
        base.mark_rule(strokeWidth=1.6).encode(
            x, alt.Y("y_low:Q", scale=y_scale, axis=y_axis), alt.Y2("y_high:Q")
        ),
        base.mark_point(size=48, filled=True).encode(x, y, tooltip=_line_tooltip(chart)).add_params(chosen),
    )


def _side_by_side(names: Sequence[str]) -> list[float]:
    """From where to where the marks of one place are spread, in pixels: their bars stay apart."""
    reach = min(2.5 * (len(names) - 1), 10.0)
    return [-reach, reach]


def _line_tooltip(chart: LineChart) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("x:O", title=chart.x.title),
        alt.Tooltip("y:Q", title=chart.y.title, format=".4~g"),
        alt.Tooltip("y_low:Q", title="from", format=".4~g"),
        alt.Tooltip("y_high:Q", title="to", format=".4~g"),
    ]


def _panel(panel: HistogramPanel, chart: HistogramChart) -> alt.LayerChart:
    """One histogram; the axes span all panels, so that they can be compared by eye."""
    tallest = max(max(other.counts) for other in chart.panels)
    end = panel.start + panel.width * len(panel.counts)
    rows = [
        {"from": panel.start + i * panel.width, "to": panel.start + (i + 1) * panel.width, "latents": n}
        for i, n in enumerate(panel.counts)
    ]
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(color="var(--null)" if panel.is_null else "var(--series-1)", binSpacing=1)
        .encode(
            alt.X(
                "from:Q",
                bin="binned",
                scale=alt.Scale(domain=[panel.start, end], nice=False),
                axis=alt.Axis(title=chart.x.title, grid=False, tickMinStep=1, format="~g", tickCount=6),
            ),
            alt.X2("to:Q"),
            alt.Y(
                "latents:Q",
                scale=alt.Scale(domain=[0, tallest]),
                axis=alt.Axis(title="latents", tickCount=3, format="~s"),
            ),
            tooltip=[alt.Tooltip("from:Q"), alt.Tooltip("to:Q"), alt.Tooltip("latents:Q")],
        )
    )
    return alt.layer(bars)
