"""The report's section on ablations: every number beside its nulls, and why there is none."""

from dataclasses import replace

import pytest

from autointerp.metrics.ablation_observations import ABLATION_METRICS
from autointerp.records import Estimate, Failed, Measured, MetricResult, Undefined
from autointerp.reporting.ablation import ablation_sections
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.parts import Callout, Table

FACTS = {
    "sample_count": 200,
    "document_count": 76,
    "eligible_token_count": 34_755,
    "too_late_token_count": 4_802,
    "horizon": 16,
    "subtract_from": "activation",
    "precision": "float32",
    "whole_contexts": {},
}
VALUES = {
    ("ablation.sparsity", ""): 0.123,
    ("ablation.sparsity", "random_directions"): 0.131,
    ("ablation.sparsity", "channels"): 0.127,
    ("ablation.sparsity_over_random", ""): 0.94,
    ("ablation.token_concentration", ""): 0.32,
    ("ablation.effect_kl_nats", ""): 0.0456,
    ("ablation.direct_share", ""): 0.61,
}


def measured(value):
    return Measured(Estimate(value, value - 0.01, value + 0.01, 0.95, "bootstrap", 200, "sample"))


def results(name, failed=False):
    for (metric, null), value in VALUES.items():
        settings = {"null": null} if null else {}
        outcome = Failed("RuntimeError: out of luck") if failed and not null else measured(value)
        yield MetricResult(name, metric, settings, outcome)
    for metric, value in (("ablation.sparsity", 0.6), ("ablation.sparsity_over_random", 0.97)):
        yield MetricResult(name, metric, {"horizon": 1}, measured(value))


@pytest.fixture
def ablated(realistic):
    first, *others = realistic.checkpoints
    found = [*results(first.name)]
    for other in others[:1]:
        found += results(other.name, failed=True)
    return replace(
        realistic,
        definitions=(*realistic.definitions, *ABLATION_METRICS),
        results=(*realistic.results, *found),
        studies={"ablation": FACTS},
    )


def tables(report):
    [section] = ablation_sections(report)
    return {part.name: part for part in section.parts if isinstance(part, Table)}


def cells(table, row=0):
    titles = [f"{column.title}|{column.unit}" for column in table.columns]
    return dict(zip(titles, table.rows[row].cells, strict=True))


def test_nothing_is_said_where_nothing_was_ablated(realistic):
    assert ablation_sections(replace(realistic, studies={})) == ()


def test_latents_stand_beside_their_nulls(ablated):
    row = cells(tables(ablated)["ablation"])
    assert row["Sparsity|T = 16"].text == "0.123"
    assert row["Random directions|T = 16"].text == "0.131"
    assert row["Channels|T = 16"].text == "0.127"
    assert row["Over random|T = 16"].text == "0.940"
    assert row["Sparsity|T = 1"].text == "0.600"
    assert row["Channels|T = 1"].kind == "missing"
    effects = cells(tables(ablated)["ablation-effect"])
    assert effects["Effect|nats"].text == "0.046"
    assert effects["Direct share|"].text == "0.610"
    assert effects["Token concentration|"].text == "0.320"


def test_every_checkpoint_has_a_row_and_nulls_are_marked(ablated):
    for table in tables(ablated).values():
        assert [row.cells[0].text for row in table.rows] == [c.name for c in ablated.checkpoints]
        assert [row.is_null for row in table.rows] == [c.role == "null" for c in ablated.checkpoints]
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_failure_is_shown_also_where_its_slices_are_missing(ablated):
    row = cells(tables(ablated)["ablation-effect"], row=1)
    for title in ("Effect|nats", "Sparsity, direct|", "Sparsity, mediated|"):
        assert row[title].kind == "missing"
        assert "out of luck" in row[title].hint


def test_the_lead_says_how_it_was_sampled(ablated):
    [section] = ablation_sections(ablated)
    for words in ("200 tokens of 76 documents", "T = 16", "4\u202f802", "what the model computes itself"):
        assert words in section.lead
    other = replace(ablated, studies={"ablation": {**FACTS, "subtract_from": "reconstruction"}})
    assert "reconstruction" in ablation_sections(other)[0].lead


def test_at_horizon_one_there_is_one_block_of_columns(ablated):
    one = replace(ablated, studies={"ablation": {**FACTS, "horizon": 1}})
    assert [column.title for column in tables(one)["ablation"].columns].count("Sparsity") == 1


def test_half_precision_and_whole_contexts_are_pointed_out(ablated):
    facts = {**FACTS, "precision": "bfloat16", "whole_contexts": {"model.norm": "it lies outside the blocks"}}
    [section] = ablation_sections(replace(ablated, studies={"ablation": facts}))
    boxes = [part for part in section.parts if isinstance(part, Callout)]
    assert [box.tone for box in boxes] == ["bad", "neutral"]
    assert "bfloat16" in boxes[0].lines[0]
    assert boxes[1].lines == ("model.norm: it lies outside the blocks.",)


def test_where_no_token_could_be_ablated_the_reason_stands_in_the_cells(realistic):
    name, reason = realistic.checkpoints[0].name, "no context has a token with 15 after it"
    none = [MetricResult(name, metric.name, {}, Undefined(reason)) for metric in ABLATION_METRICS]
    report = replace(realistic, results=(*realistic.results, *none), studies={"ablation": {}})
    for table in tables(report).values():
        assert {cell.hint for cell in table.rows[0].cells[1:]} == {reason}


def test_it_is_the_same_from_report_json_and_can_be_drawn(ablated, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report_json(ablated), encoding="utf-8")
    assert ablation_sections(read_report(path)) == ablation_sections(ablated)
    assert report_html(read_report(path))
