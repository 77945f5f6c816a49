"""Bounds for questions without an answer: they hold for every answer that could have come."""

import numpy as np
import pytest

from autointerp.scoring.auroc import auroc_value
from autointerp.scoring.balanced_accuracy import yes_no_scores
from autointerp.scoring.refusal_bounds import correlation_bound, with_refusals


def drawn(seed: int):
    generator = np.random.default_rng(seed)
    fires = np.arange(16) % 2 == 0
    return generator, generator.random(16), fires, generator.random(16) < 0.3


@pytest.mark.parametrize("seed", range(5))
def test_no_answers_lead_out_of_the_bounds_and_the_extreme_ones_reach_them(seed: int) -> None:
    generator, value, fires, is_refused = drawn(seed)
    weight = np.ones(16)
    ends = [with_refusals(value, fires, is_refused, side) for side in ("worst", "best")]
    rankings = [auroc_value(end, fires, weight) for end in ends]
    shares = [yes_no_scores(end, fires).balanced_accuracy.value for end in ends]
    for _ in range(100):
        answers = np.where(is_refused, generator.random(16), value)
        assert rankings[0] <= auroc_value(answers, fires, weight) <= rankings[1]
        assert shares[0] <= yes_no_scores(answers, fires).balanced_accuracy.value <= shares[1]
    for end, ranking in zip((~fires, fires), rankings, strict=True):
        extreme = np.where(is_refused, end.astype(float), value)
        assert auroc_value(extreme, fires, weight) == pytest.approx(ranking)


def test_without_refusals_nothing_moves() -> None:
    _, value, fires, _ = drawn(0)
    nobody = np.zeros(16, dtype=bool)
    for side in ("worst", "best"):
        np.testing.assert_array_equal(with_refusals(value, fires, nobody, side), value)


def test_if_all_is_refused_everything_is_possible() -> None:
    _, value, fires, _ = drawn(0)
    everybody = np.ones(16, dtype=bool)
    for side, expected in (("worst", 0.0), ("best", 1.0)):
        assert auroc_value(with_refusals(value, fires, everybody, side), fires, np.ones(16)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_no_predictions_for_refused_tokens_give_more_correlation_and_the_best_ones_reach_it(
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    truth, free = generator.gamma(1, size=12), [generator.gamma(1, size=4), generator.gamma(1, size=3)]
    predicted = truth * (-1) ** seed + generator.normal(size=12)
    everything = np.concatenate([truth, *free])
    worst, best = (correlation_bound(truth, predicted, free, side) for side in ("worst", "best"))
    for _ in range(200):
        scale = 10.0 ** generator.integers(-2, 3)
        filled = np.concatenate([predicted, generator.normal(size=7) * scale])
        assert worst - 1e-9 <= np.corrcoef(everything, filled)[0, 1] <= best + 1e-9
    for sign, bound in ((1, best), (-1, worst)):
        slope = np.polyfit(predicted, truth, 1)[0]
        slope = slope if sign * slope > 0 else sign * 1e-7  # the other way is best not followed at all
        intercept = truth.mean() - slope * predicted.mean()
        filled = np.concatenate([predicted, (np.concatenate(free) - intercept) / slope])
        assert np.corrcoef(everything, filled)[0, 1] == pytest.approx(bound, abs=1e-5)


def test_a_constant_prediction_without_refusals_is_bounded_at_zero() -> None:
    truth = np.array([0.0, 1, 0, 2])
    assert correlation_bound(truth, np.full(4, 3.0), [], "best") == 0
    assert correlation_bound(truth, np.full(4, 3.0), [], "worst") == 0


def test_without_refusals_the_bound_is_the_correlation_itself() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(20)
    predicted = truth + generator.random(20)
    expected = np.corrcoef(truth, predicted)[0, 1]
    for side in ("worst", "best"):
        assert correlation_bound(truth, predicted, [], side) == pytest.approx(expected)


def test_if_all_is_refused_any_correlation_is_possible() -> None:
    free = [np.array([0.0, 1.0]), np.array([2.0])]
    assert correlation_bound(np.zeros(0), np.zeros(0), free, "best") == pytest.approx(1)
    assert correlation_bound(np.zeros(0), np.zeros(0), free, "worst") == pytest.approx(-1)
    assert correlation_bound(np.zeros(0), np.zeros(0), [np.zeros(3)], "best") == 0
