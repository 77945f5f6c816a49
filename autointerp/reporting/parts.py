"""What a report document is made of: sections, tables, charts and boxes, as data without any markup."""

from dataclasses import dataclass
from typing import Literal

from autointerp.records import Better, Outcome

__all__ = [
    "Axis",
    "Badge",
    "Callout",
    "Cell",
    "ChartCurve",
    "ChartGap",
    "ChartPoint",
    "Code",
    "Column",
    "HeatCell",
    "HeatLabel",
    "HeatmapChart",
    "HistogramChart",
    "HistogramPanel",
    "LineChart",
    "LinePoint",
    "Link",
    "Part",
    "RangeBar",
    "ReportDocument",
    "Row",
    "ScatterChart",
    "ScatterGap",
    "Section",
    "Table",
]

Tone = Literal["neutral", "good", "bad", "null"]

_FEWEST_TO_HIDE, _MOST_ROWS, _MOST_COLUMNS = 3, 12, 5


@dataclass(frozen=True)
class RangeBar:
    """Where an interval lies within its column's scale; all in [0, 1], 0 at the left."""

    low: float
    value: float
    high: float
    beyond: Literal["", "left", "right"] = ""
    """The value lies outside the scale, on this side: a null must not squeeze the others together."""
    has_middle: bool = False
    """The middle is marked: no difference."""


@dataclass(frozen=True)
class Badge:
    """A word in a small box."""

    text: str
    tone: Tone = "neutral"
    hint: str = ""


@dataclass(frozen=True)
class Link:
    """A text that leads to a place in the page."""

    text: str
    target: str
    """`#latents/NAME/47`; empty where there is no such place: then the text alone is shown."""


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and what it is sorted by."""

    text: str
    sort: float | int | str | None = None
    """None sorts last in either direction."""
    kind: Literal["text", "number", "code", "missing"] = "text"
    detail: str = ""
    """A second, smaller line: the interval, or why there is no number."""
    half_width: str = ""
    """`±0.008`: half of the interval's width, for where there is no room for `detail`."""
    hint: str = ""
    """The long form, shown when the pointer rests on it."""
    bar: RangeBar | None = None
    badges: tuple[Badge, ...] = ()
    sparkline: tuple[float, ...] = ()
    """Heights in [0, 1] of a small bar chart."""
    links: tuple[Link, ...] = ()
    """The same as `text`, for where one can follow them; then shown in place of it."""


@dataclass(frozen=True)
class Column:
    """A column's header."""

    title: str
    unit: str = ""
    better: Better = "neither"
    hint: str = ""
    is_numeric: bool = False


@dataclass(frozen=True)
class Row:
    """Cells, in the order of the columns."""

    cells: tuple[Cell, ...]
    is_null: bool = False
    """A control: shown apart from what is being judged."""


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    name: str
    """Unique in the document."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    is_filterable: bool = False
    kind: Literal["table"] = "table"

    @property
    def is_large(self) -> bool:
        """A reader may want to hide some of it: more than 12 rows or 5 columns, and at least 3 columns."""
        return len(self.columns) >= _FEWEST_TO_HIDE and (
            len(self.rows) > _MOST_ROWS or len(self.columns) > _MOST_COLUMNS
        )


@dataclass(frozen=True)
class Axis:
    """What one direction of a chart means."""

    title: str
    scale: Literal["linear", "log"] = "linear"
    better: Better = "neither"


@dataclass(frozen=True)
class ChartPoint:
    """One checkpoint in a scatter chart, with its intervals."""

    label: str
    series: str
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    is_null: bool = False
    front: str = ""
    """The Pareto front that it is on, by its site; empty: on none."""


@dataclass(frozen=True)
class ChartCurve:
    """A fitted law, drawn dotted in the colour of a series."""

    series: str
    places: tuple[tuple[float, float], ...]
    """(x, y), in the order of x."""


@dataclass(frozen=True)
class ChartGap:
    """A number that a line chart or a histogram would draw were it there; its table says why it is not."""

    label: str
    outcome: Outcome
    x: str = ""
    """Where in a line chart."""
    is_null: bool = False


@dataclass(frozen=True)
class ScatterGap:
    """A checkpoint that a scatter chart would draw had it both numbers; its table says why it has not."""

    label: str
    series: str
    x: Outcome | None
    y: Outcome | None
    """None: there is nothing to say of this one."""
    is_null: bool = False


@dataclass(frozen=True)
class ScatterChart:
    """Two metrics against each other."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    points: tuple[ChartPoint, ...]
    curves: tuple[ChartCurve, ...] = ()
    gaps: tuple[ScatterGap, ...] = ()
    group: str = ""
    """Heading that neighbouring charts share."""
    kind: Literal["scatter"] = "scatter"

    @property
    def has_front(self) -> bool:
        """Whether a Pareto front is drawn."""
        return any(point.front for point in self.points)


@dataclass(frozen=True)
class LinePoint:
    """One setting of one checkpoint in a line chart."""

    label: str
    x: str
    y: float
    y_low: float
    y_high: float
    is_null: bool = False


@dataclass(frozen=True)
class LineChart:
    """One metric over an ordered setting, a line each checkpoint."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    x_order: tuple[str, ...]
    points: tuple[LinePoint, ...]
    gaps: tuple[ChartGap, ...] = ()
    group: str = ""
    kind: Literal["line"] = "line"


@dataclass(frozen=True)
class HistogramPanel:
    """Counts of one checkpoint's latents; `counts[i]` lies in [start + i width, start + (i + 1) width)."""

    label: str
    start: float
    width: float
    counts: tuple[int, ...]
    dead_count: int
    """Latents that never fired: they have no logarithm, so they stand beside the histogram."""
    is_null: bool = False


@dataclass(frozen=True)
class HistogramChart:
    """A histogram each checkpoint, on common axes."""

    name: str
    title: str
    caption: str
    x: Axis
    panels: tuple[HistogramPanel, ...]
    gaps: tuple[ChartGap, ...] = ()
    """One of each checkpoint without a histogram."""
    group: str = ""
    kind: Literal["histogram"] = "histogram"


@dataclass(frozen=True)
class HeatLabel:
    """The name of a row or a column of a heat map."""

    name: str
    """Unique among its kind."""
    mark: str = ""
    """A word beside it: `null`, `lexical`."""


@dataclass(frozen=True)
class HeatCell:
    """One place of a heat map: a value with its interval, or why there is none."""

    row: str
    column: str
    outcome: Outcome


@dataclass(frozen=True)
class HeatmapChart:
    """One metric by two names: a place of each row and column is coloured by its value."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    color: Axis
    limits: tuple[float, ...]
    """Rising: where one colour ends and the next begins."""
    rows: tuple[HeatLabel, ...]
    columns: tuple[HeatLabel, ...]
    cells: tuple[HeatCell, ...]
    """At most one of each row and column."""
    group: str = ""
    kind: Literal["heatmap"] = "heatmap"


@dataclass(frozen=True)
class Callout:
    """A box that must be seen: what failed, or a sentence that nothing did; findings."""

    title: str
    lines: tuple[str, ...]
    tone: Tone
    more: str = ""
    """Name of the section that says more, which the title leads to."""
    kind: Literal["callout"] = "callout"


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    title: str
    text: str
    kind: Literal["code"] = "code"


Chart = ScatterChart | LineChart | HistogramChart | HeatmapChart
Part = Table | Chart | Callout | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ReportDocument:
    """The whole report, ready to be drawn by something that knows no metric."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """Short name-value pairs under the title."""
    sections: tuple[Section, ...]
    kind: str = "Sparse autoencoder evaluation"
    """What the page says above its title."""
    data_name: str = "report.json"
    """Of the file that the page lets its reader save."""

    @property
    def charts(self) -> tuple[Chart, ...]:
        """All charts, in order."""
        kinds = (ScatterChart, LineChart, HistogramChart, HeatmapChart)
        return tuple(part for section in self.sections for part in section.parts if isinstance(part, kinds))

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in order."""
        return tuple(part for section in self.sections for part in section.parts if isinstance(part, Table))
