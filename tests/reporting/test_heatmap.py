"""The heat map of probe tasks: its numbers, its order, its holes, its colours."""

import dataclasses
import itertools
import re
from importlib import resources

import pytest
from chart_examples import CHANCES, FAMILY, layer_of, with_probes
from report_examples import HOSTILE

from autointerp.records import Failed, Measured, Undefined
from autointerp.reporting.chart_tables import alternative, chart_table
from autointerp.reporting.charts import chart_svg, vega_lite_specs
from autointerp.reporting.heatmap_layers import HEAT_COUNT
from autointerp.reporting.parts import HeatmapChart
from autointerp.reporting.probe_heatmap import probe_heatmap


@pytest.fixture(scope="module")
def report(realistic):
    return with_probes(realistic)


@pytest.fixture(scope="module")
def chart(report):
    found = probe_heatmap(report)
    assert isinstance(found, HeatmapChart)
    return found


def test_a_run_without_probes_has_none(realistic, report):
    assert probe_heatmap(realistic) is None
    facts = {**report.studies["probe"], "checkpoints": {}}
    assert probe_heatmap(dataclasses.replace(report, studies={"probe": facts})) is None


def test_losses_stand_as_shares_of_their_own_tasks_chance(chart, report):
    losses = {
        (r.checkpoint, r.slice["task"]): r.outcome.estimate
        for r in report.results
        if r.metric == "probe.loss_nats" and isinstance(r.outcome, Measured)
    }
    found = {(cell.column, cell.row): cell.outcome for cell in chart.cells}
    loss, chance = losses["relu-8k", f"{FAMILY}/docstring"], CHANCES[f"{FAMILY}/docstring"]
    share = found["relu-8k", "docstring"].estimate
    assert (share.value, share.low, share.high) == (
        loss.value / chance,
        loss.low / chance,
        loss.high / chance,
    )


def test_rows_go_from_the_best_answered_down_with_lexical_ones_last_and_nulls_are_the_last_columns(chart):
    assert [label.name for label in chart.rows][:3] == ["attribute", "docstring", "async"]
    assert [label.mark for label in chart.rows] == ["", "", "", "", "lexical"]
    assert [label.mark for label in chart.columns] == [""] * 7 + ["null"]
    assert chart.columns[-1].name == "random-8k-k32"


def test_every_place_has_a_number_or_a_reason(chart):
    assert len(chart.cells) == len(chart.rows) * len(chart.columns)
    found = {(cell.column, cell.row): cell.outcome for cell in chart.cells}
    assert isinstance(found["topk-2k-k16", "attribute"], Failed)
    assert isinstance(found["topk-2k-k32", "docstring"], Undefined)
    assert sum(not isinstance(outcome, Measured) for outcome in found.values()) == 2
    assert "2 of them without a number" in alternative(chart)
    assert "Crosses have no number" in chart.caption


def test_the_table_below_says_the_same_and_why_numbers_are_missing(chart):
    table = chart_table(chart)
    assert [column.title for column in table.columns][-1] == "random-8k-k32 (null)"
    row = next(row for row in table.rows if row.cells[0].text == "attribute")
    assert row.cells[1].badges[0].text == "failed" and "no memory" in row.cells[1].detail
    assert "\u202e" not in row.cells[1].detail
    assert row.cells[2].sort == pytest.approx(0.3)
    assert table.rows[-1].cells[0].badges[0].text == "lexical"


def test_holes_are_crossed_out_with_their_reason_and_take_no_colour(chart):
    (spec,) = vega_lite_specs(chart)
    layer, holes = layer_of(spec, "missing")
    assert {hole["status"] for hole in holes} == {"failed", "undefined"}
    assert all(hole["reason"] for hole in holes) and all("value" not in hole for hole in holes)
    assert layer["mark"]["fill"] == "var(--wash)"
    assert "×" in chart_svg(spec)


def test_stronger_colours_are_better_in_either_direction(chart):
    for better, first in (("lower", HEAT_COUNT), ("higher", 1)):
        turned = dataclasses.replace(chart, color=dataclasses.replace(chart.color, better=better))
        (spec,) = vega_lite_specs(turned)
        scale = spec["layer"][0]["encoding"]["fill"]["scale"]
        expected = [f"var(--heat-{i + 1})" for i in range(HEAT_COUNT)]
        assert scale["range"] == (expected if first == 1 else expected[::-1])
        assert scale["domain"] == list(chart.limits)


def test_more_limits_than_colours_are_refused(chart):
    with pytest.raises(ValueError, match="6 colours"):
        vega_lite_specs(dataclasses.replace(chart, limits=tuple(range(6))))


def test_names_of_tasks_are_text_wherever_they_stand(chart):
    assert any(HOSTILE in label.name for label in chart.rows)
    (spec,) = vega_lite_specs(chart)
    assert all("\u202e" not in label.name for label in chart.rows)
    svg = chart_svg(spec)
    assert "<script>alert" not in svg and "<img" not in svg


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_grow_steadily_in_one_direction_and_values_on_them_can_be_read(theme):
    from test_charts import _contrast, _luminance

    style = (resources.files("autointerp.reporting") / "templates" / "report.css").read_text()
    found = re.findall(r"(--[\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colors = {name: pair[theme] for name, *pair in found}
    scale = [colors[f"--heat-{i + 1}"] for i in range(HEAT_COUNT)]
    brightness = [_luminance(color) for color in scale]
    assert brightness == sorted(brightness, reverse=theme == 0)
    assert all(_contrast(one, other) >= 1.2 for one, other in itertools.pairwise(scale))
    for place, color in enumerate(scale, start=1):
        assert _contrast(color, colors["--paper" if place >= 4 else "--ink"]) >= 4.5


def test_of_many_checkpoints_values_are_left_to_the_table(realistic):
    many = [
        dataclasses.replace(realistic.checkpoints[0], name=f"sae-{place}", role="checkpoint")
        for place in range(17)
    ]
    chart = probe_heatmap(with_probes(dataclasses.replace(realistic, checkpoints=many)))
    (spec,) = vega_lite_specs(chart)
    assert layer_of(spec, "names-values") == (None, [])
    assert len(chart_table(chart).columns) == 18
    few = probe_heatmap(with_probes(dataclasses.replace(realistic, checkpoints=many[:16])))
    assert layer_of(vega_lite_specs(few)[0], "names-values")[0] is not None
