"""sparsify folders: the library's formula, by NumPy on the raw tensors, and what is refused."""

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU, TopK
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.errors import CheckpointError


def brute_force(config, tensors, x):
    raw = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    p = np.maximum((x.double().numpy() - raw["b_dec"]) @ raw["encoder.weight"].T + raw["encoder.bias"], 0)
    z, x_hat = np.zeros_like(p), np.tile(raw["b_dec"], (len(p), 1))
    for token, row in enumerate(p):
        for latent in np.argsort(-row, kind="stable")[: config["k"]]:
            z[token, latent] = row[latent]
            x_hat[token] += row[latent] * raw["W_dec"][latent]
    return z, x_hat


@pytest.mark.parametrize("k", [1, 5, 28, 30])
def test_latents_and_reconstruction_follow_the_librarys_formula(sparsify_folder, draw, k):
    config, tensors, store = sparsify_folder
    config["k"] = k
    sae, x = load_checkpoint(store(config, tensors)), draw(40, 6)
    z, x_hat = brute_force(config, tensors, x)
    np.testing.assert_allclose(sae.encode(x), z, atol=2e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, atol=2e-4)
    np.testing.assert_allclose(sae.reconstruct_sparse(x)[0], x_hat, atol=2e-4)


@pytest.mark.parametrize(
    ("folder", "site"),
    [
        ("layers.4", "blocks.4.hook_resid_post"),
        ("h.11", "blocks.11.hook_resid_post"),
        ("model.layers.0", "blocks.0.hook_resid_post"),
        ("layers.4.mlp", "layers.4.mlp"),
        ("my.checkpoint", None),
        ("run_7", None),
    ],
)
def test_the_folders_name_is_the_site_when_it_is_a_module_path(autoencoder, tmp_path, folder, site):
    write_checkpoint(autoencoder(), tmp_path / folder, format="sparsify")
    checkpoint = read_checkpoint(tmp_path / folder)
    assert checkpoint.sae.metadata.site == site
    assert ("site" in checkpoint.missing) == (site is None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "groupmax"}, "'groupmax' is not supported yet"),
        ({"skip_connection": True}, "skip_connection is not supported yet"),
        ({"transcode": True}, "transcode is not supported yet"),
        ({"signed": True}, "signed is not supported yet"),
        ({"k": None}, "says no k"),
        ({"k": 0}, "at least 1"),
        ({"k": 31}, "more than the 30 latents"),
        ({"d_in": 7}, "not \\(d_model = 7\\)"),
        ({"num_latents": 60}, "not \\(latent = 60, d_model = 6\\)"),
        ({"expansion_factor": 4}, "not \\(latent = 24, d_model = 6\\)"),
    ],
)
def test_variants_and_contradictions_are_refused(sparsify_folder, changes, message):
    config, tensors, store = sparsify_folder
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config | changes, tensors))


def test_a_skip_connection_that_the_configuration_hides_is_refused(sparsify_folder, draw):
    config, tensors, store = sparsify_folder
    with pytest.raises(CheckpointError, match="unknown tensors 'W_skip'"):
        load_checkpoint(store(config, tensors | {"W_skip": draw(6, 6)}))


def test_an_old_configuration_with_little_in_it_is_enough(sparsify_folder):
    _, tensors, store = sparsify_folder
    assert read_checkpoint(store({"k": 3, "signed": False}, tensors)).architecture == "topk(k=3)"


@pytest.mark.parametrize(
    ("activation", "normalization", "shared"),
    [
        (ReLU(), "none", True),
        (TopK(5, "identity"), "none", True),
        (TopK(5), "layer_norm", True),
        (TopK(5), "none", False),
    ],
)
def test_writing_refuses_what_the_folder_cannot_say(autoencoder, tmp_path, activation, normalization, shared):
    with pytest.raises(CheckpointError, match="sparsify format"):
        write_checkpoint(autoencoder(activation, normalization, shared=shared), tmp_path, format="sparsify")
    assert not list(tmp_path.iterdir())


def test_no_bias_at_all_can_be_written(autoencoder, tmp_path, draw):
    sae = autoencoder(shared=False)
    sae.decoder_bias.zero_()
    write_checkpoint(sae, tmp_path, format="sparsify")
    x = draw(5, 6)
    assert torch.equal(load_checkpoint(tmp_path).encode(x), sae.encode(x))
