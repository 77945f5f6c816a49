"""The simulator of graphs: texts of tokens for ids, hostile data, and its answers as judgements."""

import asyncio

import numpy as np
import pytest

from autointerp.explaining.graph_explainer import GraphExplainer
from autointerp.explaining.graph_trie import ANY, Path, graph_of
from autointerp.explanation_records import Explanation, LatentEvidence, Passage, Refusal
from autointerp.simulating.catalogue import SIMULATOR_NAMES, make_judge, make_simulator
from autointerp.simulating.graph import GraphSimulator

TEXTS = {5: "a", 6: " b", 9: "�", 11: "�"}
GRAPH = graph_of([Path((6, ANY, 5), False, 4.0), Path((9,), False, 2.0), Path((11, 5), True, 1.0)])


def explanation(data=None, text="x"):
    data = GRAPH.to_json(TEXTS) if data is None else data
    return Explanation("sae", 3, "neuron_to_graph", text, data=data)


def simulate(explained, *passages, **options):
    found = [Passage(str(number), tokens) for number, tokens in enumerate(passages)]
    return asyncio.run(GraphSimulator(**options).simulate(explained, found))


def test_tokens_are_known_by_their_text():
    first, second, third = simulate(explanation(), ("a", "zzz", " b", " b"), (), ("zzz", "�"))
    assert first.values.tolist() == [0, 0, 4.0, 0]
    assert first.passage == "0" and second.values.shape == (0,)
    assert third.values.tolist() == [0, 2.0], (
        "both broken characters read the same; the shorter path is met first"
    )


def test_passages_do_not_run_into_each_other():
    one, other = simulate(explanation(), ("a",), ("q", " b"))
    assert one.values.tolist() == [0] and other.values.tolist() == [0, 0]


def test_shares_rank_as_strengths_do_and_say_whether_the_graph_fires():
    (found,) = simulate(explanation(), ("a", "q", " b", "�"), predicts="share")
    assert found.values.tolist() == [0, 0, 1.0, 0.75]


def test_nothing_said_is_nothing_expected_and_an_llms_words_are_refused():
    (found,) = simulate(Explanation("sae", 3, "empty", ""), ("a", "b"))
    assert found.values.tolist() == [0, 0]
    (refused,) = simulate(Explanation("sae", 3, "highlighted", "fires on a"), ("a",))
    assert isinstance(refused, Refusal) and refused.cause == "no_explanation"


@pytest.mark.parametrize(
    "data", [{"kind": "token_table"}, {"kind": "neuron_graph", "version": 1, "nodes": 3}]
)
def test_damaged_data_is_a_refusal_for_every_passage(data):
    found = simulate(explanation(data), ("a",), ("b",))
    assert [each.cause for each in found] == ["unparsable"] * 2


def test_the_catalogue_makes_it_and_its_judges():
    assert "graph" in SIMULATOR_NAMES
    assert make_simulator("graph").name == "graph"
    passages = [Passage("0", ("a", "q", " b"), (2,)), Passage("1", ("a", "q"), (0,))]
    for asks in ("detection", "fuzzing"):
        judge = make_judge(f"graph/{asks}")
        one, other = asyncio.run(judge.judge(explanation(), passages))
        assert (one.value, other.value) == (1.0, 0.0)
        assert judge.needs == frozenset()


def evidence(latent):
    return LatentEvidence("sae", latent, "id", 0.1, 4.0, {})


def test_the_explainer_says_what_the_graph_says():
    data = {3: GRAPH.to_json(TEXTS), 4: {"kind": "?"}, 5: graph_of([]).to_json({})}
    explainer = GraphExplainer(data)
    found = asyncio.run(explainer.explain(evidence(3)))
    assert found.data == data[3] and found.explainer == "neuron_to_graph"
    assert '" b" after "a" *' in found.text
    assert np.isfinite(simulate(found, ("a", "q", " b"))[0].values).all()
    causes = [asyncio.run(explainer.explain(evidence(latent))).cause for latent in (4, 5, 6)]
    assert causes == ["unparsable", "no_explanation", "no_explanation"]
