"""The in-memory dictionary: formulas against NumPy, sparse against dense, batches, precisions, misfits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autointerp.checkpoints import sharded_products
from autointerp.checkpoints.activation_functions import Identity, JumpReLU, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

ACTIVATIONS = [
    ReLU(),
    Identity(),
    TopK(5),
    TopK(5, "identity"),
    TopK(30),
    JumpReLU(torch.linspace(-1, 2, 30)),
]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
def test_pre_activations_and_reconstruction_follow_the_formulas(autoencoder, draw, normalization, shared):
    sae, x = autoencoder(ReLU(), normalization, shared=shared), draw(9, 6) * 3 + 1
    w_enc, b_enc, w_dec, b_dec = (
        t.double().numpy()
        for t in (sae.encoder_weight, sae.encoder_bias, sae.decoder_weight, sae.decoder_bias)
    )
    h = x.double().numpy()
    mean, std = h.mean(1, keepdims=True), h.std(1, ddof=1, keepdims=True)
    if normalization == "layer_norm":
        h = (h - mean) / (std + 1e-5)
    pre = (h - (b_dec if shared else 0)) @ w_enc.T + b_enc
    x_hat = np.maximum(pre, 0) @ w_dec + b_dec
    np.testing.assert_allclose(sae.pre_activations(x), pre, atol=1e-5)
    np.testing.assert_allclose(sae.decode(sae.encode(x)), x_hat, atol=1e-4)
    if normalization == "layer_norm":
        x_hat = x_hat * std + mean
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, atol=2e-4)


@pytest.mark.parametrize("token_count", [0, 1, 17])
@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.describe())
def test_sparse_is_dense(autoencoder, draw, activation, normalization, token_count):
    sae, x = autoencoder(activation, normalization), draw(token_count, 6)
    z, latents = sae.encode(x), sae.encode_sparse(x)
    torch.testing.assert_close(latents.dense(), z, atol=1e-6, rtol=0)
    assert latents.active_count_per_token().tolist() == (z != 0).sum(1).tolist()
    torch.testing.assert_close(sae.decode_sparse(latents), sae.decode(z), atol=1e-5, rtol=1e-5)
    x_hat, again = sae.reconstruct_sparse(x)
    torch.testing.assert_close(x_hat, sae.reconstruct(x), atol=1e-4, rtol=1e-5)
    assert torch.equal(again.indices, latents.indices) and torch.equal(again.offsets, latents.offsets)


def test_sparse_latents_are_ordered_and_without_zeros(autoencoder, draw):
    latents = autoencoder(ReLU()).encode_sparse(draw(17, 6))
    assert (latents.token_indices() * latents.latent_count + latents.indices).diff().min() > 0
    assert latents.token_count == 17 and (latents.values != 0).all()


@pytest.mark.parametrize("activation", [ReLU(), TopK(5)], ids=["relu", "topk"])
def test_blocks_do_not_change_what_fires(autoencoder, draw, monkeypatch, activation):
    sae, x = autoencoder(activation), draw(23, 6)
    whole = sae.encode_sparse(x)
    monkeypatch.setattr(sharded_products, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(sharded_products, "_EFFICIENT_BLOCK", 4)
    blocks = sae.encode_sparse(x)
    assert torch.equal(whole.indices, blocks.indices) and torch.equal(whole.offsets, blocks.offsets)
    torch.testing.assert_close(whole.values, blocks.values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_batch_size_changes_results_by_rounding_only(autoencoder, draw, batch):
    """Matrix products sum in another order for other batch sizes: equality to the bit is not to be had."""
    sae, x = autoencoder(TopK(5), "layer_norm"), draw(24, 6)
    in_parts = torch.cat([sae.reconstruct_sparse(part)[0] for part in x.split(batch)])
    torch.testing.assert_close(in_parts, sae.reconstruct_sparse(x)[0], atol=1e-5, rtol=1e-5)


def test_float32_agrees_with_float64(autoencoder, draw):
    sae, x = autoencoder(TopK(5), "layer_norm", latents=200, width=64), draw(50, 64)
    exact, latents = sae.to(dtype=torch.float64).reconstruct_sparse(x)
    assert exact.dtype == torch.float64
    assert torch.equal(latents.indices, sae.encode_sparse(x).indices)
    torch.testing.assert_close(sae.reconstruct_sparse(x)[0].double(), exact, atol=1e-3, rtol=1e-5)


def test_input_of_another_precision_is_converted(autoencoder, draw):
    x = draw(4, 6).to(torch.bfloat16)
    sae = autoencoder()
    assert torch.equal(sae.encode(x), sae.encode(x.float()))
    assert sae.reconstruct_sparse(x)[0].dtype == torch.float32


def test_a_silent_token_is_reconstructed_as_the_bias(autoencoder, draw):
    sae = replace(autoencoder(ReLU()), encoder_bias=torch.full((30,), -1e6))
    x_hat, latents = sae.reconstruct_sparse(draw(3, 6))
    assert latents.indices.numel() == 0 and latents.offsets.tolist() == [0, 0, 0, 0]
    assert torch.equal(x_hat, sae.decoder_bias.expand(3, 6))


def test_equal_latents_fire_by_lowest_index(autoencoder, draw):
    sae = autoencoder(TopK(3))
    twins = replace(
        sae, encoder_weight=sae.encoder_weight[:1].expand(30, 6), encoder_bias=torch.full((30,), 100.0)
    )
    assert twins.encode_sparse(draw(2, 6)).indices.tolist() == [0, 1, 2, 0, 1, 2]


def test_layer_norm_is_undone_exactly_but_for_eps(draw):
    x = draw(5, 6) * 4 + 2
    layer_norm = InputNormalization("layer_norm")
    normalised, statistics = layer_norm.apply(x)
    np.testing.assert_allclose(statistics.std.squeeze(1), np.std(x.numpy(), axis=1, ddof=1), rtol=1e-5)
    std = statistics.std
    torch.testing.assert_close(
        layer_norm.undo(normalised, statistics), (x - statistics.mean) * std / (std + 1e-5) + statistics.mean
    )


def test_a_constant_token_survives_layer_norm(autoencoder):
    x_hat, _ = autoencoder(TopK(5), "layer_norm").reconstruct_sparse(torch.full((2, 6), 3.0))
    torch.testing.assert_close(x_hat, torch.full((2, 6), 3.0), atol=1e-4, rtol=0)


def test_no_normalisation_hands_the_input_through(draw):
    x = draw(5, 6)
    normalised, statistics = InputNormalization().apply(x)
    assert normalised is x and InputNormalization().undo(x, statistics) is x
    assert statistics.mean.shape == statistics.std.shape == (5, 1)


def test_sparse_results_carry_no_gradient_and_dense_ones_do(autoencoder, draw):
    sae = autoencoder(ReLU())
    sae = replace(sae, encoder_weight=sae.encoder_weight.requires_grad_())
    assert not sae.reconstruct_sparse(draw(3, 6))[0].requires_grad
    assert sae.reconstruct(draw(3, 6)).requires_grad


def test_dense_of_sparse_latents_puts_values_in_place():
    latents = SparseLatents(
        torch.tensor([2, 0, 1]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1, 3]), 4
    )
    assert latents.dense().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [2, 3, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_bias": torch.zeros(29)}, "encoder_bias has shape"),
        ({"decoder_weight": torch.zeros(6, 30)}, "decoder_weight has shape"),
        ({"decoder_bias": torch.zeros(7)}, "decoder_bias has shape"),
        ({"pre_bias": torch.zeros(1)}, "pre_bias has shape"),
        ({"encoder_weight": torch.zeros(30)}, "must be \\(latents, width\\)"),
        ({"encoder_weight": torch.zeros(0, 6)}, "must be \\(latents, width\\)"),
        ({"activation": TopK(31)}, "more than the 30 latents"),
        ({"activation": JumpReLU(torch.zeros(1))}, "threshold has shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(autoencoder, unchecked_annotations, change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(autoencoder(), **change)


def test_layer_norm_of_one_number_is_refused(autoencoder):
    with pytest.raises(CheckpointError, match="no standard deviation"):
        autoencoder(TopK(2), "layer_norm", width=1)


def test_moving_leaves_the_original_alone(autoencoder):
    sae = autoencoder(JumpReLU(torch.zeros(30)))
    moved = sae.to("cpu", torch.bfloat16)
    assert moved.dtype == moved.activation.threshold.dtype == torch.bfloat16
    assert sae.dtype == torch.float32 and moved.device.type == "cpu"
