"""SAELens folders: the library's formulas by NumPy on the raw tensors, old configurations, runs, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.formats import saelens
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.errors import CheckpointError

FIXTURES = Path(__file__).parent / "fixtures" / "sae_lens"
OLD = {
    "d_in": 6,
    "d_sae": 30,
    "dtype": "torch.float32",
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "hook_point_head_index": None,
    "model_name": "gpt2-small",
    "prepend_bos": True,
    "context_size": 128,
}


def brute_force(config, tensors, x):
    """The formula of the format, in float64."""
    raw = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    h = x.double().numpy()
    mean, std = h.mean(1, keepdims=True), h.std(1, ddof=1, keepdims=True)
    if config["normalize_activations"] == "layer_norm":
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
    architecture = config.get("architecture", "standard")
    if "jumprelu" in architecture:
        tensors = {**tensors, "threshold": draw(30).abs()}
    if "batchtopk" in architecture:
        tensors = {**tensors, "topk_threshold": torch.tensor(0.7, dtype=torch.float64)}
    if architecture == "gated":
        tensors = {**tensors, "b_gate": draw(30), "b_mag": draw(30), "r_mag": draw(30)}
        del tensors["b_enc"]
    if architecture == "matching_pursuit":
        tensors = {name: tensors[name] for name in ("W_dec", "b_dec")}
    return config, tensors, store


def old_folder(saelens_folder, draw, **changes):
    """Like `varied`, with the flat configuration of a version before 6."""
    _, tensors, store = saelens_folder
    _, tensors, _ = varied((OLD, tensors, store), draw, **changes)
    return store({key: value for key, value in (OLD | changes).items() if value != "absent"}, tensors)


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


def test_matrices_stay_as_they_are_stored_and_vectors_come_in_float32(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, rescale_acts_by_decoder_norm=True)
    sae, _ = saelens.read(
        store(config, {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()})
    )
    assert sae.encoder_weight.dtype == sae.decoder_weight.dtype == torch.bfloat16
    assert not sae.encoder_weight.is_contiguous()
    assert sae.encoder_bias.dtype == sae.latent_scale.dtype == torch.float32


def test_thresholds_that_a_run_in_bfloat16_kept_in_float32_are_not_rounded():
    stored = safetensors.torch.load_file(FIXTURES / "bfloat16_run" / "checkpoint" / "sae_weights.safetensors")
    threshold = load_checkpoint(FIXTURES / "bfloat16_run" / "checkpoint").activation.threshold
    assert torch.equal(threshold, stored["threshold"])
    assert not torch.equal(threshold, threshold.to(torch.bfloat16).float())


def test_the_metadata_says_where_it_belongs(saelens_folder):
    config, tensors, store = saelens_folder
    checkpoint = read_checkpoint(store(config, tensors))
    metadata = checkpoint.sae.metadata
    assert (metadata.site, metadata.subject) == ("blocks.8.hook_resid_pre", "gpt2-small")
    assert (metadata.context_length, metadata.prepend_bos) == (128, True)
    assert checkpoint.missing == () and metadata.notes == ()


def test_a_folder_without_metadata_lists_what_is_missing(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, metadata={})
    assert read_checkpoint(store(config, tensors)).missing == (
        "site",
        "subject",
        "context_length",
        "prepend_bos",
    )


def test_ignored_keys_and_how_the_subject_was_loaded_are_said(saelens_folder, draw):
    metadata = {"model_from_pretrained_kwargs": {"center_writing_weights": False}}
    config, tensors, store = varied(saelens_folder, draw, metadata=metadata, l1_coefficient=3)
    notes = load_checkpoint(store(config, tensors)).metadata.notes
    assert any("l1_coefficient" in note for note in notes)
    assert any("center_writing_weights" in note for note in notes)


def test_of_many_ignored_keys_some_are_named(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, **{f"key_{i:02}": i for i in range(40)})
    (note,) = load_checkpoint(store(config, tensors)).metadata.notes
    assert "key_11 and 28 more" in note and "key_12" not in note


@pytest.mark.parametrize("architecture", ["temporal", "crosscoder", "Standard"])
def test_other_architectures_are_refused_by_name(saelens_folder, draw, architecture):
    config, tensors, store = varied(saelens_folder, draw, architecture=architecture)
    with pytest.raises(CheckpointError, match=f"architecture '{architecture}' is not supported"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "says no architecture"),
        ({"normalize_activations": "constant_scalar_rescale"}, "'constant_scalar_rescale' is not supported"),
        ({"normalize_activations": True}, "should be a text"),
        ({"reshape_activations": "flatten"}, "'flatten' is not supported"),
        ({"metadata": {"hook_head_index": 3}}, "hook_head_index"),
        ({"metadata": {"hook_head_index_out": 0}}, "hook_head_index_out"),
        ({"metadata": {"hook_name": 4}}, "'hook_name' should be a text"),
        ({"metadata": {"context_size": 0}}, "at least 1"),
        ({"metadata": []}, "should be an object"),
        ({"k": None}, "without k"),
        ({"k": 0}, "at least 1"),
        ({"k": -3}, "at least 1"),
        ({"k": 31}, "more than the 30 latents"),
        ({"k": "5"}, "should be a whole number"),
        ({"k": 2.5}, "should be a whole number"),
        ({"k": True}, "truth value"),
        ({"architecture": "abstopk", "k": None}, "architecture 'abstopk' without k"),
        ({"d_in": 7}, "has shape \\(30, 6\\), not \\(latent = 30, d_model = 7\\)"),
        ({"d_sae": 31}, "'W_dec' has shape"),
        ({"d_sae": -1}, "at least 1"),
        ({"apply_b_dec_to_input": "yes"}, "should be true or false"),
        ({"architecture": "batchtopk", "rescale_acts_by_decoder_norm": None}, "says no rescale_acts_by"),
        ({"architecture": "matching_pursuit", "residual_threshold": 0.1}, "says no residual_threshold or"),
        (
            {"architecture": "matching_pursuit", "normalize_activations": "covariance_whitening"},
            "matching_pursuit with covariance_whitening",
        ),
    ],
)
def test_variants_and_contradictions_are_refused(saelens_folder, draw, changes, message):
    config, tensors, store = varied(saelens_folder, draw, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize("architecture", ["topk", "abstopk", "batchtopk"])
def test_a_decoder_row_of_norm_zero_cannot_be_rescaled(saelens_folder, draw, architecture):
    config, tensors, store = varied(
        saelens_folder, draw, architecture=architecture, rescale_acts_by_decoder_norm=True
    )
    tensors["W_dec"][3] = 0
    with pytest.raises(CheckpointError, match="norm 0"):
        load_checkpoint(store(config, tensors))


def test_a_skip_connection_needs_its_architecture(saelens_folder, draw):
    config, tensors, store = varied(
        saelens_folder, draw, architecture="transcoder", apply_b_dec_to_input=False
    )
    with pytest.raises(CheckpointError, match="unknown tensors 'W_skip'"):
        load_checkpoint(store(config, tensors | {"W_skip": draw(6, 6)}))


def test_a_run_that_stored_logarithms_of_thresholds_is_read(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw, architecture="jumprelu")
    threshold = tensors.pop("threshold")
    sae = load_checkpoint(store(config, tensors | {"log_threshold": threshold.log()}))
    np.testing.assert_allclose(sae.activation.threshold, threshold, rtol=1e-6)


# Transcoders


@pytest.mark.parametrize("applies", [True, None])
def test_a_transcoder_subtracts_nothing(saelens_folder, draw, applies):
    config, tensors, store = varied(
        saelens_folder, draw, architecture="transcoder", apply_b_dec_to_input=applies
    )
    with pytest.raises(CheckpointError, match="a transcoder with apply_b_dec_to_input"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale", "expected_average_only_in"])
def test_a_transcoder_that_normalises_is_refused(saelens_folder, draw, normalization):
    config, tensors, store = varied(
        saelens_folder,
        draw,
        architecture="jumprelu_transcoder",
        apply_b_dec_to_input=False,
        normalize_activations=normalization,
    )
    with pytest.raises(CheckpointError, match=f"'{normalization}' is not supported: its output stays"):
        load_checkpoint(store(config, tensors))


def test_a_transcoder_says_both_sites_or_which_is_missing(saelens_folder, draw):
    changes = {"architecture": "transcoder", "apply_b_dec_to_input": False}
    config, tensors, store = varied(saelens_folder, draw, **changes)
    silent = read_checkpoint(store(config, tensors))
    assert silent.missing == ("output_site",) and "name it in the suite" in silent.sae.metadata.notes[0]
    config["metadata"] |= {"hook_name_out": "blocks.8.hook_mlp_out"}
    talking = read_checkpoint(store(config, tensors))
    assert talking.missing == () and talking.sae.metadata.output_site == "blocks.8.hook_mlp_out"
    assert talking.sae.is_transcoder


def test_an_autoencoder_has_no_other_output_site(saelens_folder, draw):
    config, tensors, store = varied(saelens_folder, draw)
    config["metadata"] |= {"hook_name_out": "blocks.8.hook_mlp_out"}
    assert not load_checkpoint(store(config, tensors)).is_transcoder


# Configurations from before version 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"architecture": "standard"}),
        ({"activation_fn": "relu"}, {"architecture": "standard"}),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}}, {"k": 7}),
        ({"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 7}}, {"k": 7}),
        ({"architecture": "topk", "k": 7}, {"k": 7}),
        (
            {"architecture": "jumprelu", "activation_fn_str": "relu", "activation_fn_kwargs": {}},
            {"architecture": "jumprelu"},
        ),
        ({"architecture": "gated"}, {"architecture": "gated"}),
        ({"normalize_activations": False}, {"architecture": "standard"}),
        ({"normalize_activations": None}, {"architecture": "standard"}),
        (
            {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False},
            {
                "architecture": "standard",
                "normalize_activations": "layer_norm",
                "apply_b_dec_to_input": False,
            },
        ),
        ({"sae_lens_version": "5.11.0"}, {"architecture": "standard"}),
        ({"metadata": {"sae_lens_version": "5.11.0"}}, {"architecture": "standard"}),
    ],
)
def test_an_old_configuration_is_read_as_the_new_one_of_the_same_meaning(saelens_folder, draw, old, new):
    config, tensors, store = varied(saelens_folder, draw, **new)
    expected = load_checkpoint(store(config, tensors))
    sae, x = load_checkpoint(store(OLD | old, tensors)), draw(20, 6)
    assert torch.equal(sae.encode(x), expected.encode(x))
    assert torch.equal(sae.reconstruct(x), expected.reconstruct(x))
    assert sae.metadata == expected.metadata


def test_newer_names_win_over_older_ones(saelens_folder, draw):
    path = old_folder(saelens_folder, draw, hook_name="blocks.3.hook_mlp_out")
    assert load_checkpoint(path).metadata.site == "blocks.3.hook_mlp_out"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation function 'tanh-relu' is not supported"),
        ({"activation_fn": "topk", "activation_fn_kwargs": {}}, "'topk' without k"),
        ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 3, "postact_fn": 1}}, "postact_fn are not"),
        ({"activation_fn": "topk", "activation_fn_kwargs": 3}, "should be an object"),
        ({"architecture": "jumprelu", "activation_fn": "topk"}, "'jumprelu' with activation function 'topk'"),
        ({"architecture": "topk", "activation_fn": "relu", "k": 3}, "'topk' with activation function 'relu'"),
        ({"architecture": "temporal"}, "'temporal' is not supported"),
        ({"hook_point_head_index": 2}, "hook_head_index"),
        ({"normalize_activations": True}, "'expected_average_only_in', and its factor is not in the files"),
        ({"metadata": 3}, "should be an object"),
        ({"sae_lens_version": 5}, "should be a text"),
    ],
)
def test_old_variants_are_refused_by_name(saelens_folder, draw, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(old_folder(saelens_folder, draw, **changes))


def test_a_version_from_6_on_is_not_read_as_an_old_one(saelens_folder, draw):
    config, tensors, store = varied(
        saelens_folder, draw, architecture=None, metadata={"sae_lens_version": "6.0.0-rc.1"}
    )
    with pytest.raises(CheckpointError, match="says no architecture"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_finetuned_factors_count_when_decoding_only(saelens_folder, draw, name):
    _, tensors, store = saelens_folder
    plain, x = load_checkpoint(store(OLD, tensors)), draw(20, 6)
    factor = draw(30).abs() + 0.1
    finetuned = load_checkpoint(store(OLD, tensors | {name: factor}))
    assert torch.equal(finetuned.encode(x), plain.encode(x))
    expected = plain.decode(plain.encode(x) * factor)
    np.testing.assert_allclose(finetuned.reconstruct(x), expected, atol=1e-5)
    ones = load_checkpoint(store(OLD, tensors | {name: torch.ones(30)}))
    assert torch.equal(ones.reconstruct(x), plain.reconstruct(x))


def test_factors_that_the_configuration_promises_must_be_there(saelens_folder, draw):
    path = old_folder(saelens_folder, draw, finetuning_scaling_factor=True)
    with pytest.raises(CheckpointError, match="'finetuning_scaling_factor' is missing"):
        load_checkpoint(path)


def test_factors_that_the_configuration_denies_are_refused(saelens_folder, draw):
    _, tensors, store = saelens_folder
    path = store(OLD | {"finetuning_scaling_factor": False}, tensors | {"scaling_factor": draw(30)})
    with pytest.raises(CheckpointError, match="scaling_factor is not 1, while"):
        load_checkpoint(path)


# Runs that go on


def average_folder(saelens_folder, draw, scaler=None, **changes):
    changes = {"normalize_activations": "expected_average_only_in"} | changes
    config, tensors, store = varied(saelens_folder, draw, **changes)
    path = store(config, tensors)
    if scaler is not None:
        (path / "activation_scaler.json").write_text(json.dumps(scaler))
    return path


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_the_factor_of_a_run_scales_the_input_and_unscales_the_output(saelens_folder, draw, architecture):
    path = average_folder(saelens_folder, draw, {"scaling_factor": 0.4}, architecture=architecture)
    sae, x = load_checkpoint(path), draw(20, 6)
    config = json.loads((path / "cfg.json").read_text()) | {"normalize_activations": "none"}
    tensors = safetensors.torch.load_file(path / "sae_weights.safetensors")
    z, x_hat = brute_force(config, tensors, x * 0.4)
    np.testing.assert_allclose(sae.encode(x), z, atol=1e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat / 0.4, atol=1e-4)


def test_the_factor_belongs_to_the_checkpoints_hash(saelens_folder, draw):
    path = average_folder(saelens_folder, draw, {"scaling_factor": 0.4})
    before = read_checkpoint(path).sha256
    (path / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    assert read_checkpoint(path).sha256 != before


def test_without_such_a_normalisation_a_runs_other_files_change_nothing(saelens_folder, draw):
    path = average_folder(saelens_folder, draw, normalize_activations="none")
    before = read_checkpoint(path)
    (path / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    after = read_checkpoint(path)
    assert after.sha256 == before.sha256 and after.normalization == "none"


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (None, "its factor is not in the files; say it in activation_scaler.json"),
        ({"scaling_factor": None}, "its factor is not in the files"),
        ({}, "its factor is not in the files"),
        ({"scaling_factor": 0}, "should be positive"),
        ({"scaling_factor": -1.5}, "should be positive"),
        ({"scaling_factor": "2"}, "should be a number"),
        ({"scaling_factor": float("nan")}, "should be a number"),
        ([], "should hold a JSON object"),
    ],
)
def test_a_factor_that_is_not_there_or_none_is_refused(saelens_folder, draw, scaler, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(average_folder(saelens_folder, draw, scaler))


def test_only_an_old_run_is_taken_to_have_folded_a_factor_that_its_store_lacks(saelens_folder, draw):
    _, tensors, store = saelens_folder
    config = OLD | {"normalize_activations": True}
    path = store(config, tensors)
    buffer = {"n_dataset_processed": torch.tensor(7)}
    safetensors.torch.save_file(buffer, path / "activations_store_state.safetensors")
    folded = load_checkpoint(path)
    assert folded.normalization == InputNormalization()
    assert any("taken as folded" in note for note in folded.metadata.notes)
    newer = {"sae_lens_version": "6.1.0", "architecture": "standard"}
    store(config | newer | {"normalize_activations": "expected_average_only_in"}, tensors)
    with pytest.raises(CheckpointError, match="its factor is not in the files"):
        load_checkpoint(path)


def test_whitening_without_its_matrices_is_refused(saelens_folder, draw):
    path = average_folder(saelens_folder, draw, normalize_activations="covariance_whitening")
    with pytest.raises(CheckpointError, match="its matrices are not in the files"):
        load_checkpoint(path)
    matrices = {"mean": draw(6), "matrix": torch.eye(6), "inverse_matrix": torch.eye(6)}
    file = path / "activation_whitening.safetensors"
    safetensors.torch.save_file(matrices, file)
    assert load_checkpoint(path).d_model == 6
    (path / "activation_scaler.json").write_text('{"has_whitening": false}')
    with pytest.raises(CheckpointError, match="its matrices are not in the files"):
        load_checkpoint(path)
    (path / "activation_scaler.json").unlink()
    safetensors.torch.save_file(matrices | {"mean": draw(7)}, file)
    with pytest.raises(CheckpointError, match=r"'mean' has shape \(7,\)"):
        load_checkpoint(path)


def test_what_was_made_of_a_run_is_said():
    notes = load_checkpoint(FIXTURES / "batchtopk_checkpoint" / "checkpoint").metadata.notes
    assert any("batch-top-k" in note for note in notes)
    notes = load_checkpoint(FIXTURES / "whitening_checkpoint" / "checkpoint").metadata.notes
    assert any("folded into the weights" in note for note in notes)


# Writing


def test_scales_that_are_the_decoders_norms_are_written_as_the_flag(saelens_folder, draw, tmp_path):
    config, tensors, store = varied(saelens_folder, draw, rescale_acts_by_decoder_norm=True)
    sae, x = load_checkpoint(store(config, tensors)), draw(9, 6)
    write_checkpoint(sae, tmp_path / "again", format="saelens")
    again = load_checkpoint(tmp_path / "again")
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
    assert json.loads((tmp_path / "again" / "cfg.json").read_text())["rescale_acts_by_decoder_norm"] is True


@pytest.mark.parametrize("case", ["standard_constant_norm", "jumprelu_layer_norm", "v5_topk", "hook_z"])
def test_what_a_library_saved_is_written_and_read_again_as_it_was(tmp_path, case):
    sae = load_checkpoint(FIXTURES / case / "checkpoint")
    write_checkpoint(sae, tmp_path / case, format="saelens")
    again, x = load_checkpoint(tmp_path / case), torch.linspace(-2, 2, 24).view(3, 8)
    assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
    assert again.normalization == sae.normalization


def test_metadata_survives_a_round_trip(autoencoder, tmp_path):
    metadata = CheckpointMetadata("blocks.4.hook_resid_post", "gpt2", 64, prepend_bos=False)
    write_checkpoint(autoencoder(TopK(5), metadata=metadata), tmp_path, format="saelens")
    assert load_checkpoint(tmp_path).metadata == metadata


@pytest.mark.parametrize(
    "activation",
    [
        Identity(),
        TopK(5, "identity"),
        TopK(5, weight=torch.ones(30)),
        AbsTopK(5),
        Gated(torch.ones(30), torch.ones(30), torch.ones(30)),
    ],
    ids=lambda activation: activation.describe(),
)
def test_writing_refuses_what_the_folder_cannot_say(autoencoder, tmp_path, activation):
    with pytest.raises(CheckpointError, match="saelens format cannot hold the activation"):
        write_checkpoint(autoencoder(activation), tmp_path, format="saelens")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("skip_transcoder", "transcoders are not written"),
        ("topk_checkpoint", "cannot hold"),
        ("standard_checkpoint", "cannot hold the normalisation"),
        ("abstopk_rescaled", "cannot hold these scales"),
        ("batchtopk_checkpoint", "cannot hold these scales"),
        ("matching_pursuit", "cannot hold the activation matching_pursuit"),
    ],
)
def test_writing_refuses_what_it_would_have_to_change(tmp_path, case, message):
    sae = load_checkpoint(FIXTURES / case / "checkpoint")
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(sae, tmp_path / "sae", format="saelens")
    assert not (tmp_path / "sae").exists()


def test_thresholds_are_stored_with_the_weights(autoencoder, tmp_path, draw):
    threshold = draw(30).abs()
    write_checkpoint(autoencoder(JumpReLU(threshold), shared=False), tmp_path, format="saelens")
    sae = load_checkpoint(tmp_path)
    assert torch.equal(sae.activation.threshold, threshold) and sae.pre_bias is None


def test_two_different_biases_cannot_be_written(autoencoder, tmp_path, draw):
    sae = autoencoder(ReLU())
    object.__setattr__(sae, "pre_bias", draw(6))
    with pytest.raises(CheckpointError, match="subtracts the decoder's bias"):
        write_checkpoint(sae, tmp_path, format="saelens")
