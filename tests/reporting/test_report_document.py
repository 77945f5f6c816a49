import dataclasses
import math

import pytest
from report_examples import density_observations

from autointerp.records import EvaluationReport, Measured, observation_frame
from autointerp.reporting.chart_data import density_histogram
from autointerp.reporting.chart_tables import alternative, chart_table
from autointerp.reporting.parts import Callout, Table
from autointerp.reporting.report_document import build_document


def _section(document, name):
    return next(section for section in document.sections if section.name == name)


def _table(document, name):
    return next(table for table in document.tables if table.name == name)


def test_sections_come_in_reading_order_with_failures_first(realistic):
    names = [section.name for section in build_document(realistic).sections]
    assert names == [
        "failures",
        "summary",
        "charts",
        "missing",
        "comparisons",
        "results",
        "meanings",
        "checkpoints",
        "origin",
    ]


def test_every_result_without_a_number_is_listed_with_its_reason(realistic):
    table = _table(build_document(realistic), "missing")
    missing = [r for r in realistic.results if not isinstance(r.outcome, Measured)]
    assert sorted(row.cells[-1].text for row in table.rows) == sorted(r.outcome.reason for r in missing)
    assert [row.cells[0].badges[0].text for row in table.rows] == ["failed", "undefined", "skipped"]


def test_that_nothing_is_missing_is_said_in_words(realistic):
    fine = [r for r in realistic.results if isinstance(r.outcome, Measured)]
    document = build_document(dataclasses.replace(realistic, results=fine))
    assert "failures" not in {section.name for section in document.sections}
    assert [type(part) for part in _section(document, "missing").parts] == [Callout]


def test_the_summary_has_a_cell_for_every_checkpoint_and_metric(realistic):
    table = _table(build_document(realistic), "summary")
    assert len(table.rows) == len(realistic.checkpoints)
    assert {len(row.cells) for row in table.rows} == {1 + len(realistic.definitions)}
    assert [row.is_null for row in table.rows] == [False] * 7 + [True]


def test_a_failed_cell_shows_its_status_and_no_number(realistic):
    table = _table(build_document(realistic), "summary")
    row = next(row for row in table.rows if row.cells[0].text == "jumprelu-8k")
    column = [c.title for c in table.columns].index("KL")
    cell = row.cells[column]
    assert (cell.text, cell.kind, cell.bar, cell.sort) == ("", "missing", None, None)
    assert cell.badges[0].text == "failed"


def test_range_bars_lie_within_the_column_and_nulls_outside_point_outwards(realistic):
    table = _table(build_document(realistic), "summary")
    bars = [(row.is_null, cell.bar) for row in table.rows for cell in row.cells if cell.bar is not None]
    for _, bar in bars:
        assert 0.0 <= bar.low <= bar.value <= bar.high <= 1.0
    assert {bar.beyond for is_null, bar in bars if not is_null} == {""}
    assert "right" in {bar.beyond for is_null, bar in bars if is_null}


def test_best_is_marked_once_and_only_where_it_is_certain(realistic):
    table = _table(build_document(realistic), "summary")
    marked = {
        (table.columns[i].title, row.cells[0].text, badge.text)
        for row in table.rows
        for i, cell in enumerate(row.cells)
        for badge in cell.badges
        if badge.text in {"best", "cannot tell"}
    }
    assert marked == {("Normalised MSE", "topk-8k-k64", "best"), ("ΔCE", "topk-8k-k64", "best")}


def test_comparisons_with_nulls_stand_apart(realistic):
    document = build_document(realistic)
    against, among = _table(document, "against-null"), _table(document, "among")
    assert len(against.rows) + len(among.rows) == len(realistic.comparisons)
    assert all("random" in row.cells[1].text for row in against.rows)
    assert not any("random" in cell.text for row in among.rows for cell in row.cells[:2])


def test_findings_follow_the_direction_of_the_metric(realistic):
    table = _table(build_document(realistic), "among")
    found = {
        (row.cells[0].text, row.cells[1].text, row.cells[2].text): row.cells[-1].badges[0].text
        for row in table.rows
    }
    assert found["topk-2k-k16", "topk-8k-k64", "Normalised MSE"] == "worse"
    assert found["topk-8k-k64", "relu-8k", "Normalised MSE"] == "better"
    assert found["topk-8k-k32", "jumprelu-8k", "ΔCE"] == "cannot tell"


def test_all_results_are_listed(realistic):
    assert len(_table(build_document(realistic), "results").rows) == len(realistic.results)


def test_the_report_says_which_inputs_are_normalised(realistic):
    lead = _section(build_document(realistic), "checkpoints").lead
    assert "raw is activations" in lead and "layer_norm" in lead and "Both kinds occur" in lead


def test_names_of_tables_and_charts_are_unique(realistic):
    document = build_document(realistic, density_observations(realistic))
    names = [t.name for t in document.tables] + [chart_table(c).name for c in document.charts]
    assert len(names) == len(set(names))


def test_an_empty_report_makes_a_document(realistic):
    empty = EvaluationReport({}, {}, {}, [], [], [], [], {}, {})
    document = build_document(empty)
    assert document.title == "Evaluation of sparse autoencoders"
    assert document.charts == ()


def test_charts_are_drawn_from_what_was_measured(realistic):
    charts = build_document(realistic, density_observations(realistic)).charts
    assert [chart.name for chart in charts] == [
        "sparsity-reconstruction",
        "sparsity-loss",
        "positions",
        "density",
        "spectrum",
    ]
    scatter, _, line, density, _ = charts
    assert len(scatter.points) == len(density.panels) == 8
    assert (scatter.x.scale, scatter.y.scale) == ("log", "log")
    assert line.x_order == ("0", "1–3", "4–15", "16–63")
    for chart in charts:
        assert chart.title in alternative(chart)
        assert chart_table(chart).rows


def test_a_difference_that_can_be_negative_has_a_linear_axis(realistic):
    def shifted(result):
        if result.metric != "downstream.delta_ce_nats":
            return result
        e = result.outcome.estimate
        return dataclasses.replace(result, outcome=Measured(dataclasses.replace(e, low=-0.01)))

    report = dataclasses.replace(realistic, results=[shifted(r) for r in realistic.results])
    chart = next(c for c in build_document(report).charts if c.name == "sparsity-loss")
    assert chart.y.scale == "linear"


def test_the_histogram_counts_every_latent_once(realistic):
    """Against a loop over latents."""
    observations = density_observations(realistic)
    chart = density_histogram(realistic, observations)
    for panel in chart.panels:
        rows = observations.filter(observations["checkpoint"] == panel.label)
        shares = [n / d for n, d in rows.select("numerator", "denominator").iter_rows()]
        expected = [0] * len(panel.counts)
        for share in shares:
            if share > 0:
                place = math.floor(math.log10(share) * 4) - round(panel.start * 4)
                expected[min(place, len(expected) - 1)] += 1
        assert list(panel.counts) == expected
        assert panel.dead_count == sum(share == 0 for share in shares)


def test_rows_of_one_latent_are_added_up_and_a_dead_one_is_beside(realistic):
    frame = observation_frame(
        checkpoint="topk-2k-k16",
        metric="reconstruction.latent_density",
        unit=["a", "a", "b", "c"],
        numerator=[1.0, 9.0, 0.0, 100.0],
        denominator=[50.0, 50.0, 100.0, 100.0],
    )
    (panel,) = density_histogram(realistic, frame).panels
    assert (panel.start, panel.counts, panel.dead_count) == (-1.0, (1, 0, 0, 1), 1)


@pytest.mark.parametrize("rows", [0, 1])
def test_without_a_latent_that_fires_there_is_no_histogram(realistic, rows):
    frame = observation_frame(
        checkpoint="topk-2k-k16",
        metric="reconstruction.latent_density",
        unit=["a"] * rows,
        numerator=[0.0] * rows,
        denominator=100.0,
    )
    assert density_histogram(realistic, frame) is None


def test_observations_of_checkpoints_outside_the_report_are_not_drawn(realistic):
    few = dataclasses.replace(realistic, checkpoints=realistic.checkpoints[:1])
    assert len(density_histogram(few, density_observations(realistic)).panels) == 1
    none = dataclasses.replace(realistic, checkpoints=[])
    assert density_histogram(none, density_observations(realistic)) is None


def test_the_command_to_repeat_the_run_is_shown(realistic):
    (code,) = [part for part in _section(build_document(realistic), "origin").parts if part.kind == "code"]
    assert code.text == "autointerp demo --out reports/demo"


def test_costs_are_said_with_their_units(realistic):
    table = _table(build_document(realistic), "facts-cost")
    assert isinstance(table, Table)
    shown = {row.cells[0].text: row.cells[1].text for row in table.rows}
    assert shown["seconds.substituted passes"] == "1 min 4 s"
    assert shown["peak_memory_bytes"] == "1.4 GB"
