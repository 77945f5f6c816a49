"""dictionary_learning folders: the classes' formulas, by NumPy on the raw tensors, and what is refused."""

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import Identity, ReLU, TopK
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
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


@pytest.mark.parametrize(
    "name", ["GatedAutoEncoder", "JumpReluAutoEncoder", "BatchTopKSAE", "AutoEncoderNew", None]
)
def test_other_classes_are_refused_by_name(dictionary_learning_folder, name):
    config, tensors, store = dictionary_learning_folder
    config["trainer"]["dict_class"] = name
    with pytest.raises(CheckpointError, match=f"dict_class {name!r} is not supported yet"):
        load_checkpoint(store(config, tensors))


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
