"""The latent that recovers a known feature, against trying every latent and threshold."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import f1_score

from autointerp.metrics.probe_activations import PooledActivations, best_detector
from autointerp.metrics.probe_loss import f1_terms, losses
from autointerp.metrics.probe_search import ProbedTask


def activations(values: np.ndarray) -> PooledActivations:
    return PooledActivations(sparse.csr_array(values.astype(np.float32)), torch.device("cpu"))


def made_up(seed: int, item_count: int = 60, latent_count: int = 12) -> tuple[np.ndarray, ProbedTask]:
    rng = np.random.default_rng(seed)
    values = np.round(rng.exponential(1.0, (item_count, latent_count)), 1)  # many equal values
    values[rng.random(values.shape) < 0.6] = 0.0
    values[:, 3] *= -1.0
    label = rng.random(item_count) < 0.3
    label[:2] = [True, False]
    values[:, 5] += label * (rng.random(item_count) < 0.7)
    is_test = np.arange(item_count) % 2 == 1
    label[1] = True
    return values, ProbedTask("a/b", np.arange(item_count), label, is_test)


@pytest.mark.parametrize("seed", range(6))
def test_no_latent_and_threshold_does_better_on_train(seed: int) -> None:
    values, task = made_up(seed)
    found = best_detector(activations(values), task)
    train, label = values[~task.is_test].astype(np.float32), task.label[~task.is_test]
    best = 0.0
    for latent in range(values.shape[1]):
        levels = np.unique(np.append(train[:, latent][train[:, latent] > 0], 0.0))
        for threshold in levels:
            best = max(best, f1_score(label, train[:, latent] > threshold, zero_division=0.0))
    assert found.train_f1 == pytest.approx(best)
    assert found.latent is not None and found.threshold >= 0.0
    says = train[:, found.latent] > found.threshold
    assert f1_score(label, says) == pytest.approx(best)
    assert found.says_yes == tuple((values[task.is_test, found.latent] > found.threshold).tolist())


def test_finds_a_latent_that_fires_exactly_where_the_task_says_yes() -> None:
    values, task = made_up(0)
    values[:, 9] = task.label * 2.0
    found = best_detector(activations(values), task)
    assert (found.latent, found.threshold, found.train_f1) == (9, 0.0, 1.0)
    assert np.array_equal(found.says_yes, task.label[task.is_test])
    values[:, 9] += 1.0  # fires everywhere, more so on positives: a threshold between the two levels
    assert best_detector(activations(values), task).threshold == pytest.approx(2.0)


def test_an_item_may_be_several_examples() -> None:
    values, task = made_up(1)
    twice = ProbedTask("a/b", np.repeat(task.item, 2), np.repeat(task.label, 2), np.repeat(task.is_test, 2))
    one, other = best_detector(activations(values), task), best_detector(activations(values), twice)
    assert (one.latent, one.threshold, one.train_f1) == (other.latent, other.threshold, other.train_f1)


def test_where_nothing_fires_on_a_positive_nothing_is_recovered() -> None:
    values, task = made_up(2)
    values[task.label] = 0.0
    found = best_detector(activations(values), task)
    assert (found.latent, found.train_f1, any(found.says_yes)) == (None, 0.0, False)
    values[task.label] = -1.0  # below zero is not firing
    assert best_detector(activations(values), task).latent is None


def test_shares_of_f1_add_up_to_it() -> None:
    rng = np.random.default_rng(0)
    says, label = rng.random(50) < 0.5, rng.random(50) < 0.4
    numerator, denominator = f1_terms(says, label)
    assert numerator.sum() / denominator.sum() == pytest.approx(f1_score(label, says))
    numerator, denominator = f1_terms(np.ones(50, dtype=bool), label)
    assert numerator.sum() / denominator.sum() == pytest.approx(2 * label.sum() / (label.sum() + 50))


def test_losses_are_cross_entropies_without_overflow() -> None:
    logit, label = np.array([0.0, 2.0, -2.0, 1000.0]), np.array([True, True, True, False])
    expected = [np.log(2), -np.log(1 / (1 + np.exp(-2.0))), -np.log(1 / (1 + np.exp(2.0))), 1000.0]
    assert np.allclose(losses(logit, label), expected)
