"""Scores of graphs against brute force, their observations, and what is undefined."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from autointerp.estimates import estimate_all
from autointerp.metrics.n2g import METRICS, GraphScore, ScoredLatent, graph_observations
from autointerp.metrics.n2g_tallies import PLACE_SCHEMA, GraphTallies, borrowers
from autointerp.metrics.n2g_text_models import TextModels

LATENTS, ROWS, POSITIONS = 3, 4, 6


def places(grid, rows=range(ROWS)):
    """A dense (latent, row, position) array as the table of what is not 0."""
    latent, row, position = np.nonzero(grid)
    keep = np.isin(row, list(rows))
    latent, row, position = latent[keep], row[keep], position[keep]
    values = (latent, row, row * 1000 + 7, position, grid[latent, row, position])
    return pl.DataFrame(dict(zip(PLACE_SCHEMA, values, strict=True)), schema_overrides=PLACE_SCHEMA).select(
        pl.col(name).cast(kind) for name, kind in PLACE_SCHEMA.items()
    )


def grid(seed, share, *, signed=False):
    chance = np.random.default_rng(seed)
    shape = (LATENTS, ROWS, POSITIONS)
    values = chance.uniform(0.1, 2, shape) * (chance.choice([-1, 1], shape) if signed else 1)
    return np.where(chance.random(shape) < share, values, 0.0)


def scored(s, a, parts=(range(ROWS),), **options):
    tallies = GraphTallies(range(LATENTS), **options)
    for rows in parts:
        tallies.add(places(s, rows), places(a, rows), len(rows) * POSITIONS)
    return tallies.scores()


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.0, 0.8]))
def test_all_places_counted_are_the_definitions(seed, signed, threshold):
    s, a = grid(seed, 0.4), grid(seed + 1, 0.4, signed=signed)
    found = scored(s, a, recall_sequences=10**6, fire_threshold=threshold)
    for latent in range(LATENTS):
        predicted, strength = s[latent].ravel(), np.abs(a[latent].ravel())
        fires, graph = strength > threshold, predicted > 0
        both = (fires & graph).sum()
        score = found[latent]
        assert score.precision == (pytest.approx(both / graph.sum()) if graph.any() else None)
        assert score.recall == (pytest.approx(both / fires.sum()) if fires.any() else None)
        if fires.any():
            assert score.f1 == pytest.approx(2 * both / (graph.sum() + fires.sum()))
        if np.ptp(predicted) and np.ptp(strength):
            assert score.correlation == pytest.approx(pearsonr(predicted, strength)[0], abs=1e-9)
        else:
            assert score.correlation is None


@given(st.integers(0, 10**6), st.sampled_from([None, 2]))
def test_parts_of_the_text_and_their_order_do_not_matter(seed, precision_sequences):
    s, a = grid(seed, 0.4), grid(seed + 1, 0.4)
    options = {"recall_sequences": 3, "precision_sequences": precision_sequences, "seed": seed}
    whole = scored(s, a, **options)
    parts = scored(s, a, parts=([3], [0, 1], [2]), **options)
    for latent in range(LATENTS):
        for one, other in zip(whole[latent][:4], parts[latent][:4], strict=True):
            assert (one is None and other is None) or one == pytest.approx(other)


def test_draws_have_the_asked_size_and_are_fair():
    s, a = np.zeros((LATENTS, ROWS, POSITIONS)), np.ones((LATENTS, ROWS, POSITIONS))
    s[:, :, :2] = 1.0  # a third of all firings is recalled
    shares = [scored(s, a, recall_sequences=3, seed=seed)[0].recall for seed in range(300)]
    assert {round(share * 3, 6) for share in shares} <= {0, 1, 2, 3}
    assert np.mean(shares) == pytest.approx(1 / 3, abs=4 * math.sqrt(1 / 3 * 2 / 3 / 900))


def test_firings_of_other_latents_are_passed_over():
    tallies = GraphTallies([1])
    ones = np.ones((LATENTS, ROWS, POSITIONS))
    tallies.add(places(np.zeros_like(ones)), places(ones), ROWS * POSITIONS)
    assert set(tallies.scores()) == {1}


def test_a_graph_that_fires_nowhere_has_no_precision_and_recalls_nothing():
    score = scored(np.zeros((LATENTS, ROWS, POSITIONS)), grid(0, 0.5))[0]
    assert (score.precision, score.recall, score.f1, score.correlation) == (None, 0.0, 0.0, None)
    assert score.reasons["precision"] == "its graph fires nowhere in the scored text"
    assert set(score.reasons) == {"precision", "correlation"}


def test_rows_of_what_has_no_number_stay_and_are_counted():
    whose = [ScoredLatent("sae", f"latent {place}", weight) for place, weight in enumerate((1.0, 3.0, 1.0))]
    scores = [
        GraphScore.of(precision=1.0, recall=0.5, correlation=0.9),
        GraphScore.of(precision=None, recall=0.0, correlation=None),
        GraphScore.without_graph("nothing to make one from"),
    ]
    rows = graph_observations(list(zip(whose, scores, strict=True)))
    assert rows.height == 12
    by = {(metric, unit): (value, status) for metric, unit, value, status in rows.select(
        "metric", "unit", "numerator", "status").iter_rows()}  # fmt: skip
    assert by["n2g.f1", "latent 0"] == (pytest.approx(2 / 3), "measured")
    assert by["n2g.recall", "latent 1"] == (0.0, "measured")
    assert by["n2g.precision", "latent 1"] == (None, "undefined")
    assert by["n2g.recall", "latent 2"] == (None, "undefined")
    many = pl.concat([rows.with_columns(unit=pl.col("unit") + str(copy)) for copy in range(5)])
    results = estimate_all(many.with_columns(cluster="unit"), METRICS[:4], checkpoints=["sae"])
    recall = next(result.outcome for result in results if result.metric == "n2g.recall")
    assert recall.estimate.value == pytest.approx((1 * 0.5 + 3 * 0.0) / 4), "weighted to stand for all"
    assert recall.estimate.n == 10 and "5 of 15 units undefined" in recall.estimate.method


def test_a_null_is_a_slice_and_no_scores_are_no_rows():
    whose = ScoredLatent("sae", "x", 1.0)
    rows = graph_observations(
        [(whose, GraphScore.of(precision=1.0, recall=1.0, correlation=1.0))], null="borrowed"
    )
    assert set(rows["slice"]) == {'{"null":"borrowed"}'}
    assert graph_observations([]).height == 0


@given(st.sets(st.integers(0, 1000), max_size=20), st.integers(0, 5))
def test_every_latent_borrows_anothers_graph_and_each_is_lent_once(latents, seed):
    lent = borrowers(sorted(latents), seed=seed)
    if len(latents) < 2:
        assert lent == {}
    else:
        assert set(lent) == set(lent.values()) == latents
        assert all(lender != to for lender, to in lent.items())
        assert lent == borrowers(sorted(latents, reverse=True), seed=seed)


def test_every_metric_says_what_it_is():
    assert [metric.name for metric in METRICS] == sorted({metric.name for metric in METRICS}, key=[
        "n2g.precision", "n2g.recall", "n2g.f1", "n2g.correlation", "n2g.reconstruction_delta_ce_nats",
        "n2g.reconstruction_kl_nats"].index)  # fmt: skip
    assert all("Gao" in metric.meaning or metric.name == "n2g.correlation" for metric in METRICS)


# ---- counts of tokens ---------------------------------------------------------------------------------


def test_the_models_of_text_are_probabilities_by_their_formulas():
    tokens = np.array([0, 1, 0, 1, 2, 3])
    models = TextModels(5, [(tokens[:4], np.array([0, 1, 2])), (tokens[4:], np.array([0]))])
    unigram = (np.array([2, 2, 1, 1, 0]) + 1) / 11
    assert models.unigram(2).exp().numpy() == pytest.approx(np.stack([unigram, unigram]))
    bigram = models.bigram(torch.tensor([0, 1, 3])).exp().numpy()
    assert bigram.sum(axis=1) == pytest.approx([1, 1, 1])
    assert bigram[0] == pytest.approx((np.array([0, 2, 0, 0, 0]) + 1 * unigram) / 3)
    assert bigram[1] == pytest.approx((np.array([1, 0, 0, 0, 0]) + 1 * unigram) / 2)
    assert bigram[2] == pytest.approx(unigram), "nothing was seen behind it"
    assert (bigram > 0).all()


def test_parts_of_the_text_add_up_in_any_order():
    chance = np.random.default_rng(0)
    parts = [(chance.integers(0, 6, 20), np.arange(19)) for _ in range(3)]
    one, other = TextModels(6, parts), TextModels(6, parts[::-1])
    every = torch.arange(6)
    assert torch.allclose(one.bigram(every), other.bigram(every))
    assert torch.equal(one.unigram(1), other.unigram(1))
