"""Observations, lines of scores.jsonl and agreement of methods, from scores by latent."""

import json

import numpy as np
import polars as pl
import pytest
from predicted_passages import coin, half_right, judged, oracle, refused
from scipy.stats import spearmanr

from autointerp.estimates import compare_all, estimate_all
from autointerp.metrics.explanation_agreement import agreements
from autointerp.metrics.explanation_metrics import METRICS, observations_of, score_line, score_observations
from autointerp.records import OBSERVATION_SCHEMA, Measured, Undefined
from autointerp.scoring.agreement import spearman
from autointerp.scoring.latent_scores import latent_scores
from autointerp.scoring.predictions import prediction_frame
from autointerp.scoring.score import Score


def test_a_row_is_a_latent_with_its_weight_status_and_reason() -> None:
    rows = refused(judged(half_right, latents=[0, 1]), 7)
    rows += refused(judged(half_right, latents=[2]), 1, cause="cut_off")
    frame = observations_of(prediction_frame(rows))
    assert dict(frame.schema) == dict(pl.DataFrame(schema=OBSERVATION_SCHEMA).schema)
    headline = frame.filter(pl.col("metric") == "explanation.detection_auroc", pl.col("slice") == "{}")
    assert headline["unit"].to_list() == headline["cluster"].to_list() == ["sae:0", "sae:1", "sae:2"]
    assert headline["sampling_weight"].to_list() == [1.0, 2.0, 1.0]
    assert headline["status"].to_list() == ["measured", "measured", "undefined"]
    assert headline["numerator"].is_null().to_list() == [False, False, True]
    assert headline["reason"].to_list()[2] == "all 20 questions refused: cut_off"


def test_no_unit_stands_twice_in_a_series() -> None:
    rows = [
        *refused(judged(half_right), 5),
        *judged(coin, explanation="borrowed"),
        *judged(coin, explainer="statistics"),
    ]
    frame = observations_of(prediction_frame(rows))
    assert frame.select("checkpoint", "metric", "slice", "unit").is_unique().all()


def test_only_metrics_that_exist_are_observed() -> None:
    frame = observations_of(prediction_frame(judged()))
    assert set(frame["metric"]) <= {metric.name for metric in METRICS}


def test_the_estimate_is_the_weighted_mean_over_latents() -> None:
    rows = judged(half_right, latents=range(8))
    scores = latent_scores(prediction_frame(rows))
    found = {
        (r.metric, json.dumps(dict(r.slice))): r for r in estimate_all(score_observations(scores), METRICS)
    }
    outcome = found["explanation.detection_auroc", "{}"].outcome
    own = [s for s in scores if s.metric == "explanation.detection_auroc" and not s.slice]
    expected = np.average([s.outcome.value for s in own], weights=[s.sampling_weight for s in own])
    assert isinstance(outcome, Measured)
    assert outcome.estimate.value == pytest.approx(expected)
    assert (outcome.estimate.n, outcome.estimate.sampled) == (8, "latent")


def test_dictionaries_are_compared_as_independent_samples() -> None:
    rows = [
        *judged(oracle, latents=range(8), checkpoint="good"),
        *judged(coin, latents=range(6), checkpoint="bad"),
    ]
    found = compare_all(observations_of(prediction_frame(rows)), METRICS, [("good", "bad")], resamples=300)
    by_metric = {comparison.metric: comparison for comparison in found}
    comparison = by_metric["explanation.detection_auroc"]
    assert isinstance(comparison.outcome, Measured)
    assert comparison.outcome.estimate.low > 0
    assert comparison.outcome.estimate.method.startswith("independent samples of 8 and 6 latents")


def test_a_line_is_json_without_anything_missing_in_it() -> None:
    rows = [*refused(judged(half_right, latents=[0]), 5), *refused(judged(latents=[1]), 1)]
    for score in latent_scores(prediction_frame(rows)):
        line = json.loads(json.dumps(score_line(score), allow_nan=False))
        assert not any(value in (None, {}) for value in line.values())
        assert line["metric"] == score.metric and line.get("slice", {}) == dict(score.slice)
        if "status" not in line:
            assert line["value"] == pytest.approx(score.outcome.value, rel=1e-7)
            assert line["ci_low"] <= line["value"] <= line["ci_high"]
            assert line["ci_low"] < line["ci_high"]
            assert "reason" not in line
        else:
            assert line["reason"] and "value" not in line
    line = score_line(next(s for s in latent_scores(prediction_frame(rows)) if s.metric.endswith("_auroc")))
    assert (line["asked"], line["refused"], line["n"]) == (20, {"unparsable": 4}, 16)
    assert line["n_positive"] == 8
    assert not {"method", "slice", "status"} & line.keys(), "what the rest implies is left out"


def test_a_null_says_so_once() -> None:
    rows = [*judged(latents=[0]), *judged(latents=[0], explanation="borrowed")]
    borrowed = [s for s in latent_scores(prediction_frame(rows)) if s.explanation == "borrowed"]
    found = [score_line(score) for score in borrowed]
    assert all(dict(score.slice) == {"explanation": "borrowed"} for score in borrowed)
    assert all(line["explanation"] == "borrowed" and "slice" not in line for line in found)
    assert found and all("asked" not in line for line in found if line["metric"].endswith("_auroc"))


@pytest.mark.parametrize("seed", range(4))
def test_the_rank_correlation_is_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one = generator.integers(0, 6, size=20).astype(float)
    other = one + generator.integers(0, 6, size=20)
    found = spearman(one, other)
    assert isinstance(found, Score)
    assert found.value == pytest.approx(spearmanr(one, other).statistic)
    assert found.low < found.value < found.high


def test_the_rank_correlations_interval_covers() -> None:
    generator = np.random.default_rng(0)
    rho = 0.6
    truth = 6 / np.pi * np.arcsin(rho / 2)
    covered = 0
    for _ in range(300):
        pair = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=25)
        found = spearman(pair[:, 0], pair[:, 1])
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.92


def test_the_same_order_has_one_and_still_an_interval() -> None:
    values = np.arange(8.0)
    assert spearman(values, np.exp(values)).value == 1
    assert spearman(values, -values).value == -1
    assert spearman(values, values).low == pytest.approx(0.025 ** (1 / 8))


def test_few_latents_or_constant_scores_do_not_agree_or_disagree() -> None:
    assert spearman(np.arange(4.0), np.arange(4.0)) == Undefined("only 4 latents have both scores")
    constant = spearman(np.arange(9.0), np.ones(9))
    assert constant == Undefined("one of the scores is the same for all latents")
    with pytest.raises(ValueError, match="finite"):
        spearman(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_methods_agree_on_the_latents_that_have_both_scores() -> None:
    rows = judged(half_right, latents=range(9))
    rows += judged(half_right, latents=range(2, 9), method="fuzzing", seed=1)
    rows += judged(coin, latents=range(9), method="detection", explanation="borrowed")
    scores = latent_scores(prediction_frame(rows))
    found = agreements(scores)
    assert [(a.one, a.other) for a in found] == [("explanation.detection_auroc", "explanation.fuzzing_auroc")]
    columns = {
        metric: {s.latent: s.outcome.value for s in scores if s.metric == metric and not s.slice}
        for metric in (found[0].one, found[0].other)
    }
    both = range(2, 9)
    expected = spearmanr(*([column[n] for n in both] for column in columns.values())).statistic
    assert found[0].outcome.value == pytest.approx(expected)
    assert found[0].outcome.n == 7


def test_one_method_alone_has_nothing_to_agree_with() -> None:
    assert agreements(latent_scores(prediction_frame(judged()))) == []
