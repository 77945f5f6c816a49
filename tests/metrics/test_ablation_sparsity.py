"""Sparsity, concentration and effect of changes of logits: closed forms, SciPy, laws."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

from autointerp.metrics import ablation_sparsity
from autointerp.metrics.ablation_sparsity import (
    TokenEffects,
    kl_nats,
    lower_medians,
    sparsity,
    token_concentration,
    token_effects,
)

V, T = 97, 7


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sparsity_of(change):
    return sparsity(token_effects(change), vocabulary_size=change.shape[2])


def by_hand(change):
    """The formula, written out in float64 for one row after the other."""
    found = []
    for row in change.double().numpy():
        u = np.stack([step - np.sort(step)[(len(step) - 1) // 2] for step in row])
        found.append((np.abs(u).sum() / np.sqrt((u**2).sum())) ** 2 / u.size)
    return np.array(found)


@pytest.mark.parametrize("vocabulary_size", [1, 2, 3, 96, 97, 5000])
def test_the_median_is_torchs(vocabulary_size):
    rows = noise(6, vocabulary_size)
    np.testing.assert_array_equal(lower_medians(rows.numpy()), rows.median(dim=1).values.numpy())


@pytest.mark.parametrize("vocabulary_size", [96, 97])
def test_sparsity_is_the_formula(vocabulary_size):
    change = noise(5, T, vocabulary_size) * torch.rand(5, T, 1) ** 3
    np.testing.assert_allclose(sparsity_of(change), by_hand(change), rtol=1e-5)


def test_one_changed_logit_gives_one_over_v_t():
    change = torch.zeros(2, T, V)
    change[0, 3, 11], change[1, 0, 0] = -0.25, 40.0
    np.testing.assert_allclose(sparsity_of(change), 1 / (V * T), rtol=1e-6)
    np.testing.assert_allclose(token_concentration(token_effects(change)), 1 / T, rtol=1e-6)


def test_a_shift_of_all_logits_of_a_token_changes_nothing():
    change = noise(3, T, V)
    shifted = change + 5.0 * noise(3, T, 1, seed=1)
    np.testing.assert_allclose(sparsity_of(shifted), sparsity_of(change), rtol=1e-4)
    assert np.isnan(sparsity_of(torch.ones(1, T, V))).all()
    assert np.isnan(token_concentration(token_effects(torch.ones(1, T, V)))).all()


def test_equal_and_opposite_changes_of_all_logits_give_one():
    change = torch.ones(1, T, V + 1)
    change[..., : V // 2 + 2] = -1.0  # the median is -1: half of the logits differ from it by 2
    share = 1 - (V // 2 + 2) / (V + 1)
    np.testing.assert_allclose(sparsity_of(change), share, rtol=1e-6)


def test_gaussian_changes_give_two_over_pi():
    change = noise(4, 16, 20_001)
    np.testing.assert_allclose(sparsity_of(change), 2 / math.pi, atol=0.002)


@pytest.mark.parametrize("factor", [1e-4, 37.0, -1.0])
def test_it_does_not_depend_on_the_size_of_the_change(factor):
    change = noise(4, T, V)  # V is odd: the median of the mirrored change is the mirrored median
    np.testing.assert_allclose(sparsity_of(factor * change), sparsity_of(change), rtol=1e-5)
    concentration = token_concentration(token_effects(change))
    np.testing.assert_allclose(token_concentration(token_effects(factor * change)), concentration, rtol=1e-5)


def test_it_depends_on_no_order_of_tokens_logits_or_rows():
    change = noise(5, T, V)
    again = change[:, torch.randperm(T)][..., torch.randperm(V)]
    np.testing.assert_allclose(sparsity_of(again), sparsity_of(change), rtol=1e-5)
    np.testing.assert_allclose(sparsity_of(change.flip(0)), sparsity_of(change)[::-1], rtol=1e-7)


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    change, logits = noise(5, T, V), noise(T, V, seed=1)
    effects, kl = token_effects(change), kl_nats(logits, change)
    monkeypatch.setattr(ablation_sparsity, "_BLOCK", 3 * V)
    np.testing.assert_array_equal(token_effects(change).squared, effects.squared)
    np.testing.assert_array_equal(kl_nats(logits, change), kl)


def test_tokens_on_which_nothing_changes_dilute():
    effects = token_effects(noise(3, 1, V))
    longer = effects.lengthened(T)
    assert longer.absolute.shape == (3, T)
    expected = sparsity(effects, vocabulary_size=V) / T
    np.testing.assert_allclose(sparsity(longer, vocabulary_size=V), expected)
    np.testing.assert_allclose(token_concentration(longer), 1 / T)


def test_equal_tokens_have_concentration_one():
    change = noise(2, 1, V).expand(2, T, V).contiguous()
    np.testing.assert_allclose(token_concentration(token_effects(change)), 1.0, rtol=1e-6)


def test_concentration_of_two_tokens_by_hand():
    effects = TokenEffects(np.ones((1, 2)), np.array([[9.0, 16.0]]))
    np.testing.assert_allclose(token_concentration(effects), (3 + 4) ** 2 / (2 * 25))


@pytest.mark.parametrize("size", [3.0, 0.1, 1e-3])
def test_kl_is_scipys(size):
    logits, change = noise(T, V), size * noise(4, T, V, seed=1)
    p = np.exp(log_softmax(logits.double().numpy(), axis=-1))
    q = np.exp(log_softmax(logits.double().numpy() + change.double().numpy(), axis=-1))
    np.testing.assert_allclose(kl_nats(logits, change), rel_entr(p, q).sum(axis=-1), rtol=2e-3)


def test_small_changes_keep_their_kl():
    """A difference of log-probabilities in float32 would be rounding here: KL is half the variance."""
    logits, change = noise(T, V), 1e-5 * noise(2, T, V, seed=1)
    p = logits.double().softmax(dim=1)
    w = change.double()
    variance = (p * w**2).sum(dim=2) - (p * w).sum(dim=2) ** 2
    np.testing.assert_allclose(kl_nats(logits, change), (variance / 2).numpy(), rtol=0.05, atol=1e-13)


def test_no_change_has_no_kl():
    assert (kl_nats(noise(T, V), torch.zeros(2, T, V)) == 0.0).all()
    shifted = kl_nats(noise(T, V), torch.full((2, T, V), 3.0))
    np.testing.assert_allclose(shifted, 0.0, atol=1e-6)
