import csv
import dataclasses
import io
import re

import pytest
from rich.console import Console

from autointerp.records import Failed, Measured
from autointerp.reporting.csv_file import COLUMNS, report_csv
from autointerp.reporting.failures import failure_lines
from autointerp.reporting.markdown_file import escaped, report_markdown
from autointerp.reporting.terminal import summary_table


def _printed(report, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(summary_table(report, width=width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_the_terminal_table_keeps_within_its_width_and_cuts_no_number(realistic, width):
    text = _printed(realistic, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "0.221" in text


def test_a_hundred_columns_hold_six_metrics(realistic):
    text = _printed(realistic, 100)
    assert "Not shown" not in text
    assert "half of the interval" in text
    assert "±0.008" in text


def test_a_wide_terminal_shows_intervals_beside_values(realistic):
    assert "0.221 [0.213, 0.229]" in _printed(realistic, 180)


def test_metrics_that_do_not_fit_are_named(realistic):
    words = " ".join(_printed(realistic, 62).split())
    assert words.endswith("Not shown for want of width: Dead latents, Compute equivalent.")


def test_markup_in_a_name_is_not_obeyed(realistic):
    renamed = dataclasses.replace(
        realistic,
        checkpoints=[dataclasses.replace(c, name=f"[red]{c.name}[/red]") for c in realistic.checkpoints],
    )
    assert "[red]" in _printed(renamed, 200)


def test_failures_are_one_line_each(hostile):
    (line,) = failure_lines(hostile)
    assert line.startswith("jumprelu") and "downstream.kl_nats (all)" in line
    assert "\n" not in line


def test_one_cause_is_said_once_however_much_it_took(realistic):
    name = realistic.checkpoints[0].name
    broken = [
        dataclasses.replace(result, outcome=Failed("out of memory")) if result.checkpoint == name else result
        for result in realistic.results
    ]
    lines = failure_lines(dataclasses.replace(realistic, results=broken))
    [line] = [line for line in lines if "out of memory" in line]
    count = sum(result.checkpoint == name for result in realistic.results)
    assert f"and {count - 3} more results" in line


def test_markdown_tables_have_as_many_cells_as_columns(realistic, hostile):
    for report in (realistic, hostile):
        width = None
        for line in report_markdown(report).splitlines():
            if not line.startswith("|"):
                width = None
                continue
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (None, cells)
            width = cells


def test_markdown_holds_no_foreign_markup(hostile):
    text = "\n".join(line for line in report_markdown(hostile).splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)<(?!br>)", text)
    assert escaped("a|b\n<i>") == "a\\|b \\<i\\>"


def test_markdown_says_what_failed_before_the_summary(realistic):
    text = report_markdown(realistic)
    assert text.index("1 result failed") < text.index("## Summary")


def test_csv_has_every_result_in_full_precision(realistic):
    rows = list(csv.DictReader(io.StringIO(report_csv(realistic))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(realistic.results)
    for row, result in zip(rows, realistic.results, strict=True):
        if isinstance(result.outcome, Measured):
            assert float(row["value"]) == result.outcome.estimate.value
        else:
            assert row["value"] == "" and row["reason"] == result.outcome.reason


def test_csv_text_is_no_formula(realistic):
    evil = dataclasses.replace(realistic.results[0], checkpoint='=HYPERLINK("x")')
    row = next(csv.DictReader(io.StringIO(report_csv(dataclasses.replace(realistic, results=[evil])))))
    assert row["checkpoint"] == '\'=HYPERLINK("x")'
