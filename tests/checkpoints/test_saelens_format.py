"""SAELens 6 folders: the library's formulas, by NumPy on the raw tensors, and what is refused."""

import json

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import Identity, JumpReLU, TopK
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.errors import CheckpointError


def brute_force(config, tensors, x):
    """The formula of the format, in float64."""
    raw = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    h = x.double().numpy()
    if config["normalize_activations"] == "layer_norm":
        mean, std = h.mean(1, keepdims=True), h.std(1, ddof=1, keepdims=True)
        h = (h - mean) / (std + 1e-5)
    p = (h - config.get("apply_b_dec_to_input", True) * raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"]
    norms = np.linalg.norm(raw["W_dec"], axis=1) if config.get("rescale_acts_by_decoder_norm") else 1.0
    if config["architecture"] == "jumprelu":
        z = np.maximum(p, 0) * (p > raw["threshold"])
    elif config["architecture"] == "topk":
        p = p * norms
        z = np.maximum(np.where(p >= np.sort(p, axis=1)[:, [-config["k"]]], p, 0), 0)
    else:
        z = np.maximum(p, 0)
    x_hat = (z / norms) @ raw["W_dec"] + raw["b_dec"]
    return z, x_hat * std + mean if config["normalize_activations"] == "layer_norm" else x_hat


def varied(saelens_folder, draw, **changes):
    config, tensors, store = saelens_folder
    config = {key: value for key, value in (config | changes).items() if value is not None}
    if config.get("architecture") == "jumprelu":
        tensors = {**tensors, "threshold": draw(30).abs()}
    return config, tensors, store


@pytest.mark.parametrize("apply_b_dec", [True, False, None])
@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
@pytest.mark.parametrize(
    ("architecture", "rescale"), [("standard", None), ("jumprelu", None), ("topk", False), ("topk", True)]
)
def test_latents_and_reconstruction_follow_the_librarys_formula(
    saelens_folder, draw, architecture, rescale, normalization, apply_b_dec
):
    config, tensors, store = varied(
        saelens_folder,
        draw,
        architecture=architecture,
        rescale_acts_by_decoder_norm=rescale,
        normalize_activations=normalization,
        apply_b_dec_to_input=apply_b_dec,
    )
    sae, x = load_checkpoint(store(config, tensors)), draw(40, 6) * 2 + 1
    z, x_hat = brute_force(config, tensors, x)
    np.testing.assert_allclose(sae.encode(x), z, atol=5e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, atol=2e-4)
    np.testing.assert_allclose(sae.reconstruct_sparse(x)[0], x_hat, atol=2e-4)


def test_the_metadata_says_where_it_belongs(saelens_folder):
    config, tensors, store = saelens_folder
    checkpoint = read_checkpoint(store(config, tensors))
    metadata = checkpoint.sae.metadata
    assert (metadata.site, metadata.subject) == ("blocks.8.hook_resid_pre", "gpt2-small")
    assert (metadata.context_length, metadata.prepend_bos) == (128, True)
    assert checkpoint.missing == () and metadata.notes == ()


def test_a_folder_without_metadata_lists_what_is_missing(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, metadata=None)
    assert read_checkpoint(store(config, tensors)).missing == (
        "site",
        "subject",
        "context_length",
        "prepend_bos",
    )


def test_moved_decoder_norms_and_ignored_keys_are_said(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, rescale_acts_by_decoder_norm=True, l1_coefficient=3)
    notes = load_checkpoint(store(config, tensors)).metadata.notes
    assert any("rescale_acts_by_decoder_norm" in note for note in notes)
    assert any("l1_coefficient" in note for note in notes)


@pytest.mark.parametrize("architecture", ["gated", "transcoder", "temporal", "matching_pursuit", "batchtopk"])
def test_other_architectures_are_refused_by_name(saelens_folder, draw, architecture):
    config, tensors, store = varied(saelens_folder, draw, architecture=architecture)
    with pytest.raises(CheckpointError, match=f"architecture '{architecture}' is not supported yet"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "says no architecture"),
        ({"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale' is not supported yet"),
        ({"normalize_activations": "expected_average_only_in"}, "is not supported yet"),
        ({"normalize_activations": True}, "before SAELens 6"),
        ({"hook_point": "blocks.8.hook_resid_pre"}, "before SAELens 6 \\(hook_point\\)"),
        ({"activation_fn_str": "topk"}, "before SAELens 6"),
        ({"reshape_activations": "hook_z"}, "'hook_z' is not supported yet"),
        ({"metadata": {"hook_head_index": 3}}, "hook_head_index"),
        ({"metadata": {"hook_name": 4}}, "'hook_name' should be a text"),
        ({"metadata": {"context_size": 0}}, "at least 1"),
        ({"metadata": []}, "should be an object"),
        ({"k": None}, "without k"),
        ({"k": 0}, "at least 1"),
        ({"k": -3}, "at least 1"),
        ({"k": 31}, "more than the 30 latents"),
        ({"k": "5"}, "should be a whole number"),
        ({"k": True}, "truth value"),
        ({"d_in": 7}, "'W_enc' has shape \\(6, 30\\), not \\(d_model = 7, latent = 30\\)"),
        ({"d_sae": 31}, "'W_enc' has shape"),
        ({"d_sae": -1}, "at least 1"),
        ({"apply_b_dec_to_input": "yes"}, "should be true or false"),
    ],
)
def test_variants_and_contradictions_are_refused(saelens_folder, draw, changes, message):
    config, tensors, store = varied(saelens_folder, draw, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config, tensors))


def test_a_decoder_row_of_norm_zero_cannot_be_rescaled(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, rescale_acts_by_decoder_norm=True)
    tensors["W_dec"][3] = 0
    with pytest.raises(CheckpointError, match="norm 0"):
        load_checkpoint(store(config, tensors))


def test_a_legacy_scaling_factor_is_refused(saelens_folder, draw):
    config, tensors, store = saelens_folder
    with pytest.raises(CheckpointError, match="unknown tensors 'scaling_factor'"):
        load_checkpoint(store(config, tensors | {"scaling_factor": draw(30)}))


def test_what_was_rescaled_is_written_without_the_flag_and_loads_equal(saelens_folder, draw, tmp_path):
    config, tensors, store = varied(saelens_folder, draw, rescale_acts_by_decoder_norm=True)
    sae, x = load_checkpoint(store(config, tensors)), draw(9, 6)
    write_checkpoint(sae, tmp_path / "again", format="saelens")
    assert torch.equal(load_checkpoint(tmp_path / "again").reconstruct(x), sae.reconstruct(x))
    assert json.loads((tmp_path / "again" / "cfg.json").read_text())["rescale_acts_by_decoder_norm"] is False


def test_metadata_survives_a_round_trip(autoencoder, tmp_path):
    metadata = CheckpointMetadata("blocks.4.hook_resid_post", "gpt2", 64, prepend_bos=False)
    write_checkpoint(autoencoder(TopK(5), metadata=metadata), tmp_path, format="saelens")
    assert load_checkpoint(tmp_path).metadata == metadata


@pytest.mark.parametrize("activation", [Identity(), TopK(5, "identity")])
def test_writing_refuses_what_the_folder_cannot_say(autoencoder, tmp_path, activation):
    with pytest.raises(CheckpointError, match="saelens format cannot hold the activation"):
        write_checkpoint(autoencoder(activation), tmp_path, format="saelens")
    assert not list(tmp_path.iterdir())


def test_thresholds_are_stored_with_the_weights(autoencoder, tmp_path, draw):
    threshold = draw(30).abs()
    write_checkpoint(autoencoder(JumpReLU(threshold), shared=False), tmp_path, format="saelens")
    sae = load_checkpoint(tmp_path)
    assert torch.equal(sae.activation.threshold, threshold) and sae.pre_bias is None
