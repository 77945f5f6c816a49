import numpy as np
import pytest
import torch
from scipy import special

from autointerp.sampling import token_losses
from autointerp.sampling.token_losses import clean_predictions, cross_entropy, substituted_losses


@pytest.fixture(params=[1 << 18, 7, 50])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_losses, "BLOCK_VALUES", request.param)


def made(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, other = (4 * torch.randn(2, 9, 13, generator=generator, dtype=torch.float64)).to(dtype)
    flat_index = torch.tensor([0, 2, 3, 7, 8])
    return clean, other, flat_index, torch.randint(0, 13, (5,), generator=generator)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)]
)
def test_losses_are_those_of_scipy_whatever_the_block(dtype: torch.dtype, tolerance: float) -> None:
    clean, other, flat_index, target = made(dtype)
    found = clean_predictions(clean, flat_index, target)
    losses = substituted_losses(found, other, flat_index, target)
    p, q = (special.log_softmax(x.double().numpy()[flat_index], axis=1) for x in (clean, other))
    rows = np.arange(5)
    np.testing.assert_allclose(found.cross_entropy, -p[rows, target], atol=tolerance)
    np.testing.assert_allclose(losses.cross_entropy, -q[rows, target], atol=tolerance)
    np.testing.assert_allclose(cross_entropy(other, flat_index, target), -q[rows, target], atol=tolerance)
    np.testing.assert_allclose(losses.kl, special.rel_entr(np.exp(p), np.exp(q)).sum(1), atol=5 * tolerance)


def test_the_same_logits_give_a_divergence_of_exactly_zero() -> None:
    clean, _, flat_index, target = made(torch.float32)
    losses = substituted_losses(clean_predictions(clean, flat_index, target), clean, flat_index, target)
    assert losses.kl.tolist() == [0.0] * 5


def test_a_token_that_the_subject_rules_out_adds_nothing() -> None:
    clean, other, flat_index, target = made(torch.float64)
    clean[:, 12] = other[:, 12] = -torch.inf
    target = target.clamp_max(11)
    losses = substituted_losses(clean_predictions(clean, flat_index, target), other, flat_index, target)
    p, q = (special.softmax(x.numpy()[flat_index, :12], axis=1) for x in (clean, other))
    np.testing.assert_allclose(losses.kl, special.rel_entr(p, q).sum(1))


def test_a_small_divergence_keeps_its_digits_in_float32() -> None:
    clean, _, flat_index, target = made(torch.float32)
    other = clean + 1e-2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    single = substituted_losses(clean_predictions(clean, flat_index, target), other, flat_index, target)
    clean, other = clean.double(), other.double()
    double = substituted_losses(clean_predictions(clean, flat_index, target), other, flat_index, target)
    assert float(double.kl.max()) < 1e-3
    np.testing.assert_allclose(single.kl, double.kl, atol=1e-6)


def test_no_predictions_are_no_losses() -> None:
    clean, other, *_ = made(torch.float32)
    none = torch.zeros(0, dtype=torch.long)
    losses = substituted_losses(clean_predictions(clean, none, none), other, none, none)
    assert len(losses.kl) == len(losses.cross_entropy) == len(cross_entropy(other, none, none)) == 0
