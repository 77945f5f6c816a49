"""Sections on scaling, refinement, the density spectrum and sites, from made-up reports."""

import dataclasses
import math

import pytest
from report_examples import density_observations

from autointerp.estimates.scaling_fits import scaling_facts
from autointerp.metrics.refinement import REFINEMENT_METRICS
from autointerp.records import Estimate, Failed, Measured, MetricDefinition, MetricResult
from autointerp.reporting.chart_data import charts_of
from autointerp.reporting.chart_tables import chart_table
from autointerp.reporting.charts import vega_lite_specs
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.layers import layer_sections, site_order
from autointerp.reporting.refinement import refinement_sections
from autointerp.reporting.report_document import build_document
from autointerp.reporting.scaling import scaling_sections
from autointerp.reporting.spectrum import spectrum_chart, spectrum_sections

DENSEST = "reconstruction.mean_density_of_densest"


def estimate(value: float, share: float = 0.05) -> Measured:
    half = abs(value) * share
    return Measured(Estimate(value, value - half, value + half, 0.95, "BCa", 100, "document"))


def texts(section) -> str:
    """All that a section's tables say."""
    tables = [part for part in section.parts if part.kind == "table"]
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    return "\n".join(f"{cell.text} {cell.detail} {cell.hint}" for cell in cells)


@pytest.fixture
def scaled(realistic):
    facts = scaling_facts(realistic.results, realistic.checkpoints)
    return dataclasses.replace(realistic, studies={"scaling": facts})


def test_a_law_that_cannot_be_fitted_says_why_and_one_that_can_shows_its_constants(scaled) -> None:
    [section] = scaling_sections(scaled)
    said = texts(section)
    assert "6 constants need at least 7 checkpoints, there are 5" in said
    product = next(fit for fit in scaled.studies["scaling"]["groups"][0]["fits"] if fit["law"] == "product")
    table = section.parts[0]
    rows = [row for row in table.rows if "plain product" in row.cells[0].text]
    assert [row.cells[2].text for row in rows] == ["α", "β_k", "β_n"]
    assert [row.cells[3].sort for row in rows] == [c["value"] for c in product["constants"]]


def test_a_report_that_was_written_and_read_shows_the_same(scaled, refined, tmp_path) -> None:
    path = tmp_path / "report.json"
    for report, sections in ((scaled, scaling_sections), (refined, refinement_sections)):
        path.write_text(report_json(report), encoding="utf-8")
        assert sections(read_report(path)) == sections(report)


def test_what_is_fitted_stands_beside_what_was_measured(scaled) -> None:
    [section] = scaling_sections(scaled)
    fitted = next(part for part in section.parts if part.name == "scaling-0-fitted")
    chart = next(part for part in section.parts if part.kind == "scatter")
    measured = {
        result.checkpoint: result.outcome.estimate
        for result in scaled.results
        if result.metric == "reconstruction.normalized_mse" and not result.slice
    }
    assert len(fitted.rows) == len(chart.points) == 5
    for row, point in zip(fitted.rows, chart.points, strict=True):
        name = row.cells[0].text
        assert row.cells[3].sort == point.y == measured[name].value
        assert row.cells[4].sort == point.x
        assert row.cells[5].sort == pytest.approx(point.y / point.x)
        assert (point.y_low, point.y_high) == (measured[name].low, measured[name].high)
    assert {point.series for point in chart.points} == {"k = 16", "k = 32", "k = 64"}


def test_a_fit_of_all_constants_is_set_beside_the_papers(realistic) -> None:
    checkpoints, results = [], []
    for n in (512, 2048, 8192):
        for k in (8, 16, 32):
            base = realistic.checkpoints[0]
            name = f"{n}-{k}"
            checkpoints.append(
                dataclasses.replace(base, name=name, latent_count=n, architecture=f"topk(k={k})")
            )
            loss = math.exp(-0.3 - 0.1 * math.log(n)) + math.exp(-2.0 - 0.1 * math.log(k))
            results.append(MetricResult(name, "reconstruction.l0", {}, estimate(float(k), 0.0)))
            results.append(MetricResult(name, "reconstruction.normalized_mse", {}, estimate(loss)))
    facts = scaling_facts(results, checkpoints)
    report = dataclasses.replace(
        realistic, checkpoints=checkpoints, results=results, studies={"scaling": facts}
    )
    [section] = scaling_sections(report)
    rows = [row for row in section.parts[0].rows if row.cells[0].sort == "joint"]
    assert [row.cells[4].sort for row in rows] == [-0.50, 0.26, -0.017, -0.042, -1.32, -0.085]
    assert "all six constants" in next(p for p in section.parts if p.name == "scaling-0-fitted").caption


@pytest.mark.parametrize(
    "sections",
    [scaling_sections, refinement_sections, layer_sections, lambda report: spectrum_sections(report, None)],
)
def test_nothing_to_show_is_no_section(realistic, sections) -> None:
    assert sections(realistic) == ()


@pytest.fixture
def refined(realistic):
    names = ("normalized_mse", "gain_normalized_mse", "shrinkage", "delta_ce_nats", "gain_delta_ce_nats")
    values = dict(zip(names, (0.1, 0.02, 1.4, 0.2, 0.05), strict=True))
    results = [
        MetricResult(checkpoint.name, f"refinement.{name}", {}, estimate(value))
        for checkpoint in realistic.checkpoints
        for name, value in values.items()
    ]
    results[1] = dataclasses.replace(results[1], outcome=Failed("chunk 0: RuntimeError: out of memory"))
    return dataclasses.replace(
        realistic,
        definitions=[*realistic.definitions, *REFINEMENT_METRICS],
        results=[*realistic.results, *results],
        studies={"refinement": {"token_count": 8123}},
    )


def test_refinement_has_a_row_each_checkpoint_and_a_mark_where_both_numbers_are(refined) -> None:
    [section] = refinement_sections(refined)
    table, chart = section.parts
    assert "8\u202f123 tokens" in section.lead
    assert {row.cells[0].text for row in table.rows} == {c.name for c in refined.checkpoints}
    assert "out of memory" in texts(section)
    lost = refined.checkpoints[0].name
    assert {point.label for point in chart.points} == {c.name for c in refined.checkpoints} - {lost}
    assert {point.y for point in chart.points} == {0.02}
    assert sum(point.is_null for point in chart.points) == 1


def test_the_spectrum_falls_from_the_densest_latent_to_the_rarest(realistic) -> None:
    observations = density_observations(realistic)
    chart = spectrum_chart(realistic, observations)
    for checkpoint in realistic.checkpoints:
        mine = [point for point in chart.points if point.series == checkpoint.name]
        rows = observations.filter(observations["checkpoint"] == checkpoint.name)
        density = sorted((rows["numerator"] / rows["denominator"]).to_list(), reverse=True)
        fired = [value for value in density if value > 0]
        assert mine[0].x == 1 and mine[-1].x == len(fired)
        assert [point.y for point in mine] == [fired[int(point.x) - 1] for point in mine]
        assert [point.y for point in mine] == sorted((point.y for point in mine), reverse=True)
        assert len(mine) <= 25
    [spec] = vega_lite_specs(chart)
    assert "rank" in spec["description"].lower()


def test_the_densest_stand_between_their_bounds(realistic) -> None:
    results = [*realistic.results, MetricResult("relu-8k", DENSEST, {}, estimate(0.2))]
    [section] = spectrum_sections(dataclasses.replace(realistic, results=results), None)
    [row] = [row for row in section.parts[0].rows if row.cells[0].text == "relu-8k"]
    assert row.cells[1].sort == 0.2
    assert row.cells[2].sort == pytest.approx(58.3 / 8192)
    assert row.cells[3].sort == pytest.approx(58.3 / 192)


def test_sites_stand_in_the_order_of_their_numbers() -> None:
    sites = ["blocks.10.hook_resid_post", "blocks.2.hook_resid_post", "blocks.2.hook_mlp_out", "embed"]
    assert site_order([*sites, *sites]) == (
        "embed",
        "blocks.2.hook_mlp_out",
        "blocks.2.hook_resid_post",
        "blocks.10.hook_resid_post",
    )
    assert len(site_order(["a" + "9" * 9000, "b"])) == 2


@pytest.fixture
def layered(realistic):
    """One shape on three sites, and another that one site has twice."""
    place = {"topk-2k-k16": 10, "topk-2k-k32": 2, "topk-8k-k16": 2, "topk-8k-k32": 3, "topk-8k-k64": 10}
    shape = dict.fromkeys(("topk-2k-k16", "topk-2k-k32"), "topk(k=16)")
    checkpoints = [
        dataclasses.replace(
            c,
            site=f"blocks.{place.get(c.name, 3)}.hook_resid_post",
            architecture=shape.get(c.name, c.architecture),
        )
        for c in realistic.checkpoints
    ]
    return dataclasses.replace(realistic, checkpoints=checkpoints)


def test_lines_join_one_shape_from_site_to_site(layered) -> None:
    [section] = layer_sections(layered)
    table, mse, delta = section.parts
    order = ("blocks.2.hook_resid_post", "blocks.3.hook_resid_post", "blocks.10.hook_resid_post")
    assert mse.x_order == order
    line = [point for point in mse.points if point.label == "topk(k=16) · 2\u202f048 latents"]
    assert {point.x: point.y for point in line} == {order[2]: 0.221, order[0]: 0.152}
    assert (mse.name, delta.name) == ("layers-normalized-mse", "layers-delta-ce-nats")
    assert len(table.rows) == len(layered.checkpoints)
    assert table.rows[-1].is_null


def test_two_of_one_shape_at_one_site_have_lines_of_their_own(layered) -> None:
    checkpoints = [
        dataclasses.replace(c, site="blocks.2.hook_resid_post") if "2k" in c.name else c
        for c in layered.checkpoints
    ]
    [section] = layer_sections(dataclasses.replace(layered, checkpoints=checkpoints))
    labels = {point.label for point in section.parts[1].points}
    assert {"topk-2k-k16", "topk-2k-k32"} <= labels


def test_losses_by_position_are_drawn_where_they_were_measured(realistic) -> None:
    results = [
        MetricResult("topk-2k-k16", "downstream.delta_ce_nats", {"position": place}, estimate(value))
        for place, value in (("0", 0.9), ("1-3", 0.4), ("4-15", 0.3))
    ]
    charts = charts_of(dataclasses.replace(realistic, results=[*realistic.results, *results]), None)
    chart = next(chart for chart in charts if chart.name == "positions-loss")
    assert chart.x_order == ("0", "1–3", "4–15")
    assert [point.y for point in chart.points] == [0.9, 0.4, 0.3]
    assert len({chart.name for chart in charts}) == len(charts)


def test_the_document_holds_each_section_once_and_names_nothing_twice(refined, scaled, layered) -> None:
    report = dataclasses.replace(
        refined, studies={**refined.studies, **scaled.studies}, checkpoints=layered.checkpoints
    )
    document = build_document(report, density_observations(report))
    names = [section.name for section in document.sections]
    for name in ("refinement", "spectrum", "layers", "scaling"):
        assert names.count(name) == 1
    parts = [part.name for part in (*document.charts, *document.tables)]
    assert len(parts) == len(set(parts))
    for chart in document.charts:
        assert chart_table(chart).rows
        assert vega_lite_specs(chart)


def test_hostile_names_are_only_ever_text(hostile) -> None:
    facts = scaling_facts(hostile.results, hostile.checkpoints)
    definition = MetricDefinition(
        "refinement.moved", "Moved", "It moved.", "ratio", "lower", "ratio", "document"
    )
    report = dataclasses.replace(
        hostile,
        definitions=[*hostile.definitions, definition],
        studies={"scaling": facts, "refinement": {"token_count": "<b>"}},
    )
    assert scaling_sections(report) and refinement_sections(report)
    assert "<b>" not in refinement_sections(report)[0].lead
