"""What scores of sampled latents can speak for: in report.json, in the report, and where it is missing."""

from dataclasses import replace

import pytest

from autointerp.records import LatentCoverage
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.report_document import build_document

MEASURED = LatentCoverage(
    "topk-a",
    "measured",
    latent_count=4096,
    live_count=4000,
    scorable_count=3000,
    ultra_dense_count=7,
    sampled_count=200,
    sampled_scorable_count=150,
    scorable_fraction=3000 / 4096,
    scorable_mass_fraction=0.99999,
    dropped_for_leaks=12,
)
FAILED = LatentCoverage("broken <b>", "failed", "its latents are not finite")
SILENT = replace(MEASURED, checkpoint="silent", live_count=0, scorable_count=0, scorable_mass_fraction=None)


@pytest.fixture
def covered(realistic):
    return replace(realistic, coverage=(MEASURED, FAILED, SILENT))


def table(report):
    [found] = [table for table in build_document(report).tables if table.name == "coverage"]
    return found


def test_report_json_gives_back_what_was_written(covered, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report_json(covered), encoding="utf-8")
    assert tuple(read_report(path).coverage) == covered.coverage
    assert "null" not in path.read_text(encoding="utf-8").split('"coverage"')[1].split("]")[0]


def test_dead_and_rare_latents_are_counted_apart(covered):
    cells = {
        column.title: cell.text
        for column, cell in zip(table(covered).columns, table(covered).rows[0].cells, strict=True)
    }
    assert cells["Dead"] == "96" and cells["Sampled"] == "150 of 200"
    assert cells["Too rare"].replace("\u202f", "") == "1000"


def test_what_is_not_quite_all_never_reads_as_all(covered):
    shares = [cell.text for cell in table(covered).rows[0].cells]
    assert "99.9 %" in shares and "100 %" not in shares


def test_a_share_of_nothing_is_missing(covered):
    assert [cell.kind for cell in table(covered).rows[2].cells].count("missing") == 1


def test_a_dictionary_without_firings_stands_with_its_reason(covered):
    row = table(covered).rows[1]
    assert row.cells[0].detail == "its latents are not finite"
    assert [badge.text for badge in row.cells[0].badges] == ["failed"]
    assert {cell.kind for cell in row.cells[1:]} == {"missing"}
    assert "broken &lt;b&gt;" in report_html(covered) and "broken <b>" not in report_html(covered)


def test_without_sampling_there_is_no_such_section(realistic):
    assert "coverage" not in [section.name for section in build_document(realistic).sections]
