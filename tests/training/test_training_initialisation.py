"""The start: geometric median against a general optimiser, directions, tied encoder."""

import pytest
import torch
from scipy.optimize import minimize

from autointerp.errors import BadInputError
from autointerp.training.initialisation import geometric_median, initial_parameters, random_unit_rows


def sample(tokens=60, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, width, generator=generator, dtype=torch.float64).exp()


def test_geometric_median_is_the_minimiser_of_the_mean_distance():
    x = sample()
    best = minimize(
        lambda m: float(torch.linalg.vector_norm(x - torch.from_numpy(m), dim=1).mean()), x.mean(0)
    )
    torch.testing.assert_close(geometric_median(x), torch.from_numpy(best.x), atol=2e-5, rtol=0)


def test_geometric_median_ignores_how_far_an_outlier_is():
    x = sample()
    near, far = x.clone(), x.clone()
    near[0], far[0] = 50.0, 5e6
    torch.testing.assert_close(geometric_median(near), geometric_median(far), atol=1e-2, rtol=0)
    assert (far.mean(0) - geometric_median(far)).norm() > 1e4


def test_geometric_median_may_fall_on_a_token():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    torch.testing.assert_close(geometric_median(x), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(geometric_median(torch.ones(5, 3)), torch.ones(3))


def test_there_is_no_median_of_no_tokens():
    with pytest.raises(BadInputError):
        geometric_median(torch.zeros(0, 3))


def test_directions_have_unit_norm_and_no_preferred_side():
    rows = random_unit_rows(4000, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4000))
    assert rows.mean(0).norm() < 0.05
    torch.testing.assert_close(rows.T @ rows / 4000, torch.eye(3) / 3, atol=0.02, rtol=0)


def test_encoder_starts_tied_to_the_decoder_but_is_another_tensor():
    start = initial_parameters(sample().float(), 12, dense=False, generator=torch.Generator().manual_seed(0))
    assert torch.equal(start.encoder_weight, start.decoder_weight)
    assert start.encoder_weight.data_ptr() != start.decoder_weight.data_ptr()
    assert not start.encoder_bias.any()


def test_dense_start_reconstructs_at_the_right_length():
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(3))
    start = initial_parameters(x, 4096, dense=True, generator=torch.Generator().manual_seed(0))
    centred = x - start.bias
    x_hat = (centred @ start.encoder_weight.T).relu() @ start.decoder_weight
    assert float((x_hat * centred).sum() / centred.square().sum()) == pytest.approx(1, abs=0.05)
