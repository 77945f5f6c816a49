"""Llama Scope's folders: its formula step by step, where the threshold applies, and what is refused."""

import json
import math

import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.formats import llama_scope
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
RESIDUAL = "blocks.15.hook_resid_post"
MLP_IN, MLP_OUT = "blocks.15.ln2.hook_normalized", "blocks.15.hook_mlp_out"
TRANSCODER = {"hook_point_in": MLP_IN, "hook_point_out": MLP_OUT}
NORMS = {"dataset_average_activation_norm": {"in": 3.0, "out": 0.5}}


@pytest.fixture
def weights(draw):
    return {
        "encoder.weight": draw(LATENTS, WIDTH),
        "encoder.bias": draw(LATENTS),
        "decoder.weight": draw(WIDTH, LATENTS),
        "decoder.bias": draw(WIDTH),
    }


@pytest.fixture
def folder(tmp_path, weights):
    """A function that stores hyperparameters and tensors with changes; None removes."""

    def store(config=None, tensors=None, *, name="llama", file="checkpoints/final.safetensors"):
        hyperparams = {
            "dtype": "torch.bfloat16",
            "hook_point_in": RESIDUAL,
            "hook_point_out": RESIDUAL,
            "use_decoder_bias": True,
            "apply_decoder_bias_to_pre_encoder": False,
            "expansion_factor": LATENTS // WIDTH,
            "d_model": WIDTH,
            "d_sae": LATENTS,
            "act_fn": "jumprelu",
            "jump_relu_threshold": 0.75,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": 3.0, "out": 3.0},
            "sparsity_include_decoder_norm": True,
            "use_glu_encoder": False,
            "top_k": 5,
        } | (config or {})
        path = tmp_path / name
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in hyperparams.items() if value is not None}
        (path / "hyperparams.json").write_text(json.dumps(kept))
        stored = {key: t.contiguous() for key, t in (weights | (tensors or {})).items() if t is not None}
        if file.endswith(".pt"):
            torch.save({"sae": stored, "version": "0.1"}, path / file)
        else:
            safetensors.torch.save_file(stored, path / file)
        return path

    return store


def refused(path, message):
    assert llama_scope.recognises(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        llama_scope.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_threshold_applies_to_latents_in_the_activations_own_units(folder, weights, draw):
    """Neither to p, nor to p ||W_dec||: a wrong scale of the input would fire other latents."""
    sae, _ = llama_scope.read(folder(TRANSCODER | NORMS))
    x, root = draw(50, WIDTH), math.sqrt(WIDTH)
    directions = weights["decoder.weight"].T
    p = (x * root / 3.0) @ weights["encoder.weight"].T + weights["encoder.bias"]
    latents = p * directions.norm(dim=1) * 0.5 / root
    z = torch.where(latents > 0.75, latents, 0)
    unit = directions / directions.norm(dim=1, keepdim=True)
    assert 0 < (z > 0).sum() < ((p > 0.75) & (p > 0)).sum()
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae.reconstruct(x), z @ unit + weights["decoder.bias"] * 0.5 / root)
    assert (sae.metadata.site, sae.metadata.output_site, sae.is_transcoder) == (MLP_IN, MLP_OUT, True)


def test_directions_may_keep_their_norms(folder, weights, draw):
    sae, _ = llama_scope.read(folder({"sparsity_include_decoder_norm": False}))
    x, scale = draw(50, WIDTH), math.sqrt(WIDTH) / 3.0
    latents = x @ weights["encoder.weight"].T + weights["encoder.bias"] / scale
    z = torch.where(latents > 0.75, latents, 0)
    torch.testing.assert_close(sae.encode(x), z)
    expected = z @ weights["decoder.weight"].T + weights["decoder.bias"] / scale
    torch.testing.assert_close(sae.reconstruct(x), expected)


def test_the_decoders_bias_is_subtracted_from_raw_activations(folder, weights, draw):
    plain, _ = llama_scope.read(folder(NORMS))
    sae, _ = llama_scope.read(folder(NORMS | {"apply_decoder_bias_to_pre_encoder": True}))
    x = draw(50, WIDTH)
    shift = weights["decoder.bias"] * 0.5 / math.sqrt(WIDTH)
    torch.testing.assert_close(sae.encode(x), plain.encode(x - shift))


@pytest.mark.parametrize(
    ("changes", "architecture", "note_count"),
    [
        ({}, "jumprelu", 1),
        ({"act_fn": "JumpReLU"}, "jumprelu", 1),
        ({"act_fn": "topk"}, "jumprelu", 2),
        ({"act_fn": "topk", "jump_relu_threshold": 0.0}, "topk(k=5)", 1),
        ({"act_fn": "topk", "jump_relu_threshold": 0}, "topk(k=5)", 1),
        ({"act_fn": "relu"}, "relu", 1),
        ({"act_fn": "relu", "jump_relu_threshold": None}, "relu", 1),
    ],
)
def test_topk_with_a_threshold_is_the_threshold(folder, changes, architecture, note_count):
    sae, _ = llama_scope.read(folder(changes))
    assert sae.architecture == architecture and len(sae.metadata.notes) == note_count


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("dataset-wise", "scale"), ("token-wise", "constant_norm"), ("inference", "none"), ("none", "none")],
)
def test_every_normalisation_of_one_token_is_read(folder, kind, expected):
    assert llama_scope.read(folder({"norm_activation": kind}))[0].normalization.kind == expected


def test_no_decoder_bias_is_one_of_zeros(folder):
    sae, _ = llama_scope.read(folder({"use_decoder_bias": False}, {"decoder.bias": None}))
    assert not sae.decoder_bias.any()
    refused(folder({"use_decoder_bias": False}), "unknown tensors 'decoder.bias'")


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("Llama3_1-8B-Base-L15R-8x", "meta-llama/Llama-3.1-8B"),
        ("Llama3_1-8B-Base-L0A-32x", "meta-llama/Llama-3.1-8B"),
        ("Llama3_1-8B-Base-L31TC-8x", "meta-llama/Llama-3.1-8B"),
        ("Llama3_1-8B-Base-LXR-8x", None),
        ("llama", None),
    ],
)
def test_the_published_folders_name_tells_the_subject(folder, name, subject):
    sae, absent = llama_scope.read(folder(name=name))
    assert sae.metadata.subject == subject and ("subject" in absent) == (subject is None)
    assert any("folder's name" in note for note in sae.metadata.notes) == (subject is not None)


def test_the_language_models_configuration_tells_the_subject_better(folder):
    path = folder(name="Llama3_1-8B-Base-L15R-8x")
    (path / "lm_config.json").write_text(json.dumps({"model_name": "meta-llama/Llama-3.1-8B-Instruct"}))
    assert llama_scope.read(path)[0].metadata.subject == "meta-llama/Llama-3.1-8B-Instruct"
    assert path / "lm_config.json" in llama_scope.files(path)


@pytest.mark.parametrize("file", ["sae_weights.safetensors", "sae_weights.pt", "checkpoints/pruned.pt"])
def test_weights_may_lie_where_the_library_looked_first(folder, draw, file):
    folder()
    bias = draw(LATENTS)
    path = folder(tensors={"encoder.bias": bias}, file=file)
    assert llama_scope.files(path) == (path / "hyperparams.json", path / file)
    assert torch.equal(llama_scope.read(path)[0].encoder_bias, bias)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"act_fn": None}, {}, "says no act_fn"),
        ({"norm_activation": None}, {}, "says no norm_activation"),
        ({"apply_decoder_bias_to_pre_encoder": None}, {}, "says no apply_decoder_bias_to_pre_encoder"),
        ({"sparsity_include_decoder_norm": None}, {}, "says no sparsity_include_decoder_norm"),
        ({"use_decoder_bias": None}, {}, "says no use_decoder_bias"),
        ({"use_decoder_bias": 1}, {}, "'use_decoder_bias' should be true or false"),
        ({"use_glu_encoder": True}, {}, "gated linear unit"),
        ({"act_fn": "gelu"}, {}, "act_fn 'gelu' is not supported"),
        ({"jump_relu_threshold": None}, {}, "says no jump_relu_threshold from 0"),
        ({"jump_relu_threshold": -0.5}, {}, "says no jump_relu_threshold from 0"),
        ({"jump_relu_threshold": 1e300}, {}, "says no jump_relu_threshold from 0"),
        ({"jump_relu_threshold": [0.5]}, {}, "'jump_relu_threshold' should be a number"),
        ({"act_fn": "topk", "jump_relu_threshold": 0.0, "top_k": None}, {}, "says no top_k"),
        ({"norm_activation": "batch-wise"}, {}, "norm_activation 'batch-wise' is not supported"),
        ({"norm_activation": "token-wise"} | TRANSCODER, {}, "'token-wise' of a transcoder is not supported"),
        ({"dataset_average_activation_norm": None}, {}, "no positive dataset_average_activation_norm 'in'"),
        ({"dataset_average_activation_norm": {"in": 3.0}}, {}, "dataset_average_activation_norm 'out'"),
        ({"dataset_average_activation_norm": {"in": 0, "out": 3}}, {}, "no positive dataset_average"),
        ({"dataset_average_activation_norm": {"in": 1e-300, "out": 3}}, {}, "no positive dataset_average"),
        ({"hook_point_in": None}, {}, "says no hook_point_in"),
        ({"d_sae": LATENTS + 1}, {}, "'encoder.weight' has shape"),
        ({"d_model": WIDTH + 1}, {}, "'encoder.weight' has shape"),
        ({}, {"decoder.weight": torch.eye(WIDTH, LATENTS)}, "a direction of norm 0"),
        ({}, {"decoder.weight": torch.ones(LATENTS, WIDTH)}, "'decoder.weight' has shape"),
        ({}, {"encoder_glu.weight": torch.ones(LATENTS, WIDTH)}, "unknown tensors 'encoder_glu.weight'"),
        ({}, {"log_jumprelu_threshold": torch.ones(LATENTS)}, "unknown tensors 'log_jumprelu_threshold'"),
    ],
)  # fmt: skip
def test_what_is_left_open_or_contradicts_itself_is_refused(folder, config, tensors, message):
    refused(folder(config, tensors), message)


def test_a_torch_file_of_another_layout_is_refused(folder):
    path = folder(file="sae_weights.pt")
    torch.save({"encoder.weight": torch.ones(2, 2)}, path / "sae_weights.pt")
    refused(path, "the tensors under 'sae'")
    torch.save({"sae": {}, "more": 1}, path / "sae_weights.pt")
    refused(path, "unknown content 'more' beside 'sae'")


def test_a_folder_of_a_later_version_is_not_claimed(folder):
    path = folder()
    assert llama_scope.recognises(path)
    (path / "config.json").write_text("{}")
    assert not llama_scope.recognises(path)


def test_hyperparameters_or_weights_alone_are_none(folder):
    path = folder()
    (path / "hyperparams.json").rename(path / "other.json")
    assert not llama_scope.recognises(path)
    (path / "other.json").rename(path / "hyperparams.json")
    (path / "checkpoints/final.safetensors").unlink()
    assert not llama_scope.recognises(path)
