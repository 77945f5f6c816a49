"""A chart -> its numbers as a table, and a sentence for whoever cannot see it."""

from autointerp.records import Measured, Outcome
from autointerp.reporting import numbers
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.parts import (
    Badge,
    Cell,
    Chart,
    ChartPoint,
    Column,
    HeatLabel,
    HeatmapChart,
    HistogramChart,
    LineChart,
    Row,
    ScatterChart,
    Table,
)
from autointerp.reporting.token_text import visible

__all__ = ["alternative", "chart_table", "gap_words"]

_MOST_NAMED = 5
_LONGEST_NAME = 48


def alternative(chart: Chart) -> str:
    """A few sentences for whoever cannot see the chart."""
    return f"{_words(chart)} {gap_words(chart)}".strip()


def _words(chart: Chart) -> str:
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
    if chart.kind == "heatmap":
        return _heatmap_words(chart)
    return f"{chart.title}. {len(chart.panels)} histograms of latents over {chart.x.title}."


def gap_words(chart: Chart) -> str:
    """A sentence on which checkpoints lack numbers; empty where none does, or where the chart shows it."""
    if chart.kind == "heatmap" or not chart.gaps:
        return ""
    names = list(dict.fromkeys(gap.label for gap in chart.gaps))
    shown = [shown_text(name, _LONGEST_NAME) for name in names[:_MOST_NAMED]]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"Not drawn, wholly or in places: {', '.join(shown)}{more}; the table says why."


def chart_table(chart: Chart) -> Table:
    """The numbers that a chart draws."""
    if chart.kind == "scatter":
        columns, rows = _scatter_table(chart)
    elif chart.kind == "line":
        columns, rows = _line_table(chart)
    elif chart.kind == "heatmap":
        columns, rows = _heatmap_table(chart)
    else:
        columns, rows = _histogram_table(chart)
    return Table(f"{chart.name}-data", f"Data of “{chart.title}”", columns, rows)


def _number(value: float, low: float, high: float) -> Cell:
    return Cell(numbers.value_with_interval(value, low, high), sort=value, kind="number")


def _heatmap_words(chart: HeatmapChart) -> str:
    missing = sum(not isinstance(cell.outcome, Measured) for cell in chart.cells)
    without = f", {missing} of them without a number" if missing else ""
    return (
        f"{chart.title}. Heat map of {chart.color.title}, {chart.color.better} is better: {len(chart.rows)} "
        f"rows ({chart.y.title}) by {len(chart.columns)} columns ({chart.x.title}){without}."
    )


def _scatter_table(chart: ScatterChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    columns = [
        Column("Checkpoint"),
        Column("Series"),
        Column(chart.x.title, is_numeric=True),
        Column(chart.y.title, is_numeric=True),
    ]
    if chart.has_front:
        columns.append(
            Column("On the front", hint="no other checkpoint of the site beats it in both numbers")
        )
    rows = []
    for p in chart.points:
        cells = [
            Cell(p.label, sort=p.label),
            Cell(p.series, sort=p.series),
            _number(p.x, p.x_low, p.x_high),
            _number(p.y, p.y_low, p.y_high),
        ]
        if chart.has_front:
            cells.append(_front_cell(p))
        rows.append(Row(tuple(cells), is_null=p.is_null))
    for gap in chart.gaps:
        cells = [
            Cell(gap.label, sort=gap.label),
            Cell(gap.series, sort=gap.series),
            _outcome_cell(gap.x),
            _outcome_cell(gap.y),
        ]
        front = [Cell("—", kind="missing")] if chart.has_front else []
        rows.append(Row((*cells, *front), is_null=gap.is_null))
    return tuple(columns), tuple(rows)


def _front_cell(point: ChartPoint) -> Cell:
    if point.is_null:
        return Cell("—", kind="missing", hint="nulls do not compete")
    word = "yes" if point.front else "no"
    return Cell(word, sort=word)


def _line_table(chart: LineChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    columns = (Column("Checkpoint"), *(Column(x, is_numeric=True) for x in chart.x_order))
    found = {(p.label, p.x): p for p in chart.points}
    gaps = {(gap.label, gap.x): gap.outcome for gap in chart.gaps}
    nulls = {each.label for each in (*chart.points, *chart.gaps) if each.is_null}
    rows = []
    for label in dict.fromkeys(each.label for each in (*chart.points, *chart.gaps)):
        cells = [Cell(label, sort=label)]
        for x in chart.x_order:
            p = found.get((label, x))
            cells.append(_number(p.y, p.y_low, p.y_high) if p else _outcome_cell(gaps.get((label, x))))
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
    nothing = [Cell("—", kind="missing")] * len(edges)
    missing = tuple(
        Row((Cell(gap.label, sort=gap.label), _outcome_cell(gap.outcome), *nothing), is_null=gap.is_null)
        for gap in chart.gaps
    )
    return columns, rows + missing


def _heatmap_table(chart: HeatmapChart) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    better = chart.color.better
    columns = (
        Column(chart.y.title),
        *(Column(_marked(label), better=better, is_numeric=True) for label in chart.columns),
    )
    found = {(cell.row, cell.column): cell.outcome for cell in chart.cells}
    rows = tuple(
        Row(
            (
                Cell(row.name, sort=row.name, badges=(Badge(row.mark),) if row.mark else ()),
                *(_outcome_cell(found.get((row.name, column.name))) for column in chart.columns),
            )
        )
        for row in chart.rows
    )
    return columns, rows


def _marked(label: HeatLabel) -> str:
    return f"{label.name} ({label.mark})" if label.mark else label.name


def _outcome_cell(outcome: Outcome | None) -> Cell:
    if isinstance(outcome, Measured):
        return _number(outcome.estimate.value, outcome.estimate.low, outcome.estimate.high)
    if outcome is None:
        return Cell("—", kind="missing")
    badge = Badge(outcome.status, "bad" if outcome.status == "failed" else "neutral")
    return Cell("", kind="missing", detail=visible(outcome.reason), badges=(badge,))
