"""OpenAI's torch files: the published formulas, by NumPy on the raw tensors, and what is refused."""

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import Identity, JumpReLU, ReLU
from autointerp.checkpoints.formats import openai
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError


def brute_force(state, x):
    """The formula of the format, ten lines, in float64."""
    raw = {key: value.double().numpy() for key, value in state.items() if isinstance(value, torch.Tensor)}
    h, activation = x.double().numpy(), state.get("activation", "ReLU")
    if activation == "TopK":
        mean, std = h.mean(1, keepdims=True), h.std(1, ddof=1, keepdims=True)
        h = (h - mean) / (std + 1e-5)
    z = (h - raw["pre_bias"]) @ raw["encoder.weight"].T + raw["latent_bias"]
    if activation == "TopK":
        settings = state["activation_state_dict"]
        z = np.where(z >= np.sort(z, axis=1)[:, [-settings["k"]]], z, 0)
    if activation == "ReLU" or (activation == "TopK" and settings["postact_fn"] == "ReLU"):
        z = np.maximum(z, 0)
    x_hat = z @ raw["decoder.weight"].T + raw["pre_bias"]
    return z, x_hat * std + mean if activation == "TopK" else x_hat


@pytest.mark.parametrize(
    ("activation", "settings"),
    [
        ("ReLU", {}),
        ("Identity", {}),
        ("TopK", {"k": 5, "postact_fn": "ReLU"}),
        ("TopK", {"k": 25, "postact_fn": "ReLU"}),
        ("TopK", {"k": 25, "postact_fn": "Identity"}),
        (None, {}),
    ],
)
def test_latents_and_reconstruction_follow_the_published_formula(openai_file, draw, activation, settings):
    state, store = openai_file
    state |= {"activation": activation, "activation_state_dict": settings}
    if activation is None:
        del state["activation"], state["activation_state_dict"]
    sae, x = load_checkpoint(store(state)), draw(40, 6) * 2 + 1
    z, x_hat = brute_force(state, x)
    np.testing.assert_allclose(sae.encode(x), z, atol=2e-5)
    np.testing.assert_allclose(sae.reconstruct(x), x_hat, atol=2e-4)
    np.testing.assert_allclose(sae.reconstruct_sparse(x)[0], x_hat, atol=2e-4)


def test_layer_norm_goes_with_topk_and_only_with_it(openai_file):
    state, store = openai_file
    assert read_checkpoint(store(state)).normalization == "layer_norm"
    assert read_checkpoint(store(state | {"activation": "ReLU"})).normalization == "none"


def test_a_missing_activation_is_relu_and_said(openai_file):
    state, store = openai_file
    del state["activation"], state["activation_state_dict"]
    checkpoint = read_checkpoint(store(state))
    assert checkpoint.architecture == "relu"
    assert "no activation" in checkpoint.sae.metadata.notes[0]


def test_leaked_activation_keys_are_dropped(openai_file):
    state, store = openai_file
    state |= {"activation.k": 7, "activation.postact_fn": "Identity"}
    assert read_checkpoint(store(state)).architecture == "topk(k=5)"


def test_the_file_says_nothing_of_its_origin(openai_file):
    state, store = openai_file
    checkpoint = read_checkpoint(store(state))
    assert checkpoint.missing == ("site", "subject", "context_length", "prepend_bos")
    assert checkpoint.sae.metadata.site is None


@pytest.mark.parametrize(
    ("location", "hook"),
    [
        ("mlp_post_act", "mlp.hook_post"),
        ("resid_delta_mlp_v4", "hook_mlp_out"),
        ("resid_delta_attn_v5_32k", "hook_attn_out"),
        ("resid_post_attn_v5_128k", "hook_resid_mid"),
        ("resid_post_mlp_v5_32k", "hook_resid_post"),
    ],
)
@pytest.mark.parametrize(("above", "subject"), [("gpt2-small/", "gpt2"), ("", None)])
def test_the_published_path_says_site_and_subject(openai_file, tmp_path, location, hook, above, subject):
    state, store = openai_file
    path = tmp_path / above / location / "autoencoders" / "8.pt"
    path.parent.mkdir(parents=True)
    store(state).rename(path)
    metadata = load_checkpoint(path).metadata
    assert (metadata.site, metadata.subject) == (f"blocks.8.{hook}", subject)
    assert len(metadata.notes) == 1 and "taken from the path" in metadata.notes[0]


@pytest.mark.parametrize(
    "place",
    [
        "resid_post_mlp_v5_32k/8.pt",
        "resid_post_mlp_v6/autoencoders/8.pt",
        "my_resid_post_mlp/autoencoders/8.pt",
        "resid_post_mlp/autoencoders/last.pt",
        "resid_post_mlp/autoencoders/8.pt.old",
    ],
)
def test_any_other_path_says_nothing(openai_file, tmp_path, place):
    state, store = openai_file
    (tmp_path / place).parent.mkdir(parents=True)
    metadata = load_checkpoint(store(state).rename(tmp_path / place)).metadata
    assert metadata.site is None and metadata.subject is None and metadata.notes == ()


def test_matrices_are_views_of_what_lies_in_the_file(openai_file):
    state, store = openai_file
    state |= {name: state[name].to(torch.bfloat16) for name in ("encoder.weight", "decoder.weight")}
    sae, _ = openai.read(store(state))
    assert sae.encoder_weight.dtype == sae.decoder_weight.dtype == torch.bfloat16
    assert torch.equal(sae.decoder_weight, state["decoder.weight"].T)
    assert not sae.decoder_weight.is_contiguous()


def test_a_tied_decoder_is_the_encoder(openai_file, draw):
    state, store = openai_file
    del state["decoder.weight"]
    state["decoder.linear.weight"] = state["encoder.weight"]
    sae = load_checkpoint(store(state))
    assert torch.equal(sae.decoder_weight, state["encoder.weight"])
    state["decoder.linear.weight"] = draw(30, 6)
    with pytest.raises(CheckpointError, match="tied decoder differs"):
        load_checkpoint(store(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "JumpReLU"}, "'JumpReLU' is not supported yet"),
        ({"activation_state_dict": {}}, "without a whole k"),
        ({"activation_state_dict": {"k": "5", "postact_fn": "ReLU"}}, "without a whole k"),
        ({"activation_state_dict": {"k": 5, "postact_fn": "GELU"}}, "'GELU' is not supported yet"),
        ({"activation_state_dict": {"k": 0, "postact_fn": "ReLU"}}, "at least 1"),
        ({"activation_state_dict": {"k": 31, "postact_fn": "ReLU"}}, "more than the 30 latents"),
        ({"decoder.weight": torch.zeros(30, 6)}, "'decoder.weight' has shape"),
        ({"W_skip": torch.zeros(6, 6)}, "unknown tensors 'W_skip'"),
    ],
)
def test_variants_and_contradictions_are_refused(openai_file, change, message):
    state, store = openai_file
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(store(state | change))


@pytest.mark.parametrize(
    ("activation", "normalization", "shared"),
    [
        (TopK(5), "none", True),
        (ReLU(), "layer_norm", True),
        (Identity(), "layer_norm", True),
        (ReLU(), "none", False),
        (JumpReLU(torch.zeros(30)), "none", True),
    ],
)
def test_writing_refuses_what_the_file_cannot_say(autoencoder, tmp_path, activation, normalization, shared):
    with pytest.raises(CheckpointError, match="openai format"):
        write_checkpoint(
            autoencoder(activation, normalization, shared=shared), tmp_path / "1.pt", format="openai"
        )
    assert not list(tmp_path.iterdir())


def test_a_written_file_has_exactly_the_keys_of_the_format(autoencoder, openai_file, tmp_path):
    write_checkpoint(autoencoder(TopK(5), "layer_norm"), tmp_path / "1.pt", format="openai")
    written = torch.load(tmp_path / "1.pt", weights_only=True)
    expected, _ = openai_file
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        if isinstance(tensor, torch.Tensor):
            assert (written[name].shape, written[name].dtype) == (tensor.shape, tensor.dtype)
