"""dictionary_learning runs: the classes' formulas, by NumPy on the raw tensors, and what is refused.

What the library itself computes of files that it saved lies in fixtures/dictionary_learning.
"""

import dataclasses
import os.path
from pathlib import Path

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import Identity, ReLU
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError


def brute_force(tensors, x, *, k):
    raw = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    bias = raw["b_dec"] if "b_dec" in raw else raw["bias"]
    z = np.maximum((x.double().numpy() - bias) @ raw["encoder.weight"].T + raw["encoder.bias"], 0)
    if k is not None:
        for row in z:
            row[np.argsort(-row, kind="stable")[k:]] = 0
    return z, z @ raw["decoder.weight"].T + bias


def plain(dictionary_learning_folder):
    """The same folder as class AutoEncoder: ReLU, and `bias` instead of `b_dec`."""
    config, tensors, store = dictionary_learning_folder
    config["trainer"] |= {"dict_class": "AutoEncoder", "trainer_class": "StandardTrainer", "k": None}
    tensors["bias"] = tensors.pop("b_dec")
    del tensors["k"], tensors["threshold"]
    return config, tensors, store


def parametric(dictionary_learning_folder, *, kind="MatryoshkaBatchTopKSAE"):
    """The same folder as a class that stores parameters, not modules, with a threshold and two groups."""
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = kind
    tensors["W_enc"] = tensors.pop("encoder.weight").T.contiguous()
    tensors["b_enc"] = tensors.pop("encoder.bias")
    tensors["W_dec"] = tensors.pop("decoder.weight").T.contiguous()
    tensors |= {"threshold": torch.tensor(0.5), "group_sizes": torch.tensor([10, 20])}
    return config, tensors, store


def agrees(sae, tensors, x, *, k=None):
    z, x_hat = brute_force(tensors, x, k=k)
    np.testing.assert_allclose(sae.encode(x), z, atol=2e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, atol=2e-4)
    np.testing.assert_allclose(sae.reconstruct_sparse(x)[0], x_hat, atol=2e-4)


def test_autoencoder_follows_its_classs_formula(dictionary_learning_folder, draw):
    config, tensors, store = plain(dictionary_learning_folder)
    agrees(load_checkpoint(store(config, tensors)), tensors, draw(40, 6))


@pytest.mark.parametrize("k", [1, 5, 28])
def test_autoencoder_topk_follows_its_classs_formula(dictionary_learning_folder, draw, k):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["k"], tensors["k"] = k, torch.tensor(k)
    agrees(load_checkpoint(store(config, tensors)), tensors, draw(40, 6), k=k)


def test_older_files_without_k_and_threshold_take_k_from_the_configuration(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    del tensors["k"], tensors["threshold"]
    assert read_checkpoint(store(config, tensors)).architecture == "topk(k=5)"
    del config["trainer"]["k"]
    with pytest.raises(CheckpointError, match="without k"):
        load_checkpoint(store(config, tensors))


def test_a_threshold_is_not_used_and_said_so(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    tensors["threshold"] = torch.tensor(0.3)
    assert "threshold is not used" in load_checkpoint(store(config, tensors)).metadata.notes[0]


@pytest.mark.parametrize(
    ("trainer", "buffer", "site"),
    [
        ({}, {}, "blocks.4.hook_resid_post"),
        ({"submodule_name": "mlp_out_layer_2"}, {}, "blocks.2.hook_mlp_out"),
        ({"submodule_name": "model.layers.3.mlp"}, {}, "model.layers.3.mlp"),
        ({"submodule_name": None}, {}, "blocks.4.hook_resid_post"),
        ({"submodule_name": None, "layer": None}, {}, None),
        ({}, {"io": "in"}, None),
        ({"submodule_name": "gpt_neox.layers.3.mlp"}, {"io": "in"}, "gpt_neox.layers.3.mlp:input"),
        ({"submodule_name": None}, {"layer": 4}, None),
    ],
)
def test_the_site_comes_from_submodule_name_or_layer(dictionary_learning_folder, trainer, buffer, site):
    config, tensors, store = dictionary_learning_folder
    config["trainer"] |= trainer
    config["buffer"] |= buffer
    checkpoint = read_checkpoint(store(config, tensors))
    metadata = checkpoint.sae.metadata
    assert (metadata.site, metadata.subject) == (site, "EleutherAI/pythia-70m-deduped")
    assert metadata.context_length == 1024
    is_guess = trainer == {"submodule_name": None} or bool(buffer)
    assert bool(metadata.notes) == is_guess


def test_a_training_backup_gets_its_biases_rescaled(dictionary_learning_folder, draw):
    config, tensors, store = plain(dictionary_learning_folder)
    backup = {"step": 10, "ae": tensors, "optimizer": {"state": {}}, "config": {}, "norm_factor": 2.5}
    sae = load_checkpoint(store(config, backup))
    scaled = tensors | {name: tensors[name] * 2.5 for name in ("bias", "encoder.bias")}
    agrees(sae, scaled, draw(40, 6))
    assert "norm_factor 2.5" in sae.metadata.notes[0]


@pytest.mark.parametrize("factor", [None, "2", 0.0, float("nan"), float("inf")])
def test_a_backup_without_a_usable_factor_is_refused(dictionary_learning_folder, factor):
    config, tensors, store = plain(dictionary_learning_folder)
    with pytest.raises(CheckpointError, match="norm_factor"):
        load_checkpoint(store(config, {"ae": tensors, "norm_factor": factor}))


def test_a_backup_from_before_the_threshold_was_set_leaves_it_so(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = "BatchTopKSAE"
    sae = load_checkpoint(store(config, {"ae": tensors, "norm_factor": 2.5}))
    assert sae.activation == TopK(5) and "norm_factor 2.5" in sae.metadata.notes[0]


@pytest.mark.parametrize("name", ["CrossCoder", "AutoEncoderTopk", "", None])
def test_other_classes_are_refused_by_name(dictionary_learning_folder, name):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = name
    with pytest.raises(CheckpointError, match=f"dict_class {name!r} is not supported; known are"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AutoEncoder", "'bias' is missing"),
        ("AutoEncoderNew", "'decoder.bias' is missing"),
        ("GatedAutoEncoder", "'r_mag' is missing"),
        ("JumpReluAutoEncoder", "'W_enc' is missing"),
        ("MatryoshkaBatchTopKSAE", "'W_enc' is missing"),
    ],
)
def test_weights_of_another_class_than_the_configurations_are_refused(
    dictionary_learning_folder, name, message
):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = name
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config, tensors))


def test_batch_topk_fires_above_its_one_threshold(dictionary_learning_folder, draw):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"], tensors["threshold"] = "BatchTopKSAE", torch.tensor(0.5)
    sae, x = load_checkpoint(store(config, tensors)), draw(40, 6)
    z, _ = brute_force(tensors, x, k=None)
    assert (z > 0.5).sum() < (z > 0).sum()
    np.testing.assert_allclose(sae.encode(x), np.where(z > 0.5, z, 0), atol=2e-5)
    assert not sae.metadata.notes


@pytest.mark.parametrize("threshold", [None, -1.0])
@pytest.mark.parametrize("name", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_batch_topk_without_a_threshold_is_top_k_of_one_token_and_says_so(
    dictionary_learning_folder, name, threshold
):
    kind = dictionary_learning_folder if name == "BatchTopKSAE" else parametric(dictionary_learning_folder)
    config, tensors, store = kind
    config["trainer"]["dict_class"] = name
    tensors["threshold"] = torch.tensor(threshold or 0.0)
    if threshold is None:
        del tensors["threshold"]
    sae = load_checkpoint(store(config, tensors))
    assert sae.activation == TopK(5) and "as in a batch of one token" in sae.metadata.notes[0]


def test_batch_topk_needs_a_k_although_its_threshold_stands_for_it(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    config["trainer"] |= {"dict_class": "BatchTopKSAE", "k": None}
    del tensors["k"]
    with pytest.raises(CheckpointError, match="BatchTopKSAE without k"):
        load_checkpoint(store(config, tensors))


@pytest.mark.parametrize(
    "sizes",
    [
        torch.tensor([10, 21]),
        torch.tensor([40, -10]),
        torch.tensor([30, 0]),
        torch.tensor([10.0, 20.0]),
        torch.tensor([[10, 20]]),
        torch.ones(31, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
        [10, 20],
        None,
    ],
    ids=["sum", "negative", "zero", "floats", "matrix", "too many", "empty", "no tensor", "none"],
)
def test_groups_that_are_not_the_latents_are_refused(dictionary_learning_folder, sizes):
    config, tensors, store = parametric(dictionary_learning_folder)
    with pytest.raises(CheckpointError, match="'group_sizes' should be whole numbers that add up to the 30"):
        load_checkpoint(store(config, tensors | {"group_sizes": sizes}))


def test_only_the_class_that_has_groups_may_have_them(dictionary_learning_folder):
    config, tensors, store = parametric(dictionary_learning_folder)
    assert read_checkpoint(store(config, tensors)).architecture == "jumprelu"
    config["trainer"]["dict_class"] = "JumpReluAutoEncoder"
    tensors["threshold"] = torch.ones(30)
    with pytest.raises(CheckpointError, match="unknown tensors 'group_sizes', 'k'"):
        load_checkpoint(store(config, tensors))


def test_a_gate_that_magnifies_to_infinity_is_refused(dictionary_learning_folder, draw):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = "GatedAutoEncoder"
    vectors = {name: draw(30) for name in ("r_mag", "gate_bias", "mag_bias")} | {"decoder_bias": draw(6)}
    gated = {name: tensors[name] for name in ("encoder.weight", "decoder.weight")} | vectors
    assert read_checkpoint(store(config, gated)).architecture == "gated"
    gated["r_mag"][3] = 100
    with pytest.raises(CheckpointError, match="exponential of tensor 'r_mag' is infinite"):
        load_checkpoint(store(config, gated))


@pytest.mark.parametrize(
    ("trainer", "tensor", "message"),
    [
        ({"activation_dim": 7}, {}, "d_model = 7"),
        ({"dict_size": 31}, {}, "latent = 31"),
        ({"k": 6}, {}, "k is 6 in the configuration and 5 in the weights"),
        ({"k": None}, {"k": torch.tensor(31)}, "more than the 30 latents"),
        ({"k": None}, {"k": torch.tensor(0)}, "at least 1"),
        ({"k": None}, {"k": torch.tensor([1, 2])}, "should be one whole number"),
        ({"k": None}, {"k": torch.tensor(2.5)}, "should be one whole number"),
        ({}, {"decoder.bias": torch.zeros(6)}, "unknown tensors 'decoder.bias'"),
        ({}, {"threshold": torch.tensor(float("nan"))}, "NaN"),
    ],
)
def test_contradictions_are_refused(dictionary_learning_folder, trainer, tensor, message):
    config, tensors, store = dictionary_learning_folder
    config["trainer"] |= trainer
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(config, tensors | tensor))


def test_a_transcoder_is_refused(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    config["buffer"]["io"] = "in_and_out"
    with pytest.raises(CheckpointError, match="transcoder"):
        load_checkpoint(store(config, tensors))


def test_an_unknown_side_of_the_module_is_refused(dictionary_learning_folder):
    config, tensors, store = dictionary_learning_folder
    config["buffer"]["io"] = "middle"
    with pytest.raises(CheckpointError, match=r"buffer\.io 'middle' is not known"):
        load_checkpoint(store(config, tensors))


@pytest.fixture
def step_file(dictionary_learning_folder):
    """A run with the weights of its step 100."""
    config, tensors, store = dictionary_learning_folder
    run = store(config, tensors)
    (run / "checkpoints").mkdir()
    return (run / "ae.pt").rename(run / "checkpoints" / "ae_100.pt")


def test_a_step_takes_its_runs_configuration(step_file, draw, monkeypatch):
    checkpoint = read_checkpoint(step_file)
    agrees(checkpoint.sae, torch.load(step_file, weights_only=True), draw(40, 6), k=5)
    configuration = step_file.parent.parent / "config.json"
    assert checkpoint.format == "dictionary_learning"
    assert checkpoint.sae.metadata.site == "blocks.4.hook_resid_post"
    assert checkpoint.file_size_bytes == step_file.stat().st_size + configuration.stat().st_size
    monkeypatch.chdir(step_file.parent)
    for path in ("ae_100.pt", Path("..", "checkpoints", "ae_100.pt"), os.path.relpath(step_file)):
        assert read_checkpoint(path).sha256 == checkpoint.sha256
    configuration.write_text(configuration.read_text() + " ")
    assert read_checkpoint(step_file).sha256 != checkpoint.sha256


@pytest.mark.parametrize(
    "place", ["checkpoints/100.pt", "checkpoints/ae_1.pth", "steps/ae_100.pt", "ae_100.pt"]
)
def test_other_weights_in_a_run_are_not_taken_for_a_step(step_file, place):
    elsewhere = step_file.parent.parent / place
    elsewhere.parent.mkdir(exist_ok=True)
    step_file.rename(elsewhere)
    with pytest.raises(CheckpointError, match="no known checkpoint format"):
        load_checkpoint(elsewhere)


def test_a_step_without_its_runs_configuration_is_no_checkpoint(step_file):
    (step_file.parent.parent / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no known checkpoint format"):
        load_checkpoint(step_file)


def test_a_configuration_without_trainer_is_refused(dictionary_learning_folder):
    _, tensors, store = dictionary_learning_folder
    with pytest.raises(CheckpointError, match="no section 'trainer'"):
        load_checkpoint(store({"model_type": "llama"}, tensors))


@pytest.mark.parametrize(
    ("activation", "normalization", "shared"),
    [(Identity(), "none", True), (TopK(5), "layer_norm", True), (ReLU(), "none", False)],
)
def test_writing_refuses_what_the_folder_cannot_say(autoencoder, tmp_path, activation, normalization, shared):
    with pytest.raises(CheckpointError, match="dictionary_learning format"):
        write_checkpoint(
            autoencoder(activation, normalization, shared=shared), tmp_path, format="dictionary_learning"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("site", ["blocks.4.hook_resid_post", "model.layers.3.mlp", None])
def test_the_site_survives_a_round_trip(autoencoder, tmp_path, site):
    metadata = CheckpointMetadata(site, "gpt2", 64)
    write_checkpoint(autoencoder(metadata=metadata), tmp_path, format="dictionary_learning")
    assert load_checkpoint(tmp_path).metadata == metadata


@pytest.mark.parametrize("change", ["latent_scale", "skip_weight", "output_site"])
def test_writing_refuses_what_goes_beyond_an_autoencoder(autoencoder, tmp_path, draw, change):
    parts = {
        "latent_scale": {"latent_scale": draw(30).abs() + 1},
        "skip_weight": {"skip_weight": draw(6, 6)},
        "output_site": {"metadata": CheckpointMetadata("layers.3:input", output_site="layers.3")},
    }
    sae = dataclasses.replace(autoencoder(), **parts[change])
    with pytest.raises(CheckpointError, match="dictionary_learning format has no"):
        write_checkpoint(sae, tmp_path, format="dictionary_learning")
