"""The report's section on graphs: scores beside nulls, what was skipped, drawings of hostile tokens."""

import json

import pytest

from autointerp.explaining.graph_trie import ANY, Path, graph_of
from autointerp.metrics.n2g import METRICS
from autointerp.records import (
    CheckpointSummary,
    Estimate,
    EvaluationReport,
    Measured,
    MetricResult,
    Skipped,
    Undefined,
)
from autointerp.reporting.graphs import graph_sections
from autointerp.reporting.latent_explanations import explanations_of
from autointerp.reporting.parts import Callout, Code, Table

FACTS = {
    "setting": {
        "fillers": [" _"],
        "front": ["<s>\x1b[31m"],
        "prefix_tokens": 16,
        "saliency_threshold": 0.5,
        "suffix_share": 0.25,
        "match": "first",
        "graph_examples": 16,
        "recall_sequences": 16,
        "fire_threshold": 0.0,
    },
    "checkpoints": [{"checkpoint": "a", "graphs": 12, "examples": 190, "unreached": 1}],
}
HOSTILE = {1: "<script>alert(1)</script>", 2: "\x1b[2J\u202e", 3: "\n"}
GRAPH = graph_of([Path((1, ANY, 2), False, 2.0), Path((3,), True, 1.0)]).to_json(HOSTILE)


def summary(name, role="checkpoint"):
    return CheckpointSummary(name, "", "", "x", "topk", 8, 4, "site", role, "none")


def measured(value, n=12, sampled="latent"):
    return Measured(Estimate(value, value - 0.1, value + 0.1, 0.95, "bootstrap", n, sampled))


def report(facts=FACTS):
    results = [
        MetricResult("a", "n2g.precision", {}, measured(0.7, n=10)),
        MetricResult("a", "n2g.recall", {}, measured(0.3)),
        MetricResult("a", "n2g.f1", {}, measured(0.35)),
        MetricResult("a", "n2g.f1", {"null": "borrowed"}, measured(0.01)),
        MetricResult("a", "n2g.correlation", {}, Undefined("constant")),
        MetricResult("a", "n2g.reconstruction_delta_ce_nats", {}, measured(2.4, sampled="document")),
        MetricResult("a", "n2g.reconstruction_delta_ce_nats", {"baseline": "zeros"}, measured(4.9)),
        MetricResult("n", "n2g.reconstruction_delta_ce_nats", {}, Skipped("none was asked (1 of 1 units)")),
    ]
    return EvaluationReport(
        suite={},
        subject={},
        corpus={},
        checkpoints=(summary("a"), summary("n", "null")),
        definitions=METRICS,
        results=results,
        comparisons=(),
        cost={},
        provenance={},
        studies={} if facts is None else {"n2g": facts},
    )


def test_scores_stand_beside_those_of_borrowed_graphs():
    (section,) = graph_sections(report())
    table = next(part for part in section.parts if isinstance(part, Table) and part.name == "graphs")
    own, null = table.rows
    assert [cell.text for cell in own.cells[1:5]] == ["0.70", "0.30", "0.35", "0.01"]
    assert own.cells[-2].text == "2" and own.cells[-1].text == "12", "two graphs fire nowhere"
    assert null.is_null and {cell.kind for cell in null.cells[1:]} == {"missing"}
    assert own.cells[5].kind == "missing"


def test_losses_are_in_order_and_what_was_not_simulated_is_said():
    (section,) = graph_sections(report())
    table = next(part for part in section.parts if isinstance(part, Table) and part.name == "graph-losses")
    assert {row.cells[0].text for row in table.rows} == {"a"}
    assert [row.cells[2].text for row in table.rows if row.cells[2].kind == "number"] == ["2.40", "4.90"]
    box = next(part for part in section.parts if isinstance(part, Callout))
    assert box.lines == ("n: none was asked.",)


def test_the_lead_says_how_and_shows_no_escapes():
    (section,) = graph_sections(report())
    assert "keeps 0.25 of it" in section.lead
    assert "16 random activations" in section.lead and "␣_" in section.lead
    assert "\x1b" not in section.lead


def rows(count):
    return [
        {"checkpoint": "a", "latent": latent, "explainer": "neuron_to_graph", "data": GRAPH}
        for latent in range(count)
    ]


def test_a_few_graphs_are_drawn_by_hash_and_harmless():
    (section,) = graph_sections(report(), rows(9))
    codes = [part for part in section.parts if isinstance(part, Code)]
    assert len(codes) == 2
    assert [code.title for code in codes] == [
        code.title for code in graph_sections(report(), rows(9)[::-1])[0].parts if isinstance(code, Code)
    ]
    for code in codes:
        assert all(line.isprintable() for line in code.text.splitlines())
        assert "alert(1)" in code.text  # escaped by whoever writes HTML


@pytest.mark.parametrize("data", [{}, {"kind": "neuron_graph"}, {"kind": "token_table"}])
def test_damaged_graphs_are_not_drawn(data):
    some = [{"checkpoint": "a", "latent": 1, "explainer": "neuron_to_graph", "data": data}]
    (section,) = graph_sections(report(), some)
    assert not [part for part in section.parts if isinstance(part, Code)]


def test_without_graphs_there_is_no_section_and_skipped_ones_are_said_so():
    assert graph_sections(report(None)) == ()
    (section,) = graph_sections(report({}))
    assert section.lead == "No graphs were made."


def test_show_draws_the_graph_of_a_latent(tmp_path):
    line = {"checkpoint": "a", "latent": 1, "explainer": "neuron_to_graph", "status": "explained"}
    lines = [line | {"text": "Fires", "data": GRAPH}, line | {"explainer": "x", "text": "y", "data": {}}]
    damaged = line | {"explainer": "z", "text": "", "data": {"kind": "neuron_graph", "nodes": 1}}
    text = "".join(json.dumps(each, sort_keys=True) + "\n" for each in [*lines, damaged])
    (tmp_path / "explanations.jsonl").write_text(text)
    graph, other, broken = explanations_of(tmp_path, checkpoint="a", latent=1)
    assert len(graph.graph) == 2 and '"<script>alert(1)</script>" < * < ' in graph.graph[0]
    assert other.graph == broken.graph == ()
