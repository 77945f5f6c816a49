"""Neuron-to-Graph in whole runs on planted words, whose graphs are known beforehand."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch

from autointerp.checkpoints.load import write_checkpoint
from autointerp.config import load_suite
from autointerp.errors import BadInputError
from autointerp.evaluation import evaluate, evaluate_autoencoders
from autointerp.evaluation.studies import graph_building
from autointerp.evaluation.studies.graphs import GraphStudy
from autointerp.explaining.graph_trie import Graph
from autointerp.sampling.corpus import document_of
from autointerp.sampling.fragment_runs import FragmentRuns
from autointerp.testing.planted_words import (
    PLANTED,
    SITE,
    planted_documents,
    planted_words,
    write_planted_words,
)

WORDS = PLANTED[:6]
GRAPHS = {"reconstruction": "first", "graph_examples": 8, "filler": " bridge"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return suite_in(tmp_path_factory.mktemp("planted"))


def suite_in(folder, documents=120, **graphs):
    made = load_suite(write_planted_words(folder, documents=documents, words=WORDS))
    return with_graphs(made, **graphs)


def with_graphs(suite, **graphs):
    metrics = suite.metrics.model_copy(update={"families": ("reconstruction", "n2g")})
    section = type(suite.graphs)(**GRAPHS | graphs)
    return suite.model_copy(update={"metrics": metrics, "graphs": section})


@pytest.fixture(scope="module")
def run(suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return evaluate(suite, out=out), out


def value(report, metric, checkpoint="planted", **settings):
    for result in report.results:
        if (result.checkpoint, result.metric, dict(result.slice)) == (checkpoint, metric, settings):
            return result.outcome
    raise AssertionError(f"no {metric} of {checkpoint} at {settings}")


def test_planted_words_are_found_and_a_borrowed_graph_knows_nothing(run):
    report, _ = run
    assert value(report, "n2g.precision").estimate.value > 0.99
    assert value(report, "n2g.recall").estimate.value > 0.9
    assert value(report, "n2g.f1").estimate.value > 0.9
    assert value(report, "n2g.correlation").estimate.value > 0.9
    for metric in ("n2g.recall", "n2g.f1"):
        assert value(report, metric, null="borrowed").estimate.value < 0.1
    assert value(report, "n2g.recall").estimate.n == len(WORDS)
    assert value(report, "n2g.recall", "random dictionary 1").status == "measured"


def test_graphs_of_planted_words_are_their_words(run):
    _, out = run
    rows = pl.read_parquet(out / "latents" / "graphs.parquet").filter(checkpoint="planted")
    assert sorted(rows["latent"].to_list()) == list(range(len(WORDS)))
    for latent, data in rows.select("latent", "data").iter_rows():
        graph, texts = Graph.from_json(json.loads(data))
        for path, _ in graph.paths:
            assert len(path.tokens) == 1 and not path.needs_start
            assert texts[path.tokens[0]].strip() in WORDS[latent]


def test_what_simulated_latents_lose_lies_between_the_dictionary_and_nothing(run):
    report, _ = run
    loss = "n2g.reconstruction_kl_nats"
    true = value(report, loss, baseline="true activations").estimate.value
    graphs, bias = value(report, loss).estimate.value, value(report, loss, baseline="bias").estimate.value
    assert true == pytest.approx(0, abs=1e-6)
    assert true < graphs < bias
    for name in ("zeros", "unigram", "bigram"):
        assert value(report, loss, baseline=name).estimate.value > 0
    skipped = value(report, loss, "random dictionary 1")
    assert skipped.status == "skipped" and "graphs.reconstruction" in skipped.reason


def test_the_explanations_step_explains_and_tests_with_the_graphs(run):
    report, out = run
    assert "neuron_to_graph" in report.explanations["explainers"]
    assert "graph" in report.explanations["methods"]
    source = {"explainer": "neuron_to_graph", "method": "graph"}
    assert value(report, "explanation.simulation_correlation", **source).estimate.value > 0.9
    lines = [json.loads(line) for line in (out / "explanations.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["explainer"] == "neuron_to_graph"]
    assert own and all(line["text"].startswith("Fires on ") for line in own if line["status"] == "explained")


def test_what_the_report_is_told_says_how_it_was_done(run):
    report, _ = run
    facts = report.studies["n2g"]
    assert facts["setting"]["fillers"] == [" bridge"] and facts["setting"]["front"] == ["<|bos|>"]
    assert facts["reconstruction"]["checkpoints"]["planted"]["latents"] > len(WORDS)
    json.dumps(facts)


def test_precision_and_recall_are_those_of_a_plain_count(run, suite):
    """Against contexts.parquet, word by word: no walk, no spill."""
    _, out = run
    planted = planted_words(WORDS)
    texts = dict(pl.read_parquet(out / "latents" / "vocabulary.parquet").iter_rows())
    graphs = pl.read_parquet(out / "latents" / "graphs.parquet").filter(checkpoint="planted")
    observations = pl.read_parquet(out / "observations" / "n2g.parquet").filter(
        checkpoint="planted", metric="n2g.precision", slice="{}"
    )
    contexts = pl.read_parquet(out / "latents" / "contexts.parquet").filter(split="score")
    for latent, data in graphs.select("latent", "data").iter_rows():
        graph, _ = Graph.from_json(json.loads(data))
        hits = right = 0
        for tokens, first in contexts.select("tokens", "first_scored").iter_rows():
            text = tokens[first:]
            for token, expected in zip(text, graph.predict(text), strict=True):
                hits += expected > 0
                right += expected > 0 and planted.fires_on(latent, texts[token])
        unit = [u for u in observations["unit"] if u.endswith(f":{latent}")]
        (own,) = observations.filter(pl.col("unit").is_in(unit))["numerator"].to_list()
        assert right == hits and own == 1.0


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(run, suite, tmp_path, monkeypatch):
    report, out = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for name in ("finished.json", "report.json", "report.html", "latents/graphs.parquet"):
        (again / name).unlink()
    for pattern in ("n2g~scores*", "n2g~reconstruction*"):
        for shard in (again / "chunks").glob(f"{pattern}.parquet"):
            shard.unlink()
    monkeypatch.setattr(FragmentRuns, "strengths", None)  # graphs are not built again
    resumed = evaluate(suite, out=again)
    ours = [result for result in report.results if result.metric.startswith("n2g.")]
    assert ours == [result for result in resumed.results if result.metric.startswith("n2g.")]


def test_waves_do_not_change_the_graphs(run, suite, tmp_path, monkeypatch):
    _, out = run
    monkeypatch.setattr(graph_building, "_WAVE", 10)
    plain = suite.model_copy(
        update={"explanations": suite.explanations.model_copy(update={"enabled": False})}
    )
    evaluate(with_graphs(plain, reconstruction="none"), out=tmp_path / "waves")
    table = [pl.read_parquet(each / "latents" / "graphs.parquet") for each in (out, tmp_path / "waves")]
    one, other = (
        frame.select("checkpoint", "latent", "data").sort("checkpoint", "latent") for frame in table
    )
    assert len(list((tmp_path / "waves" / "chunks").glob("n2g~graphs*"))) > 2
    for first, second in zip(one.iter_rows(), other.iter_rows(), strict=True):
        assert first[:2] == second[:2]
        paths = [list(Graph.from_json(json.loads(row[2]))[0].paths) for row in (first, second)]
        assert [each[0][:2] for each in paths[0]] == [each[0][:2] for each in paths[1]]


def test_a_dictionary_that_fails_does_not_take_the_others_with_it(suite, tmp_path, monkeypatch):
    whole = FragmentRuns.strengths

    def breaks(self, asks):
        if any(ask.dictionary == "planted" for ask in asks):
            raise RuntimeError("out of luck\nand more")
        return whole(self, asks)

    monkeypatch.setattr(FragmentRuns, "strengths", breaks)
    plain = suite.model_copy(
        update={"explanations": suite.explanations.model_copy(update={"enabled": False})}
    )
    report = evaluate(plain, out=tmp_path / "run")
    failed = value(report, "n2g.f1")
    assert failed.status == "failed" and "out of luck" in failed.reason and "\n" not in failed.reason
    assert value(report, "n2g.f1", "random dictionary 1").status == "measured"
    assert value(report, "n2g.reconstruction_delta_ce_nats").status == "failed"


def without_explanations(suite):
    return suite.model_copy(update={"explanations": suite.explanations.model_copy(update={"enabled": False})})


def test_graphs_that_failed_are_built_when_the_run_goes_on(run, suite, tmp_path, monkeypatch):
    report, _ = run
    plain = without_explanations(suite)

    def breaks(self, asks):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(FragmentRuns, "strengths", breaks)
        assert value(evaluate(plain, out=tmp_path / "run"), "n2g.f1").status == "failed"
    again = evaluate(plain, out=tmp_path / "run")
    ours = [result for result in report.results if result.metric.startswith("n2g.")]
    assert ours == [result for result in again.results if result.metric.startswith("n2g.")]


def test_a_dictionary_that_was_lost_and_comes_back_has_all_its_graphs(run, suite, tmp_path, monkeypatch):
    """Its latents stand in the same waves as the others', of which there are shards without it."""
    report, _ = run
    plain = without_explanations(suite)
    observe = GraphStudy.observe

    def without_first(self, work, entries):
        return observe(self, work, entries[1:])

    with monkeypatch.context() as patch:
        patch.setattr(GraphStudy, "observe", without_first)
        evaluate(plain, out=tmp_path / "run")
    for name in ("finished.json", "report.json"):
        (tmp_path / "run" / name).unlink()
    again = evaluate(plain, out=tmp_path / "run")
    for metric in ("n2g.recall", "n2g.f1"):
        assert value(again, metric) == value(report, metric)


def test_without_a_live_latent_scores_are_undefined_and_say_why(tmp_path):
    made = suite_in(tmp_path)
    sae = planted_words(WORDS).sae
    dead = replace(sae, encoder_bias=torch.full_like(sae.encoder_bias, -1e6))
    shutil.rmtree(tmp_path / "planted")
    write_checkpoint(dead, tmp_path / "planted", format="saelens")
    checks = made.checks.model_copy(update={"largest_normalized_mse": 1e9})
    report = evaluate(without_explanations(made).model_copy(update={"checks": checks}), out=tmp_path / "run")
    for metric in ("precision", "recall", "f1", "correlation"):
        outcome = value(report, f"n2g.{metric}")
        assert outcome.status == "undefined" and "live" in outcome.reason
    bias = value(report, "n2g.reconstruction_kl_nats", baseline="bias").estimate.value
    assert value(report, "n2g.reconstruction_kl_nats").estimate.value == pytest.approx(bias)


@pytest.mark.parametrize("filler", ["harbour quickly", ""])
def test_a_filler_that_is_no_token_is_refused(suite, tmp_path, filler):
    with pytest.raises(BadInputError, match="filler"):
        evaluate(with_graphs(suite, filler=filler), out=tmp_path / "run")


def test_a_misspelt_dictionary_is_refused(suite, tmp_path):
    with pytest.raises(BadInputError, match="plantd"):
        evaluate(with_graphs(suite, reconstruction=("plantd",)), out=tmp_path / "run")


class Corpus:
    """Texts in memory."""

    def documents(self):
        for number, text in enumerate(planted_documents(40, words=WORDS)):
            yield document_of(text, name=str(number))


def test_without_sampled_latents_all_of_it_is_skipped():
    planted = planted_words(WORDS)
    report = evaluate_autoencoders(
        planted.subject, {"sae": planted.sae}, Corpus(), site=SITE, metrics=("reconstruction", "n2g")
    )
    outcomes = [result.outcome for result in report.results if result.metric.startswith("n2g.")]
    assert {outcome.status for outcome in outcomes} == {"skipped"}
    assert all("sampling" in outcome.reason for outcome in outcomes)
    assert torch.isfinite(planted.sae.encoder_weight).all()
