from dataclasses import replace

import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.null_dictionaries import random_dictionary, with_output_scale
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError
from autointerp.testing.planted_autoencoder import planted_autoencoder


@pytest.fixture
def like() -> SparseAutoencoder:
    return planted_autoencoder(16, 200, k=7, generator=torch.Generator().manual_seed(0))


def made(like: SparseAutoencoder, seed: int = 1) -> SparseAutoencoder:
    return random_dictionary(like, torch.arange(16.0), generator=torch.Generator().manual_seed(seed))


def test_it_has_the_shape_the_sparsity_and_the_normalisation_of_the_real_one(like: SparseAutoencoder) -> None:
    null = made(like)
    assert (null.latent_count, null.d_model) == (200, 16)
    assert null.activation == like.activation
    assert null.normalization == like.normalization
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(2))
    assert int(null.encode_sparse(x).active_count_per_token().max()) <= 7


def test_its_directions_are_of_unit_length_random_and_read_as_they_are_written(
    like: SparseAutoencoder,
) -> None:
    null = made(like)
    torch.testing.assert_close(null.decoder_weight.norm(dim=1), torch.ones(200))
    assert torch.equal(null.encoder_weight, null.decoder_weight)
    cosines = null.decoder_weight @ null.decoder_weight.T - torch.eye(200)
    # Of two random directions in d dimensions the cosine has mean 0 and variance 1 / d.
    assert float(cosines.mean()) == pytest.approx(0, abs=0.01)
    assert float((cosines**2).sum() / (200 * 199)) == pytest.approx(1 / 16, rel=0.1)


def test_its_biases_are_the_mean_so_that_the_mean_is_answered_where_nothing_fires(
    like: SparseAutoencoder,
) -> None:
    null = made(like)
    assert null.pre_bias is not None
    assert torch.equal(null.pre_bias, torch.arange(16.0))
    assert torch.equal(null.decode(torch.zeros(1, 200)), torch.arange(16.0)[None])


def test_one_seed_means_one_dictionary(like: SparseAutoencoder) -> None:
    assert torch.equal(made(like).decoder_weight, made(like).decoder_weight)
    assert not torch.equal(made(like).decoder_weight, made(like, seed=2).decoder_weight)


def test_the_global_generator_is_left_alone(like: SparseAutoencoder) -> None:
    before = torch.get_rng_state()
    made(like)
    assert torch.equal(before, torch.get_rng_state())


def test_a_dictionary_without_k_cannot_be_copied(like: SparseAutoencoder) -> None:
    relu = SparseAutoencoder(
        like.encoder_weight, like.encoder_bias, like.decoder_weight, like.decoder_bias, None, ReLU()
    )
    with pytest.raises(CheckpointError, match="relu has none"):
        made(relu)


def test_scaling_leaves_the_latents_and_the_biases(like: SparseAutoencoder) -> None:
    null = made(like)
    scaled = with_output_scale(null, 0.25)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
    assert torch.equal(scaled.encode(x), null.encode(x))
    z = null.encode(x)
    torch.testing.assert_close(
        scaled.decode(z) - scaled.decoder_bias, 0.25 * (null.decode(z) - null.decoder_bias)
    )
    assert any("0.25" in note for note in scaled.metadata.notes)


def test_a_dictionary_without_k_can_lend_its_shape_when_k_is_given(like: SparseAutoencoder) -> None:
    relu = replace(like, activation=ReLU())
    null = random_dictionary(relu, torch.zeros(16), generator=torch.Generator().manual_seed(1), k=3)
    assert null.activation == TopK(3)
    assert null.latent_count == relu.latent_count
