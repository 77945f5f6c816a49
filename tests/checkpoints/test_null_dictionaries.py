from dataclasses import replace

import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.null_dictionaries import (
    basis_dictionary,
    random_dictionary,
    with_output_scale,
    with_shuffled_decoder,
)
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


def scaled_dictionary() -> SparseAutoencoder:
    """One whose rows have very different lengths, with scales as libraries take them from the decoder."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(50, 8, generator=generator) * torch.logspace(-2, 2, 50).unsqueeze(1)
    return SparseAutoencoder(
        encoder_weight=torch.randn(50, 8, generator=generator),
        encoder_bias=torch.zeros(50),
        decoder_weight=rows,
        decoder_bias=torch.ones(8),
        pre_bias=None,
        activation=TopK(4),
        latent_scale=rows.norm(dim=1),
    )


def test_a_shuffled_decoder_deals_directions_with_their_lengths() -> None:
    sae = scaled_dictionary()
    null = with_shuffled_decoder(sae, generator=torch.Generator().manual_seed(1))
    assert sae.latent_scale is not None and null.latent_scale is not None
    before = sae.decoder_weight / sae.latent_scale.unsqueeze(1)
    after = null.decoder_weight / null.latent_scale.unsqueeze(1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(after, before[order])
    assert not torch.equal(order, torch.arange(50))
    x = torch.randn(9, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(null.encode(x), sae.encode(x))


def test_a_basis_keeps_the_largest_coordinates_about_the_mean(like: SparseAutoencoder) -> None:
    mean = torch.arange(16.0)
    null = basis_dictionary(torch.eye(16), mean, k=3, like=like, note="channels")
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(2)) + mean
    expected = mean.repeat(20, 1)
    for token, row in enumerate(x - mean):
        for channel in sorted(range(16), key=lambda c: (-abs(float(row[c])), c))[:3]:
            expected[token, channel] = x[token, channel]
    torch.testing.assert_close(null.reconstruct(x), expected)
    whole = basis_dictionary(torch.eye(16), mean, k=99, like=like, note="channels")
    torch.testing.assert_close(whole.reconstruct(x), x)
    assert not null.is_transcoder


@pytest.mark.parametrize("make", ["random", "scaled", "shuffled"])
def test_nulls_of_what_stays_in_its_file_lie_in_files_and_are_the_same_kind(
    like: SparseAutoencoder, make: str
) -> None:
    streamed = replace(like, is_streamed=True)
    makers = {
        "random": lambda sae: random_dictionary(
            sae, torch.zeros(16), generator=torch.Generator().manual_seed(1)
        ),
        "scaled": lambda sae: with_output_scale(sae, 0.5),
        "shuffled": lambda sae: with_shuffled_decoder(sae, generator=torch.Generator().manual_seed(1)),
    }
    whole, mapped = makers[make](like), makers[make](streamed)
    assert mapped.is_streamed and not whole.is_streamed
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(mapped.reconstruct_sparse(x)[0], whole.reconstruct_sparse(x)[0])


def test_a_null_of_a_transcoder_reads_and_writes_along_other_directions(like: SparseAutoencoder) -> None:
    output_mean = torch.full((16,), 2.0)
    null = random_dictionary(
        like, torch.zeros(16), generator=torch.Generator().manual_seed(1), output_mean=output_mean
    )
    assert not torch.equal(null.encoder_weight, null.decoder_weight)
    assert torch.equal(null.decoder_bias, output_mean) and null.normalization.kind == "none"
