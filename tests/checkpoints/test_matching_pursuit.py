"""Matching pursuit against the same steps taken token by token on the input itself, in float64."""

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import ActivationFunction
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import CheckpointError

LATENTS, WIDTH = 20, 6


def brute_force(directions, h, *, threshold, iterations, stops):
    """As the definition reads: one token, one step, one stopping rule after the other."""
    latents = np.zeros((h.shape[0], directions.shape[0]))
    for z, token in zip(latents, h, strict=True):
        residual = token.copy()
        for _ in range(iterations):
            scores = directions @ residual
            best = int(scores.argmax())
            if scores[best] <= 0:
                break
            is_repeated = z[best] != 0
            z[best] += scores[best]
            residual -= scores[best] * directions[best]
            if (stops and is_repeated) or np.linalg.norm(residual) < threshold:
                break
    return latents


def pursuit(draw, *, norms=(0.8, 1.1), **settings):
    directions = draw(LATENTS, WIDTH)
    directions = directions / directions.norm(dim=1, keepdim=True)
    return MatchingPursuit(directions * torch.linspace(*norms, LATENTS).unsqueeze(1), **settings)


def pre_activations(activation, h):
    return h @ activation.directions.T


@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("iterations", [1, 4, None])
def test_it_takes_the_steps_of_the_definition(draw, stops, threshold, iterations):
    activation = pursuit(
        draw, residual_threshold=threshold, max_iterations=iterations, stop_on_duplicate_support=stops
    )
    h = draw(40, WIDTH)
    h[5], h[6] = 0, h[6] * 50
    expected = brute_force(
        activation.directions.double().numpy(),
        h.double().numpy(),
        threshold=threshold,
        iterations=iterations or WIDTH,
        stops=stops,
    )
    z = activation(pre_activations(activation, h))
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=2e-5)
    assert (z >= 0).all() and not z[5].any()


def test_every_setting_makes_a_difference_to_some_token(draw):
    """Otherwise the comparison with the definition would not see a setting that is ignored."""
    usual = pursuit(draw, residual_threshold=0.4)
    pre = pre_activations(usual, draw(40, WIDTH))
    for changed in (
        {"residual_threshold": 0.0},
        {"residual_threshold": 0.4, "max_iterations": 2},
        {"residual_threshold": 0.4, "stop_on_duplicate_support": False},
    ):
        assert not torch.equal(usual(pre), MatchingPursuit(usual.directions, **changed)(pre))


@pytest.mark.parametrize("count", [0, 1, 13])
def test_what_fires_is_the_dense_result_without_its_zeros(draw, count):
    activation = pursuit(draw)
    pre = pre_activations(activation, draw(count, WIDTH))
    for firing in (activation.firing(pre), activation.fire(activation.take(None, pre, 0))):
        z = torch.zeros_like(pre)
        z[firing.tokens, firing.latents] = firing.values
        assert torch.equal(z, activation(pre)) and (firing.values != 0).all()
        assert ((firing.tokens * LATENTS + firing.latents).diff() > 0).all()


def test_a_token_does_not_depend_on_the_others(draw):
    activation = pursuit(draw)
    pre = pre_activations(activation, draw(9, WIDTH))
    alone = torch.cat([activation(row.unsqueeze(0)) for row in pre])
    np.testing.assert_allclose(activation(pre), alone, rtol=1e-5, atol=1e-6)


def test_in_a_dictionary_it_shares_the_decoder_and_is_the_same_dense_and_sparse(draw):
    activation = pursuit(draw)
    sae = SparseAutoencoder(
        encoder_weight=activation.directions,
        encoder_bias=torch.zeros(LATENTS),
        decoder_weight=activation.directions,
        decoder_bias=draw(WIDTH),
        pre_bias=None,
        activation=activation,
    )
    x = draw(11, WIDTH)
    assert torch.equal(sae.encode_sparse(x).dense(), sae.encode(x))
    np.testing.assert_allclose(sae.reconstruct_sparse(x)[0], sae.reconstruct(x), atol=1e-5)
    assert sae.to(dtype=torch.float32).activation.directions.data_ptr() == sae.decoder_weight.data_ptr()
    assert isinstance(activation, ActivationFunction) and activation.needs_all_latents


def test_it_computes_in_the_precision_it_is_given(draw):
    activation = pursuit(draw, residual_threshold=0.1)
    pre = pre_activations(activation, draw(9, WIDTH)).double()
    moved = activation.to(dtype=torch.float64)
    assert moved(pre).dtype == moved.directions.dtype == torch.float64
    np.testing.assert_allclose(activation(pre), moved(pre), atol=1e-6)


def test_nan_stays_visible(draw):
    activation = pursuit(draw)
    pre = pre_activations(activation, draw(3, WIDTH))
    pre[1, 4] = float("nan")
    assert activation(pre)[1].isnan().any() and not activation(pre)[[0, 2]].isnan().any()
    assert activation.firing(pre).values.isnan().any()


def test_directions_that_do_not_span_the_input_are_refused(draw):
    with pytest.raises(CheckpointError, match="do not span"):
        MatchingPursuit(draw(WIDTH - 1, WIDTH))
    directions = draw(LATENTS, WIDTH)
    directions[:, 2] = directions[:, 1]
    with pytest.raises(CheckpointError, match="do not span"):
        MatchingPursuit(directions)(draw(4, LATENTS))


def test_a_pursuit_without_a_step_is_refused(draw):
    with pytest.raises(CheckpointError, match="at least 1 iteration"):
        pursuit(draw, max_iterations=0)


def test_descriptions_name_the_settings(draw):
    assert pursuit(draw).describe() == "matching_pursuit(max_iterations=6, residual_threshold=0.01)"
    activation = pursuit(draw, max_iterations=3, residual_threshold=0.0, stop_on_duplicate_support=False)
    assert activation.describe() == "matching_pursuit(max_iterations=3, residual_threshold=0, repeats)"
