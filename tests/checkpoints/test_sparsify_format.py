"""sparsify folders: the library's formula, by NumPy on the raw tensors, and what is refused.

What the library itself computes of files that it saved lies in fixtures/sparsify.
"""

import dataclasses

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError


def brute_force(config, tensors, x):
    raw = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    h = x.double().numpy()
    p = (h if config["transcode"] else h - raw["b_dec"]) @ raw["encoder.weight"].T + raw["encoder.bias"]
    p = p if config.get("signed") else np.maximum(p, 0)
    z, x_hat = np.zeros_like(p), np.tile(raw["b_dec"], (len(p), 1))
    for token, row in enumerate(p):
        for latent in kept(row, config):
            z[token, latent] = row[latent]
            x_hat[token] += row[latent] * raw["W_dec"][latent]
    return z, (x_hat + h @ raw["W_skip"].T if config["skip_connection"] else x_hat)


def kept(row, config):
    if config["activation"] == "topk":
        return np.argsort(-abs(row), kind="stable")[: config["k"]]
    groups = row.reshape(config["k"], -1)
    return groups.argmax(axis=1) + np.arange(config["k"]) * groups.shape[1]


@pytest.mark.parametrize("k", [1, 5, 28, 30])
def test_latents_and_reconstruction_follow_the_librarys_formula(sparsify_folder, draw, k):
    config, tensors, store = sparsify_folder
    agrees(config | {"k": k}, tensors, store, draw)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "groupmax"},
        {"activation": "groupmax", "k": 30},
        {"skip_connection": True},
        {"transcode": True},
        {"transcode": True, "skip_connection": True, "activation": "groupmax", "k": 10},
        {"signed": True},
        {"signed": True, "k": 28},
    ],
    ids=str,
)
def test_variants_follow_the_librarys_formulas(sparsify_folder, draw, changes):
    config, tensors, store = sparsify_folder
    tensors |= {"W_skip": draw(6, 6)} if changes.get("skip_connection") else {}
    agrees(config | changes, tensors, store, draw)


def agrees(config, tensors, store, draw):
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
    ("folder", "site", "output_site"),
    [
        ("layers.4.mlp", "layers.4.mlp:input", "layers.4.mlp"),
        ("gpt_neox.layers.4.mlp", "gpt_neox.layers.4.mlp:input", "gpt_neox.layers.4.mlp"),
        ("layers.4", "blocks.4.hook_resid_pre", "blocks.4.hook_resid_post"),
        ("layers.4.mlp/seed1", "layers.4.mlp:input", "layers.4.mlp"),
    ],
)
def test_a_transcoder_predicts_what_its_module_returns_from_what_it_is_given(
    autoencoder, tmp_path, folder, site, output_site
):
    write_checkpoint(autoencoder(), tmp_path / folder, format="sparsify")
    configuration = tmp_path / folder / "cfg.json"
    configuration.write_text(configuration.read_text().replace('"transcode": false', '"transcode": true'))
    checkpoint = read_checkpoint(tmp_path / folder)
    assert (checkpoint.sae.metadata.site, checkpoint.sae.metadata.output_site) == (site, output_site)
    assert checkpoint.sae.pre_bias is None and checkpoint.sae.is_transcoder


def test_a_transcoder_in_a_folder_without_a_modules_name_is_refused(sparsify_folder, tmp_path):
    config, tensors, store = sparsify_folder
    store(config | {"transcode": True}, tensors).rename(tmp_path / "best")
    with pytest.raises(CheckpointError, match="not named after its module"):
        load_checkpoint(tmp_path / "best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "gelu"}, "'gelu' is not supported"),
        ({"activation": "groupmax", "k": 7}, "groupmax cannot deal 30 latents into 7 groups"),
        ({"activation": "groupmax", "k": None}, "says no k"),
        ({"skip_connection": True}, "'W_skip' is missing"),
        ({"signed": True, "activation": "groupmax"}, "signed together with groupmax is not"),
        ({"signed": True, "transcode": True}, "signed together with transcode is not"),
        ({"signed": True, "skip_connection": True}, "signed together with skip_connection is not"),
        ({"transcode": "yes"}, "'transcode' should be true or false"),
        ({"k": None}, "says no k"),
        ({"k": 0}, "at least 1"),
        ({"k": 31}, "more than the 30 latents"),
        ({"d_in": 7}, "not \\(.*d_model = 7\\)"),
        ({"num_latents": 60}, "not \\(latent = 60, d_model = 6\\)"),
        ({"expansion_factor": 4}, "not \\(latent = 24, d_model = 6\\)"),
    ],
)
def test_unknown_variants_and_contradictions_are_refused(sparsify_folder, draw, changes, message):
    config, tensors, store = sparsify_folder
    tensors |= {"W_skip": draw(6, 6)} if changes.get("signed") and changes.get("skip_connection") else {}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config | changes, tensors))


def test_what_is_not_as_it_seems_is_noted(sparsify_folder):
    config, tensors, store = sparsify_folder
    changes = {"signed": True, "multi_topk": True, "of_another": None}
    signed, multi_topk, unknown = load_checkpoint(store(config | changes, tensors)).metadata.notes
    assert "ignores this field" in signed and "4 k of them" in multi_topk
    assert unknown.endswith(": of_a_later_version, of_another")


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


@pytest.mark.parametrize("change", ["latent_scale", "skip_weight", "output_site"])
def test_writing_refuses_what_goes_beyond_an_autoencoder(autoencoder, tmp_path, draw, change):
    parts = {
        "latent_scale": {"latent_scale": draw(30).abs() + 1},
        "skip_weight": {"skip_weight": draw(6, 6)},
        "output_site": {"metadata": CheckpointMetadata("layers.3:input", output_site="layers.3")},
    }
    with pytest.raises(CheckpointError, match="sparsify format"):
        write_checkpoint(dataclasses.replace(autoencoder(), **parts[change]), tmp_path, format="sparsify")
