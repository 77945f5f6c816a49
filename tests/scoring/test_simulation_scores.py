"""Correlation, R^2 and absolute deviation of token predictions: oracles, laws, intervals."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Undefined
from autointerp.scoring.correlation import (
    TokenSequences,
    absolute_deviation,
    ev_correlation,
    rsquared,
    simulation_scores,
)
from autointerp.scoring.score import Score

SCORES = (ev_correlation, rsquared, absolute_deviation)


def drawn(seed: int = 0, *, count: int = 20, length: int = 12, noise: float = 0.3):
    generator = np.random.default_rng(seed)
    truth = [generator.gamma(2, size=length) * (generator.random(length) < 0.3) for _ in range(count)]
    predicted = [t + noise * generator.normal(size=length) for t in truth]
    return truth, predicted, [f"d{n}" for n in range(count)]


def value(score: Score | Undefined) -> float:
    assert isinstance(score, Score), score
    assert score.low < score.high
    return score.value


def test_they_are_their_formulas_over_all_tokens() -> None:
    truth, predicted, documents = drawn()
    tokens = TokenSequences.of(truth, predicted, documents)
    t, p = np.concatenate(truth), np.concatenate(predicted)
    assert value(ev_correlation(tokens)) == pytest.approx(pearsonr(t, p).statistic, abs=1e-12)
    assert value(rsquared(tokens)) == pytest.approx(1 - np.mean((t - p) ** 2) / np.mean(t**2), abs=1e-12)
    assert value(absolute_deviation(tokens)) == pytest.approx(
        1 - np.mean(np.abs(t - p)) / np.mean(np.abs(t)), abs=1e-12
    )


def test_together_they_are_as_alone() -> None:
    tokens = TokenSequences.of(*drawn(1))
    scaled = TokenSequences.of(drawn(1)[0], [2 * p for p in drawn(1)[1]], drawn(1)[2])
    together = simulation_scores(tokens, scaled)
    assert list(together.values()) == [ev_correlation(tokens), rsquared(scaled), absolute_deviation(scaled)]


@pytest.mark.parametrize("score", SCORES)
def test_order_of_passages_does_not_matter_to_the_bit(score) -> None:
    truth, predicted, documents = drawn(2)
    order = np.random.default_rng(0).permutation(len(truth))
    shuffled = [[column[n] for n in order] for column in (truth, predicted, documents)]
    assert score(TokenSequences.of(*shuffled)) == score(TokenSequences.of(truth, predicted, documents))


@pytest.mark.parametrize("score", SCORES)
def test_a_perfect_prediction_has_one_and_still_an_interval(score) -> None:
    truth, _, documents = drawn(3)
    found = score(TokenSequences.of(truth, truth, documents))
    assert value(found) == found.high == 1
    assert found.low == pytest.approx(1 - unseen_share(20, level=0.95))
    assert "resampling shows no spread" in found.method


def test_the_correlation_ignores_scale_and_shift_the_others_do_not() -> None:
    truth, predicted, documents = drawn(4)
    moved = [5 * p + 3 for p in predicted]
    one, other = (TokenSequences.of(truth, p, documents) for p in (predicted, moved))
    assert value(ev_correlation(other)) == pytest.approx(value(ev_correlation(one)), abs=1e-9)
    opposite = TokenSequences.of(truth, [-p for p in predicted], documents)
    assert value(ev_correlation(opposite)) == pytest.approx(-value(ev_correlation(one)), abs=1e-12)
    assert value(rsquared(other)) < 0 < value(rsquared(one))
    assert value(absolute_deviation(other)) < value(absolute_deviation(one))


def test_predicting_zero_has_no_correlation_and_zero_of_the_others() -> None:
    truth, _, documents = drawn(5)
    tokens = TokenSequences.of(truth, [0 * t for t in truth], documents)
    assert ev_correlation(tokens) == Undefined("the prediction is the same on every scored token")
    assert value(rsquared(tokens)) == 0
    assert value(absolute_deviation(tokens)) == 0


def test_a_latent_that_never_fires_has_no_score() -> None:
    _, predicted, documents = drawn(6)
    tokens = TokenSequences.of([0 * p for p in predicted], predicted, documents)
    assert ev_correlation(tokens) == Undefined("the activation is the same on every scored token")
    assert rsquared(tokens) == absolute_deviation(tokens) == Undefined("the latent fires on no scored token")


@pytest.mark.parametrize("score", SCORES)
def test_nothing_is_undefined(score) -> None:
    for parts in (([], [], []), ([[1.0, 2.0]], [[np.nan, np.nan]], ["a"])):
        assert score(TokenSequences.of(*parts)) == Undefined("no token has a prediction")


def test_tokens_without_a_prediction_are_left_out_and_counted() -> None:
    truth, predicted, documents = drawn(7)
    holes = [np.where(np.arange(len(p)) % 4 == 1, np.nan, p) for p in predicted]
    keep = np.arange(12) % 4 != 1
    found = ev_correlation(TokenSequences.of(truth, holes, documents))
    expected = ev_correlation(
        TokenSequences.of([t[keep] for t in truth], [p[keep] for p in predicted], documents)
    )
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.method == f"{expected.method}; 60 tokens without a prediction left out"


def test_a_passage_without_any_prediction_does_not_count() -> None:
    truth, predicted, documents = drawn(8)
    predicted[0] = np.full(12, np.nan)
    assert ev_correlation(TokenSequences.of(truth, predicted, documents)).n == 19


@pytest.mark.parametrize("count", [1, 4])
def test_few_documents_have_a_wide_interval_instead_of_a_false_one(count: int) -> None:
    found = ev_correlation(TokenSequences.of(*drawn(9, count=count)))
    assert isinstance(found, Score)
    assert found.low == pytest.approx(max(-1, found.value - unseen_share(count, level=0.95)))
    assert "too few to resample" in found.method


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_activations_does_not_matter(scale: float) -> None:
    truth, predicted, documents = drawn(10)
    one = TokenSequences.of(truth, predicted, documents)
    other = TokenSequences.of([scale * t for t in truth], [scale * p for p in predicted], documents)
    for score in SCORES:
        assert value(score(other)) == pytest.approx(value(score(one)), rel=1e-9)


def test_a_large_constant_does_not_swallow_the_correlation() -> None:
    truth, predicted, documents = drawn(11)
    shifted = TokenSequences.of(truth, [p + 1e6 for p in predicted], documents)
    expected = ev_correlation(TokenSequences.of(truth, predicted, documents))
    assert value(ev_correlation(shifted)) == pytest.approx(expected.value, abs=1e-7)


def test_negative_activations_stay_as_they_are() -> None:
    truth = [np.array([-3.0, 0, 0, 2.0])] * 6
    predicted = [np.array([-2.0, 0, 0.5, 2.0])] * 6
    tokens = TokenSequences.of(truth, predicted, list("abcdef"))
    assert value(absolute_deviation(tokens)) == pytest.approx(1 - 1.5 / 5)


def test_bad_sequences_are_refused() -> None:
    for truth, predicted in (([[1.0]], [[1.0, 2.0]]), ([[np.nan]], [[1.0]]), ([[1.0]], [[np.inf]])):
        with pytest.raises(ValueError, match=r"other numbers|must be finite"):
            TokenSequences.of(truth, predicted, ["a"])


@pytest.mark.parametrize(("documents", "truth"), [(10, 0.5), (25, 0.9)])
def test_the_correlations_interval_covers_with_dependent_tokens(documents: int, truth: float) -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        t, e = (
            generator.normal(size=(documents, 8)) + generator.normal(size=(documents, 1)) * 0.7
            for _ in range(2)
        )
        p = truth * t + np.sqrt(1 - truth**2) * e
        found = ev_correlation(TokenSequences.of(list(t), list(p), [str(n) for n in range(documents)]))
        covered += found.low <= truth <= found.high
    assert covered / 200 >= 0.88


def test_predictions_far_out_of_scale_still_have_an_interval_with_a_width() -> None:
    truth, _, documents = drawn(12)
    found = rsquared(TokenSequences.of(truth, [np.full(12, 1e15)] * 20, documents))
    assert value(found) < -1e25
