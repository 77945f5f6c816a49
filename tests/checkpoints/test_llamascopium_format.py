"""llamascopium's folders: norms and thresholds, the layouts it has had, and what is refused by name."""

import json
import math

import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.formats import llamascopium
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
RESIDUAL = "blocks.4.hook_resid_post"
MLP_IN, MLP_OUT = "blocks.4.ln2.hook_normalized", "blocks.4.hook_mlp_out"
NORM = "dataset_average_activation_norm."
TRANSCODER = {"hook_point_in": MLP_IN, "hook_point_out": MLP_OUT}
NORMS_OF_TWO = {
    f"{NORM}{RESIDUAL}": None, f"{NORM}{MLP_IN}": torch.tensor(3.0), f"{NORM}{MLP_OUT}": torch.tensor(0.5),
}  # fmt: skip
LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"


@pytest.fixture
def folder(tmp_path, draw):
    """A function that stores configuration and tensors with changes (None removes), under any file name."""

    def store(config=None, tensors=None, *, weights="sae_weights.safetensors"):
        configuration = {
            "sae_type": "sae",
            "d_model": WIDTH,
            "expansion_factor": LATENTS / WIDTH,
            "use_decoder_bias": True,
            "act_fn": "relu",
            "norm_activation": "dataset-wise",
            "sparsity_include_decoder_norm": True,
            "top_k": 5,
            "use_triton_kernel": False,
            "jumprelu_threshold_window": 2.0,
            "hook_point_in": RESIDUAL,
            "hook_point_out": RESIDUAL,
            "use_glu_encoder": False,
        } | (config or {})
        state = {
            "W_E": draw(WIDTH, LATENTS),
            "b_E": draw(LATENTS),
            "W_D": draw(LATENTS, WIDTH),
            "b_D": draw(WIDTH),
            f"{NORM}{RESIDUAL}": torch.tensor(4.0),
        } | (tensors or {})
        kept = {key: value for key, value in configuration.items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        stored = {name: tensor.contiguous() for name, tensor in state.items() if tensor is not None}
        (tmp_path / weights).parent.mkdir(exist_ok=True)
        if weights.endswith(".pt"):
            torch.save({"sae": stored, "version": "2.0.0b34"}, tmp_path / weights)
        else:
            safetensors.torch.save_file(stored, tmp_path / weights)
        return tmp_path

    return store


def as_in_2025(draw, **changes):
    """The tensors of the fixture removed, and those of lm-saes in their place."""
    return {
        **dict.fromkeys(("W_E", "b_E", "W_D", "b_D")),
        "encoder.weight": draw(LATENTS, WIDTH),
        "encoder.bias": draw(LATENTS),
        "decoder.weight": draw(WIDTH, LATENTS),
        "decoder.bias": draw(WIDTH),
        **changes,
    }


def refused(path, message):
    assert llamascopium.recognises(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        llamascopium.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_site_is_scaled_to_a_mean_norm_of_sqrt_d_and_back(folder, draw):
    w_e, b_e, w_d, b_d = draw(WIDTH, LATENTS), draw(LATENTS), draw(LATENTS, WIDTH), draw(WIDTH)
    sae, absent = llamascopium.read(
        folder(TRANSCODER, {"W_E": w_e, "b_E": b_e, "W_D": w_d, "b_D": b_d} | NORMS_OF_TWO)
    )
    x = draw(9, WIDTH)
    z = torch.relu(x * math.sqrt(WIDTH) / 3.0 @ w_e + b_e)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae.reconstruct(x), (z @ w_d + b_d) * 0.5 / math.sqrt(WIDTH))
    assert (sae.metadata.site, sae.metadata.output_site) == (MLP_IN, MLP_OUT) and sae.is_transcoder
    assert absent == ("subject", "context_length", "prepend_bos")


@pytest.mark.parametrize("weighted", [True, False])
def test_a_threshold_is_one_on_what_a_latent_adds(folder, draw, weighted):
    log_threshold, w_d = draw(LATENTS), draw(LATENTS, WIDTH)
    changes = {"act_fn": "jumprelu", "sparsity_include_decoder_norm": weighted}
    sae, _ = llamascopium.read(folder(changes, {"W_D": w_d, LOG_THRESHOLD: log_threshold}))
    expected = log_threshold.exp() / (w_d.norm(dim=1) if weighted else 1)
    torch.testing.assert_close(sae.activation.threshold, expected)
    assert sae.latent_scale is None


@pytest.mark.parametrize("weighted", [True, False])
def test_the_k_largest_are_those_that_add_most(folder, draw, weighted):
    w_d = draw(LATENTS, WIDTH)
    changes = {"act_fn": "topk", "sparsity_include_decoder_norm": weighted}
    sae, _ = llamascopium.read(folder(changes, {"W_D": w_d}))
    assert sae.activation.k == 5
    if weighted:
        torch.testing.assert_close(sae.activation.weight, w_d.norm(dim=1))
    else:
        assert sae.activation.weight is None


def test_what_is_folded_in_is_not_scaled_again(folder):
    sae, _ = llamascopium.read(folder({"norm_activation": "inference"}))
    assert sae.normalization.kind == "none"


def test_a_token_may_be_divided_by_its_own_norm(folder):
    # The library stores whatever lay in memory where no norm was measured: nobody looks at it.
    path = folder({"norm_activation": "token-wise"}, {f"{NORM}{RESIDUAL}": torch.tensor(float("nan"))})
    assert llamascopium.read(path)[0].normalization.kind == "constant_norm"


def test_no_decoder_bias_is_one_of_zeros(folder):
    sae, _ = llamascopium.read(folder({"use_decoder_bias": False}, {"b_D": None}))
    assert not sae.decoder_bias.any()
    refused(folder({"use_decoder_bias": False}), "unknown tensors 'b_D'")


@pytest.mark.parametrize("subtracts", [True, False, None])
def test_the_layout_of_early_2025_is_read(folder, draw, subtracts):
    weights = as_in_2025(draw, log_jumprelu_threshold=draw(LATENTS))
    changes = {"act_fn": "jumprelu", "apply_decoder_bias_to_pre_encoder": subtracts}
    sae, _ = llamascopium.read(folder(changes, weights))
    assert torch.equal(sae.encoder_weight, weights["encoder.weight"])
    assert torch.equal(sae.decoder_weight, weights["decoder.weight"].T)
    norms = weights["decoder.weight"].norm(dim=0)
    torch.testing.assert_close(sae.activation.threshold, weights["log_jumprelu_threshold"].exp() / norms)
    assert (sae.pre_bias is sae.decoder_bias) == (subtracts is True)


ORDER = [
    f"{name}.{suffix}"
    for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final")
    for suffix in ("safetensors", "pt")
]


@pytest.mark.parametrize("rank", range(len(ORDER)))
def test_of_several_files_the_librarys_first_is_taken(folder, draw, rank):
    for weights in ORDER[rank + 1 :]:
        folder(weights=weights)
    bias = draw(LATENTS)
    path = folder(tensors={"b_E": bias}, weights=ORDER[rank])
    assert llamascopium.files(path) == (path / "config.json", path / ORDER[rank])
    assert torch.equal(llamascopium.read(path)[0].encoder_bias, bias)


def test_the_language_models_configuration_tells_the_subject(folder):
    path = folder()
    said = {"model_name": "EleutherAI/pythia-160m", "prepend_bos": False, "max_length": 2048}
    (path / "lm_config.json").write_text(json.dumps(said))
    sae, absent = llamascopium.read(path)
    assert sae.metadata.subject == "EleutherAI/pythia-160m" and sae.metadata.prepend_bos is False
    assert absent == ("context_length",) and path / "lm_config.json" in llamascopium.files(path)
    (path / "lm_config.json").write_text("[]")
    refused(path, "lm_config.json: should hold a JSON object")


def test_what_a_trainer_keeps_beside_the_weights_is_left_alone(folder):
    tallies = {"tokens_since_last_activation": torch.arange(LATENTS), "is_dead": torch.zeros(LATENTS).bool()}
    assert llamascopium.read(folder(tensors=tallies))[0].activation == ReLU()


def test_what_the_configuration_leaves_out_is_assumed_and_said(folder):
    left_out = dict.fromkeys(
        ("act_fn", "norm_activation", "sparsity_include_decoder_norm", "use_decoder_bias", "hook_point_out")
    )
    sae, _ = llamascopium.read(folder(left_out))
    assert sae.activation == ReLU() and sae.normalization.kind == "scale" and not sae.is_transcoder
    (note,) = sae.metadata.notes
    assert "act_fn, norm_activation, sparsity_include_decoder_norm, use_decoder_bias" in note
    assert llamascopium.read(folder())[0].metadata.notes == ()


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"sae_type": "crosscoder"}, {}, "a crosscoder .* is not supported"),
        ({"sae_type": "clt"}, {}, "a cross-layer transcoder .* is not supported"),
        ({"sae_type": "lorsa"}, {}, "a low-rank sparse attention .* is not supported"),
        ({"sae_type": "molt"}, {}, "a mixture of linear transforms .* is not supported"),
        ({"sae_type": "of_tomorrow"}, {}, "sae_type 'of_tomorrow' is not supported"),
        ({"sae_type": None}, {}, "says no sae_type"),
        ({"use_glu_encoder": True}, {}, "gated linear unit"),
        ({}, {"W_E_glu": torch.ones(WIDTH, LATENTS)}, "unknown tensors 'W_E_glu'"),
        ({"act_fn": "batchtopk"}, {}, "depends on the whole batch"),
        ({"act_fn": "BatchLayerTopK"}, {}, "depends on the whole batch"),
        ({"act_fn": "layertopk"}, {}, "act_fn 'layertopk' is not supported"),
        ({"act_fn": "gelu"}, {}, "act_fn 'gelu' is not supported"),
        ({"act_fn": "jumprelu"}, {}, "'activation_function.log_jumprelu_threshold' is missing"),
        ({}, {LOG_THRESHOLD: torch.ones(LATENTS)}, "unknown tensors 'activation_function"),
        ({"act_fn": "topk", "top_k": None}, {}, "says no top_k"),
        ({"act_fn": "topk", "top_k": 5.0}, {}, "'top_k' should be a whole number"),
        ({"norm_activation": "batch-wise"}, {}, "a token's latents depend on the others"),
        ({"norm_activation": "token-wise"} | TRANSCODER, {}, "the very activation it predicts"),
        ({"norm_activation": "layer"}, {}, "norm_activation 'layer' is not supported"),
        ({}, {f"{NORM}{RESIDUAL}": None}, f"'{NORM}{RESIDUAL}' is missing"),
        ({}, {f"{NORM}{RESIDUAL}": torch.tensor(0.0)}, "is 0, no mean of norms"),
        ({}, {f"{NORM}{RESIDUAL}": torch.tensor(-3.0)}, "is -3, no mean of norms"),
        ({}, {f"{NORM}{RESIDUAL}": torch.tensor(1e-43)}, "no mean of norms"),
        ({}, {f"{NORM}{RESIDUAL}": torch.tensor(float("nan"))}, "holds NaN or infinity"),
        (TRANSCODER, {f"{NORM}{MLP_IN}": torch.tensor(3.0)}, f"'{NORM}{MLP_OUT}' is missing"),
        ({"hook_point_in": None}, {}, "says no hook_point_in"),
        ({}, {"W_D": torch.eye(LATENTS, WIDTH)}, "a direction of norm 0"),
        ({"expansion_factor": 4}, {}, "expansion_factor 4 at width 6 is not the weights' 30 latents"),
        ({"expansion_factor": 1e308}, {}, "expansion_factor 1e"),
        ({"d_model": 7}, {}, "'W_E' has shape"),
        ({}, {"W_D": torch.ones(LATENTS, WIDTH + 1)}, "'W_D' has shape"),
        ({"apply_decoder_bias_to_pre_encoder": True}, {}, "today's library ignores it"),
    ],
)  # fmt: skip
def test_other_kinds_and_contradictions_are_refused(folder, config, tensors, message):
    refused(folder(config, tensors), message)


def test_more_latents_than_there_are_cannot_be_kept(folder):
    with pytest.raises(CheckpointError, match="more than the 30 latents"):
        llamascopium.read(folder({"act_fn": "topk", "top_k": LATENTS + 1}))


def test_a_fraction_of_the_width_may_be_cut_off(folder):
    assert llamascopium.read(folder({"expansion_factor": 5.1}))[0].latent_count == LATENTS


def test_topk_of_early_2025_is_refused(folder, draw):
    refused(folder({"act_fn": "topk"}, as_in_2025(draw)), "topk as lm-saes stored it in early 2025")


def test_a_distributed_checkpoint_is_refused_unless_another_comes_first(folder):
    path = folder(weights="checkpoints/final.safetensors")
    (path / "sae_weights.dcp").mkdir()
    refused(path, "a distributed checkpoint")
    folder()
    llamascopium.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"W_E": torch.ones(2, 2)}, "the tensors under 'sae'"),
        ([torch.ones(2)], "the tensors under 'sae'"),
        ({"sae": [torch.ones(2)]}, "the tensors under 'sae'"),
        ({"sae": {}, "version": "2", "more": {}}, "unknown content 'more' beside 'sae'"),
    ],
)
def test_a_torch_file_of_another_layout_is_refused(folder, content, message):
    path = folder(weights="sae_weights.pt")
    torch.save(content, path / "sae_weights.pt")
    refused(path, message)


def test_a_tensor_that_is_not_a_tensor_is_refused(folder):
    path = folder(weights="sae_weights.pt")
    content = torch.load(path / "sae_weights.pt", weights_only=True)
    content["sae"]["b_E"] = [1.0] * LATENTS
    torch.save(content, path / "sae_weights.pt")
    refused(path, "'b_E' is no plain tensor")


@pytest.mark.parametrize(
    "names",
    [
        ("config.json",), ("sae_weights.safetensors",), ("config.json", "ae.pt"),
        ("cfg.json", "sae_weights.safetensors"), ("config.json", "params.safetensors"),
        ("config.json", "model.safetensors"),
        ("hyperparams.json", "checkpoints/final.safetensors"), ("config.json", "checkpoints/ae_1000.pt"),
    ],
)  # fmt: skip
def test_other_formats_folders_are_not_claimed(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    assert not llamascopium.recognises(tmp_path)
    assert not llamascopium.recognises(tmp_path / names[0])
