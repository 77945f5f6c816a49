"""The AUROC of one explanation: against scikit-learn and brute force; its interval's coverage and limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from sklearn.metrics import roc_auc_score

from autointerp.records import Undefined
from autointerp.scoring.auroc import auroc, auroc_interval, auroc_value
from autointerp.scoring.score import Score, effective_size


def score(prediction, fires, **options) -> Score:
    found = auroc(np.asarray(prediction, dtype=float), np.asarray(fires, dtype=bool), **options)
    assert isinstance(found, Score), found
    return found


def drawn(seed: int, *, levels: int = 5, n: int = 40):
    generator = np.random.default_rng(seed)
    fires = np.arange(n) % 3 == 0
    prediction = generator.integers(0, levels, size=n) + 1.5 * fires
    return prediction.astype(float), fires, generator.random(n) + 0.1


@pytest.mark.parametrize("seed", range(10))
def test_it_is_scikit_learns_with_weights_and_ties(seed: int) -> None:
    prediction, fires, weight = drawn(seed)
    expected = roc_auc_score(fires, prediction, sample_weight=weight)
    assert score(prediction, fires, weight=weight).value == pytest.approx(expected, abs=1e-12)


def test_it_is_the_share_of_pairs_in_the_right_order() -> None:
    prediction, fires, weight = drawn(3, n=15)
    right = total = 0.0
    for i in np.flatnonzero(fires):
        for j in np.flatnonzero(~fires):
            pair = weight[i] * weight[j]
            total += pair
            right += pair * ((prediction[i] > prediction[j]) + (prediction[i] == prediction[j]) / 2)
    assert score(prediction, fires, weight=weight).value == pytest.approx(right / total, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=30), st.randoms())
@settings(max_examples=60, deadline=None)
def test_order_and_monotone_transforms_do_not_matter(rows, random) -> None:
    prediction = np.array([row[0] for row in rows], dtype=float)
    fires = np.array([row[1] for row in rows])
    found = auroc(prediction, fires)
    if isinstance(found, Undefined):
        assert fires.all() or not fires.any()
        return
    order = np.array(random.sample(range(len(rows)), len(rows)))
    assert auroc(prediction[order], fires[order]) == found
    assert auroc(np.exp(prediction) * 7 - 2, fires) == found
    reverse = score(-prediction, fires)
    assert reverse.value == pytest.approx(1 - found.value, abs=1e-12)
    assert reverse.low == pytest.approx(1 - found.high, abs=1e-6)


def test_a_weight_of_two_is_the_example_twice() -> None:
    prediction, fires, _ = drawn(1)
    weight = 1.0 + (np.arange(len(fires)) % 2)
    twice = np.repeat(np.arange(len(fires)), weight.astype(int))
    expected = score(prediction[twice], fires[twice], cluster=twice)
    found = score(prediction, fires, weight=weight, cluster=np.arange(len(fires)))
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


@pytest.mark.parametrize("factor", [1e-9, 3.0, 1e12])
def test_the_scale_of_weights_does_not_matter(factor: float) -> None:
    prediction, fires, weight = drawn(2)
    one, other = score(prediction, fires, weight=weight), score(prediction, fires, weight=weight * factor)
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_judge_that_says_the_same_of_all_has_exactly_one_half(value: float) -> None:
    found = score(np.full(31, value), np.arange(31) < 7, weight=np.linspace(0.1, 3, 31))
    assert found.value == 0.5
    assert found.low < 0.4 and found.high > 0.6


@pytest.mark.parametrize(("count", "low"), [(1, 0.2065), (5, 0.5), (20, 0.85), (500, 0.995)])
def test_a_perfect_judge_has_one_and_an_interval_that_narrows_with_the_number(count: int, low: float) -> None:
    fires = np.arange(2 * count) < count
    found = score(fires.astype(float), fires)
    assert found.value == found.high == 1
    assert low <= found.low < 1
    assert score(-fires.astype(float), fires).high == pytest.approx(1 - found.low, abs=1e-9)


@pytest.mark.parametrize("value", [0.55, 0.9, 0.999])
def test_the_interval_solves_the_equation_that_defines_it(value: float) -> None:
    m, n, z = 17.0, 31.5, float(ndtri(0.95))
    interval = auroc_interval(value, m, n, level=0.9)
    for a in (interval.low, interval.high):
        first, second = a / (2 - a), 2 * a * a / (1 + a)
        both = (m + n) / 2 - 1
        variance = (a * (1 - a) + both * (first - a * a) + both * (second - a * a)) / (m * n)
        assert (value - a) ** 2 == pytest.approx(z * z * variance, rel=1e-6)


@pytest.mark.parametrize(
    ("positives", "negatives", "truth"), [(20, 20, 0.5), (20, 20, 0.95), (8, 30, 0.8), (10, 10, 0.99)]
)
def test_it_covers_what_it_says(positives: int, negatives: int, truth: float) -> None:
    generator = np.random.default_rng(positives)
    shift = np.sqrt(2) * ndtri(truth)
    fires = np.arange(positives + negatives) < positives
    covered = 0
    for _ in range(300):
        prediction = generator.normal(size=len(fires)) + shift * fires
        value = auroc_value(prediction, fires, np.ones(len(fires)))
        interval = auroc_interval(value, positives, negatives, level=0.95)
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / 300 <= 0.997


def test_it_covers_where_documents_say_the_same_thrice() -> None:
    """Three examples a document share most of their noise: without clusters the interval is too narrow."""
    generator = np.random.default_rng(5)
    truth, documents = 0.8, 16
    shift = np.sqrt(2) * ndtri(truth)
    cluster = np.repeat(np.arange(2 * documents), 3)
    fires = cluster < documents
    covered = {"by document": 0, "as if independent": 0}
    for _ in range(300):
        noise = generator.normal(size=2 * documents)[cluster] * np.sqrt(0.9)
        prediction = noise + generator.normal(size=len(cluster)) * np.sqrt(0.1) + shift * fires
        for name, ids in (("by document", cluster), ("as if independent", None)):
            found = score(prediction, fires, cluster=ids)
            covered[name] += found.low <= truth <= found.high
    assert covered["by document"] / 300 >= 0.92
    assert covered["as if independent"] / 300 < 0.85


def test_effective_sizes_count_documents_and_weights() -> None:
    everything = np.ones(6, dtype=bool)
    even = np.ones(6)
    assert effective_size(even, None, everything) == 6
    assert effective_size(even, np.array(list("aabbcc")), everything) == 3
    assert effective_size(even, np.array(list("aaaaaa")), everything) == 1
    assert effective_size(np.array([1.0, 1, 0, 0, 0, 0]), None, everything) == 2
    assert effective_size(even, None, np.zeros(6, dtype=bool)) == 0
    assert effective_size(np.array([3.0, 1, 1, 1, 1, 1]), None, everything) == pytest.approx(64 / 14)


@pytest.mark.parametrize("fires", [[True, True], [False, False], []])
def test_one_class_alone_is_undefined(fires: list[bool]) -> None:
    found = auroc(np.zeros(len(fires)), np.array(fires, dtype=bool))
    assert isinstance(found, Undefined)
    assert "no passage in which the latent" in found.reason


def test_a_class_without_weight_is_undefined() -> None:
    found = auroc(np.arange(4.0), np.arange(4) < 2, weight=np.array([0.0, 0, 1, 1]))
    assert found == Undefined("no passage in which the latent fires")


@pytest.mark.parametrize(
    ("prediction", "weight"), [([np.nan, 0.0], [1, 1]), ([1.0, 0.0], [-1, 1]), ([1.0, 0.0], [np.inf, 1])]
)
def test_what_is_no_number_is_refused(prediction: list[float], weight: list[float]) -> None:
    with pytest.raises(ValueError, match="must be numbers"):
        auroc(np.array(prediction), np.array([True, False]), weight=np.array(weight, dtype=float))


def test_infinite_predictions_rank_at_the_ends() -> None:
    assert score([np.inf, 3.0, -np.inf, 2.0], [True, True, False, False]).value == 1
    assert score([-np.inf, 3.0, np.inf, 2.0], [True, True, False, False]).value == 0.25
