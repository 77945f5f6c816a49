"""Charts against sparsity and width: which are drawn, who is on the front, what the tables say."""

import dataclasses
import math

import polars as pl
import pytest
from chart_examples import layer_of, with_headlines, with_widths
from report_examples import density_observations

from autointerp.estimates.scaling_fits import scaling_facts
from autointerp.records import Failed, MetricResult, Skipped
from autointerp.reporting.chart_data import charts_of, density_histogram
from autointerp.reporting.chart_tables import alternative, chart_table, gap_words
from autointerp.reporting.charts import chart_svg, vega_lite_specs
from autointerp.reporting.html_file import report_html
from autointerp.reporting.trade_offs import TRADE_OFFS, trade_off_charts
from autointerp.reporting.width_charts import width_charts


@pytest.fixture(scope="module")
def charts(realistic):
    return {chart.name: chart for chart in trade_off_charts(with_headlines(realistic))}


def test_every_headline_metric_has_its_chart_in_one_order(charts):
    assert list(charts) == [f"sparsity-{trade_off.name}" for trade_off in TRADE_OFFS]
    assert {chart.group for chart in charts.values()} == {"Against sparsity"}


def test_only_checkpoints_of_which_both_numbers_are_there_are_drawn(realistic):
    lost = realistic.checkpoints[0].name
    results = [
        dataclasses.replace(r, outcome=Skipped("not asked for"))
        if (r.checkpoint, r.metric) == (lost, "reconstruction.normalized_mse")
        else r
        for r in realistic.results
    ]
    first, second = trade_off_charts(dataclasses.replace(realistic, results=results))
    assert lost not in {point.label for point in first.points}
    assert lost in {point.label for point in second.points}
    assert second.gaps == () and gap_words(second) == ""
    assert gap_words(first) == f"Not drawn, wholly or in places: {lost}; the table says why."
    assert gap_words(first) in alternative(first)
    table = chart_table(first)
    row = next(row for row in table.rows if row.cells[0].text == lost)
    assert len(row.cells) == len(table.columns)
    assert row.cells[2].text.startswith("16")
    assert row.cells[3].detail == "not asked for" and row.cells[3].badges[0].text == "skipped"
    long = dataclasses.replace(first.gaps[0], label="x" * 300)
    assert len(gap_words(dataclasses.replace(first, gaps=(long,)))) < 120
    assert gap_words(first) in report_html(dataclasses.replace(realistic, results=results))


def test_a_line_chart_says_why_a_checkpoint_has_no_line_and_a_place_no_number(realistic):
    whole, part = realistic.checkpoints[0].name, realistic.checkpoints[1].name
    metric = "reconstruction.normalized_mse"
    results = [r for r in realistic.results if not (r.checkpoint == whole and r.metric == metric)]
    results = [
        dataclasses.replace(r, outcome=Failed("odd"))
        if (r.checkpoint, r.metric, r.slice) == (part, metric, {"position": "1-3"})
        else r
        for r in results
    ]
    results.append(MetricResult(whole, metric, {}, Failed("out of memory")))
    charts = charts_of(dataclasses.replace(realistic, results=results), None)
    (chart,) = [chart for chart in charts if chart.name == "positions"]
    rows = {row.cells[0].text: row.cells[1:] for row in chart_table(chart).rows}
    assert [cell.detail for cell in rows[whole]] == ["out of memory"] * 4
    assert [bool(cell.badges) for cell in rows[part]] == [False, True, False, False]
    assert gap_words(chart).startswith(f"Not drawn, wholly or in places: {whole}, {part};")
    vega_lite_specs(chart)


def test_a_histogram_that_is_not_there_has_its_reason_in_the_table(realistic):
    lost = realistic.checkpoints[2].name
    seen = density_observations(realistic).filter(pl.col("checkpoint") != lost)
    dead = (lost, "reconstruction.dead_fraction")
    results = [r for r in realistic.results if (r.checkpoint, r.metric) != dead]
    results.append(MetricResult(*dead, {}, Failed("not finite")))
    chart = density_histogram(dataclasses.replace(realistic, results=results), seen)
    row = chart_table(chart).rows[-1]
    assert row.cells[0].text == lost and row.cells[1].detail == "not finite"
    assert len(row.cells) == len(chart_table(chart).columns)


def test_a_width_whose_number_failed_is_named(realistic):
    report = with_widths(realistic)
    results = [
        dataclasses.replace(r, outcome=Failed("odd"))
        if (r.checkpoint, r.metric) == ("512-8", "reconstruction.normalized_mse")
        else r
        for r in report.results
    ]
    (chart,) = width_charts(dataclasses.replace(report, results=results))
    assert [(gap.label, gap.y) for gap in chart.gaps] == [("512-8", Failed("odd"))]
    assert "512-8" in gap_words(chart)


def test_one_checkpoint_and_a_null_make_no_chart(realistic):
    kept = (realistic.checkpoints[0], realistic.checkpoints[-1])
    assert kept[1].role == "null"
    assert trade_off_charts(dataclasses.replace(realistic, checkpoints=kept)) == []
    both = (*realistic.checkpoints[:2], realistic.checkpoints[-1])
    assert len(trade_off_charts(dataclasses.replace(realistic, checkpoints=both))) == 2


def test_the_front_is_who_no_other_beats_and_nulls_are_on_none(charts):
    chart = charts["sparsity-reconstruction"]
    front = [point.label for point in chart.points if point.front]
    assert front == ["topk-8k-k16", "topk-8k-k32", "topk-8k-k64", "jumprelu-8k"]
    table = chart_table(chart)
    said = {row.cells[0].text: row.cells[-1].text for row in table.rows}
    assert [name for name, word in said.items() if word == "yes"] == front
    assert said["random-8k-k32"] == "—" and said["relu-8k"] == "no"


def test_each_site_has_its_own_front(realistic):
    checkpoints = [
        dataclasses.replace(c, site="blocks.1" if c.name.startswith("topk-2k") else "blocks.3")
        for c in realistic.checkpoints
    ]
    chart, _ = trade_off_charts(dataclasses.replace(realistic, checkpoints=checkpoints))
    fronts = {point.label: point.front for point in chart.points if point.front}
    assert fronts["topk-2k-k16"] == fronts["topk-2k-k32"] == "blocks.1"
    assert set(fronts.values()) == {"blocks.1", "blocks.3"}
    assert "Each site has its own." in chart.caption
    (spec,) = vega_lite_specs(chart)
    assert layer_of(spec, "front")[0]["encoding"]["detail"]["field"] == "site"


def test_a_metric_without_a_better_direction_has_no_front(realistic):
    definitions = [dataclasses.replace(d, better="neither") for d in realistic.definitions]
    chart, second = trade_off_charts(dataclasses.replace(realistic, definitions=definitions))
    assert not chart.has_front
    assert "Dashed" not in chart.caption and second.caption.startswith("Marks and lines as in")
    assert len(chart_table(chart).columns) == 4
    (spec,) = vega_lite_specs(chart)
    assert layer_of(spec, "front") == (None, [])


def test_the_front_is_a_dashed_staircase_through_its_points(charts):
    for name in ("sparsity-reconstruction", "sparsity-graphs"):
        chart = charts[name]
        (spec,) = vega_lite_specs(chart)
        layer, rows = layer_of(spec, "front")
        assert layer["mark"]["strokeDash"] and layer["mark"]["interpolate"] == "step-after"
        drawn = {(row["x"], row["y"]) for row in rows}
        assert drawn == {(p.x, p.y) for p in chart.points if p.front}
        assert chart_svg(spec)


def test_what_all_charts_have_in_common_is_said_once(charts):
    first, *others = charts.values()
    assert "Dashed: no other checkpoint does as well with fewer active latents" in first.caption
    assert all(f"Marks and lines as in “{first.title}”" in chart.caption for chart in others)
    assert "upper left" in charts["sparsity-graphs"].caption
    assert "lower left" in charts["sparsity-probes"].caption


def test_three_widths_at_one_k_are_drawn_even_without_a_law(realistic):
    (chart,) = width_charts(with_widths(realistic))
    assert chart.name == "width-reconstruction" and chart.curves == ()
    assert {point.series for point in chart.points} == {"topk · k = 8", "topk · k = 32"}
    assert {point.x for point in chart.points} == {512.0, 2048.0, 8192.0}
    assert all(point.y_low < point.y < point.y_high for point in chart.points)
    assert "Dotted" not in chart.caption


def test_two_widths_are_no_line_over_width(realistic):
    assert width_charts(with_widths(realistic, widths=(512, 8192))) == []
    assert width_charts(realistic) == []


def test_a_law_that_was_fitted_is_drawn_where_its_formula_says(realistic):
    report = with_widths(realistic)
    facts = scaling_facts(report.results, report.checkpoints)
    (chart,) = width_charts(dataclasses.replace(report, studies={"scaling": facts}))
    curves = {curve.series: curve.places for curve in chart.curves}
    assert set(curves) == {"topk · k = 8", "topk · k = 32"}
    for k in (8, 32):
        for n, loss in curves[f"topk · k = {k}"]:
            assert loss == pytest.approx(n**-0.2 * k**-0.3, rel=1e-6)
        ends = [curves[f"topk · k = {k}"][place][0] for place in (0, -1)]
        assert ends == pytest.approx([512, 8192])
    (spec,) = vega_lite_specs(chart)
    assert layer_of(spec, "curves")[0]["mark"]["strokeDash"]
    assert "var(" not in chart_svg(spec)
    assert math.isclose(chart.points[0].y, 512**-0.2 * 8**-0.3)
