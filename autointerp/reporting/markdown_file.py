"""EvaluationReport -> Markdown, for issues and model cards."""

import re

from autointerp.records import EvaluationReport
from autointerp.reporting.parts import Callout, Cell, Code, Column, Section, Table
from autointerp.reporting.report_document import build_document

__all__ = ["report_markdown"]

_SECTIONS = ("failures", "summary", "missing", "comparisons", "meanings", "checkpoints", "origin")
_ARROWS = {"lower": " ↓", "higher": " ↑", "neither": ""}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!@])")


def report_markdown(report: EvaluationReport) -> str:
    """The sections of the report that need no chart, as GitHub's Markdown; foreign text is escaped."""
    document = build_document(report)
    blocks = [f"# {escaped(document.title)}"]
    blocks.append(" · ".join(f"{name}: **{escaped(value)}**" for name, value in document.facts))
    for section in document.sections:
        if section.name in _SECTIONS:
            blocks += _section(section)
    return "\n\n".join(block for block in blocks if block) + "\n"


def escaped(text: str) -> str:
    """The text on one line, with every character that Markdown or HTML would read as markup made plain."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _section(section: Section) -> list[str]:
    blocks = [f"## {escaped(section.title)}", escaped(section.lead)] if section.title else []
    for part in section.parts:
        if isinstance(part, Table):
            blocks += [f"### {escaped(part.caption)}", _table(part)]
        elif isinstance(part, Callout):
            blocks += [f"**{escaped(part.title)}**", "\n".join(f"- {escaped(line)}" for line in part.lines)]
        elif isinstance(part, Code):
            blocks += [f"### {escaped(part.title)}", _indented(part.text)]
    return blocks


def _indented(text: str) -> str:
    """A code block that no content can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _table(table: Table) -> str:
    lines = [_line([_header(column) for column in table.columns])]
    lines.append(_line(["--:" if column.is_numeric else "---" for column in table.columns]))
    for row in table.rows:
        cells = [_cell(cell) for cell in row.cells]
        lines.append(_line([f"*{cell}*" if row.is_null and cell else cell for cell in cells]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _header(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return escaped(f"{column.title}{unit}") + _ARROWS[column.better]


def _cell(cell: Cell) -> str:
    """Text, marks and the second line, which in a cell of Markdown needs HTML's line break."""
    text = escaped(" ".join([cell.text, *(f"({badge.text})" for badge in cell.badges)]))
    separator = " " if cell.kind == "number" else "<br>"
    return separator.join(part for part in (text, escaped(cell.detail)) if part)
