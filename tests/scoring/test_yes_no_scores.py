"""Balanced accuracy, sensitivity, specificity, precision: oracles, laws, coverage of their intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Undefined
from autointerp.scoring.balanced_accuracy import YesNoScores, yes_no_scores
from autointerp.scoring.score import Score, share_score, wilson

NAMES = ("balanced_accuracy", "sensitivity", "specificity", "precision")


def value(found: YesNoScores, name: str) -> float:
    score = getattr(found, name)
    assert isinstance(score, Score), score
    return score.value


@pytest.mark.parametrize("seed", range(6))
def test_they_are_scikit_learns(seed: int) -> None:
    generator = np.random.default_rng(seed)
    fires = np.arange(30) % 2 == 0
    probability, weight = generator.random(30), generator.random(30)
    said = probability >= 0.5
    found = yes_no_scores(probability, fires, weight=weight)
    options = {"sample_weight": weight}
    assert value(found, "balanced_accuracy") == pytest.approx(balanced_accuracy_score(fires, said, **options))
    assert value(found, "sensitivity") == pytest.approx(recall_score(fires, said, **options))
    assert value(found, "specificity") == pytest.approx(recall_score(~fires, ~said, **options))
    even = np.where(fires, weight / weight[fires].sum(), weight / weight[~fires].sum())
    assert value(found, "precision") == pytest.approx(precision_score(fires, said, sample_weight=even))


@pytest.mark.parametrize("positives", [1, 4, 15, 29])
@pytest.mark.parametrize("answer", [0.0, 0.4999, 0.5, 1.0])
def test_a_judge_that_always_says_the_same_has_one_half(positives: int, answer: float) -> None:
    found = yes_no_scores(np.full(30, answer), np.arange(30) < positives)
    assert value(found, "balanced_accuracy") == 0.5
    assert value(found, "sensitivity") == float(answer >= 0.5)
    if answer < 0.5:
        assert found.precision == Undefined("the judge never says yes")
    else:
        assert value(found, "precision") == 0.5


def test_the_number_of_passages_of_either_kind_does_not_matter() -> None:
    probability = np.array([0.9, 0.2, 0.7, 0.1])
    fires = np.array([True, True, False, False])
    more = np.array([0, 1, *[2] * 10, *[3] * 10])
    for name in NAMES:
        one = value(yes_no_scores(probability, fires), name)
        assert value(yes_no_scores(probability[more], fires[more]), name) == one


def test_a_perfect_judge_has_one_in_all_with_an_interval_below() -> None:
    fires = np.arange(40) < 20
    found = yes_no_scores(fires.astype(float), fires)
    for name in NAMES:
        score = getattr(found, name)
        assert score.value == score.high == 1
        assert 0.8 < score.low < 1


def test_order_does_not_matter_and_documents_count_once() -> None:
    generator = np.random.default_rng(0)
    probability, fires = generator.random(24), np.arange(24) % 2 == 0
    cluster = np.arange(24) // 4
    order = generator.permutation(24)
    found = yes_no_scores(probability, fires, cluster=cluster)
    again = yes_no_scores(probability[order], fires[order], cluster=cluster[order])
    alone = yes_no_scores(probability, fires)
    for name in NAMES:
        one, other = getattr(found, name), getattr(again, name)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
        assert getattr(alone, name).high - getattr(alone, name).low < one.high - one.low


def test_one_class_alone_leaves_its_own_share() -> None:
    found = yes_no_scores(np.array([0.9, 0.1]), np.array([True, True]))
    assert value(found, "sensitivity") == 0.5
    reason = Undefined("no passage in which the latent is silent")
    assert (found.specificity, found.balanced_accuracy, found.precision) == (reason, reason, reason)
    nothing = yes_no_scores(np.zeros(0), np.zeros(0, dtype=bool))
    assert all(isinstance(getattr(nothing, name), Undefined) for name in NAMES)


@pytest.mark.parametrize("right", [0, 3, 10])
def test_wilsons_interval_is_scipys(right: int) -> None:
    expected = binomtest(right, 10).proportion_ci(0.9, method="wilson")
    found = wilson(right / 10, 10, level=0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("share", "size"), [(0.5, 0.0), (1.5, 3.0), (-0.1, 3.0)])
def test_wilsons_interval_refuses_what_is_no_share(share: float, size: float) -> None:
    with pytest.raises(ValueError, match="size must be positive"):
        wilson(share, size, level=0.95)


@pytest.mark.parametrize("count", [1, 10, 300])
def test_the_unseen_share_is_clopper_and_pearsons(count: int) -> None:
    expected = binomtest(0, count).proportion_ci(0.95, method="exact").high
    assert unseen_share(count, level=0.95) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.5, 0.5), (0.9, 0.95), (0.3, 0.98)])
def test_intervals_cover_what_they_say(sensitivity: float, specificity: float) -> None:
    generator = np.random.default_rng(7)
    fires = np.arange(40) < 20
    yes = np.where(fires, sensitivity, 1 - specificity)
    truths = {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": sensitivity / (sensitivity + 1 - specificity),
    }
    covered, counted = dict.fromkeys(truths, 0), dict.fromkeys(truths, 0)
    for _ in range(200):
        found = yes_no_scores((generator.random(40) < yes).astype(float), fires)
        for name, truth in truths.items():
            score = getattr(found, name)
            if isinstance(score, Score):
                counted[name] += 1
                covered[name] += score.low <= truth <= score.high
    for name in truths:
        assert counted[name] > 190
        assert covered[name] / counted[name] >= 0.9, name


def test_a_score_refuses_certainty_and_what_is_no_number() -> None:
    for numbers in ((1.0, 1.0, 1.0), (0.5, 0.6, 0.7), (float("nan"), 0.0, 1.0), (0.5, float("-inf"), 1.0)):
        with pytest.raises(ValueError, match=r"a score must be finite|an interval must hold"):
            Score("it", *numbers, 0.95, "", 3)


def test_a_share_of_nothing_is_undefined() -> None:
    assert share_score("it", np.zeros(0, dtype=bool), level=0.95, lacking="none") == Undefined("none")


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 2.0])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie"):
        yes_no_scores(np.array([1.0, 0.0]), np.array([True, False]), level=level)
