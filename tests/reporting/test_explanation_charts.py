"""Charts of the section on explanations: scores by strength, and cost against score."""

import dataclasses

import pytest
from chart_examples import with_cost, with_quantiles

from autointerp.reporting.charts import chart_svg, vega_lite_specs
from autointerp.reporting.cost_charts import cost_chart
from autointerp.reporting.explanations import explanation_sections
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.quantile_charts import quantile_charts


def test_scores_by_strength_are_those_of_the_headline_from_weak_to_strong(realistic):
    (chart,) = quantile_charts(with_quantiles(realistic))
    assert chart.x_order == ("1 (weakest)", "2", "3 (strongest)")
    mine = {point.x: point.y for point in chart.points if point.label == "relu-8k"}
    assert mine == pytest.approx({"1 (weakest)": 0.6, "2": 0.7, "3 (strongest)": 0.8})
    assert {point.label for point in chart.points if point.is_null} == {"random-8k-k32"}
    assert all(point.y_low < point.y < point.y_high for point in chart.points)
    (spec,) = vega_lite_specs(chart)
    assert chart_svg(spec)


def test_one_range_of_strength_is_no_line(realistic):
    report = with_quantiles(realistic)
    results = [r for r in report.results if r.slice.get("quantile", 0) == 0]
    assert quantile_charts(dataclasses.replace(report, results=results)) == []
    assert quantile_charts(realistic) == []


@pytest.mark.parametrize("usd", [True, False])
def test_a_latent_costs_its_explainer_and_its_share_of_the_test(realistic, usd):
    chart = cost_chart(with_cost(realistic, usd=usd))
    unit = 1e-6 if usd else 1.0
    costs = {point.series: point.x for point in chart.points}
    # Ten latents; two explainers share each test's tokens.
    assert costs == pytest.approx(
        {
            "cheap · detection": (1_000 + 2_000) / 10 * unit,
            "cheap · fuzzing": (1_000 + 4_000) / 10 * unit,
            "dear · detection": (9_000 + 2_000) / 10 * unit,
            "dear · fuzzing": (9_000 + 4_000) / 10 * unit,
        }
    )
    assert ("US $" if usd else "tokens") in chart.x.title
    assert len(chart.points) == 8, "simulation asked no LLM, so its scores are another judge's"
    (spec,) = vega_lite_specs(chart)
    assert chart_svg(spec)


def test_one_call_without_a_price_makes_it_tokens(realistic):
    report = with_cost(realistic)
    llm = report.cost["llm"]
    rows = [{k: v for k, v in row.items() if k != "usd" or place} for place, row in enumerate(llm["rows"])]
    chart = cost_chart(dataclasses.replace(report, cost={"llm": {**llm, "rows": rows}}))
    assert "tokens" in chart.x.title


def test_a_run_without_an_llm_has_no_such_chart(realistic):
    assert cost_chart(realistic) is None
    report = with_cost(realistic)
    for gone in ("rows", "needed", "per_million_latents"):
        llm = {name: part for name, part in report.cost["llm"].items() if name != gone}
        assert cost_chart(dataclasses.replace(report, cost={"llm": llm})) is None


def test_charts_stand_in_the_section_and_a_report_read_back_has_the_same(realistic, tmp_path):
    report = with_quantiles(with_cost(realistic))
    (section,) = explanation_sections(report)
    names = [getattr(part, "name", "") for part in section.parts]
    assert names.index("explanations") < names.index("quantiles-detection")
    assert names.index("llm-cost") < names.index("explanation-cost")
    path = tmp_path / "report.json"
    path.write_text(report_json(report), encoding="utf-8")
    again = read_report(path)
    assert cost_chart(again) == cost_chart(report)
    assert quantile_charts(again) == quantile_charts(report)
