"""EvaluationReport -> what the command line shows of it: a table, and the list of what failed.

A number is never cut. The layout is the first that fits: interval beside the value, interval below it, half
of the interval's width below it; and where all metrics do not fit even so, the last ones are left out. The
caption says what was done.
"""

import textwrap
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from autointerp.records import EvaluationReport
from autointerp.reporting.parts import Badge, Cell, Column, Row, Table
from autointerp.reporting.report_document import build_document

__all__ = ["plain_table", "summary_table"]

_ARROWS = {"lower": " ↓", "higher": " ↑", "neither": ""}
_STYLES = {"good": "bold green", "bad": "bold red", "null": "dim", "neutral": "dim"}
_PADDING = 2
_WIDEST_NAME = 28
_WIDEST_HEADER_LINE = 12

Layout = Callable[[Cell], str]


def _beside(cell: Cell) -> str:
    return f" {cell.detail}"


def _below(cell: Cell) -> str:
    return f"\n{cell.detail}"


def _half_below(cell: Cell) -> str:
    return f"\n{cell.half_width}"


_LAYOUTS: tuple[Layout, ...] = (_beside, _below, _half_below)


def summary_table(report: EvaluationReport, *, width: int = 100) -> RichTable:
    """Checkpoints by headline metrics, no wider than `width` columns."""
    source = next(table for table in build_document(report).tables if table.name == "summary")
    measured = [(layout, _widths(source, layout)) for layout in _LAYOUTS]
    fitting = [(layout, widths) for layout, widths in measured if sum(widths) <= width]
    layout, widths = (fitting or measured[-1:])[0]
    return _rich_table(source, layout, widths, width)


def plain_table(source: Table) -> RichTable:
    """Any table of a report, cells with their second lines beside them; names may be folded."""
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _PADDING, 0, 0))
    for column in source.columns:
        table.add_column(
            Text(column.title, "bold"),
            justify="right" if column.is_numeric else "left",
            overflow="fold",
            no_wrap=column.is_numeric,
        )
    for row in source.rows:
        table.add_row(*(_cell(cell, _beside) for cell in row.cells))
    return table


def _widths(source: Table, layout: Layout) -> list[int]:
    """Columns that each column needs, the name's at most `_WIDEST_NAME`, as names may be folded."""
    widths = []
    for index, column in enumerate(source.columns):
        texts = [_header(column).plain] + [_cell(row.cells[index], layout).plain for row in source.rows]
        needed = max(len(line) for text in texts for line in text.split("\n")) + _PADDING
        widths.append(needed if index else min(needed, _WIDEST_NAME))
    return widths


def _shown_count(widths: Sequence[int], width: int) -> int:
    """How many leading columns fit, at least the name and one metric."""
    used, shown = 0, 0
    for needed in widths:
        used += needed
        if used > width and shown >= 2:
            break
        shown += 1
    return shown


def _rich_table(source: Table, layout: Layout, widths: Sequence[int], width: int) -> RichTable:
    shown = _shown_count(widths, width)
    left_out = [column.title for column in source.columns[shown:]]
    remarks = [f"Not shown for want of width: {', '.join(left_out)}."] if left_out else []
    if layout is _half_below:
        remarks.insert(0, "± is half of the interval's width.")
    table = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        caption=" ".join(remarks) or None,
        caption_justify="left",
        padding=(0, _PADDING, 0, 0),
    )
    for index, column in enumerate(source.columns[:shown]):
        if index:
            table.add_column(
                _header(column), justify="right", no_wrap=True, min_width=widths[index] - _PADDING
            )
        else:
            table.add_column(_header(column), overflow="fold", max_width=_WIDEST_NAME - _PADDING)
    for row in source.rows:
        _add_row(table, row, layout, shown)
    return table


def _add_row(table: RichTable, row: Row, layout: Layout, shown: int) -> None:
    name = Text(row.cells[0].text)
    if row.is_null:
        name.append(" null", "dim italic")
    cells = [_cell(cell, layout) for cell in row.cells[1:shown]]
    table.add_row(name, *cells, style="dim" if row.is_null else None)


def _header(column: Column) -> Text:
    header = Text(_wrapped(f"{column.title}{_ARROWS[column.better]}"), "bold")
    return header.append(f"\n{_wrapped(column.unit)}", "dim not bold") if column.unit else header


def _wrapped(text: str) -> str:
    return textwrap.fill(text.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑"), _WIDEST_HEADER_LINE)


def _cell(cell: Cell, layout: Layout) -> Text:
    """Value, interval and mark; or the status in place of all three."""
    text = Text()
    if cell.kind != "number":
        text.append(cell.text)
        for badge in cell.badges:
            text.append(badge.text, _STYLES[badge.tone])
        return text
    for badge in cell.badges:
        text.append(_mark(badge), _STYLES[badge.tone])
    return text.append(cell.text).append(layout(cell), "dim")


def _mark(badge: Badge) -> str:
    return "★ " if badge.tone == "good" else "≈ "
