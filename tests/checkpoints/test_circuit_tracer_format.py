"""circuit-tracer's layers: the set's configuration, what its YAML may hold, and what is refused by name."""

import pytest
import safetensors.torch
import torch
import yaml

from autointerp.checkpoints.formats import circuit_tracer
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
THRESHOLD = "activation_function.threshold"


@pytest.fixture
def stored(tmp_path, draw):
    """A function that stores a layer and the set's configuration with changes; None removes."""

    def store(config=None, tensors=None, *, name="layer_4.safetensors", config_at="config.yaml"):
        configuration = {
            "model_name": "Qwen/Qwen3-4B",
            "model_kind": "transcoder_set",
            "feature_input_hook": "mlp.hook_in",
            "feature_output_hook": "mlp.hook_out",
            "scan": "owner/name",
        }
        weights = {
            "W_enc": draw(LATENTS, WIDTH),
            "W_dec": draw(LATENTS, WIDTH),
            "b_enc": draw(LATENTS),
            "b_dec": draw(WIDTH),
        } | (tensors or {})
        folder = tmp_path / "above" / "set"
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / config_at
        if isinstance(config, bytes):
            place.write_bytes(config)
        else:
            changed = configuration | (config or {})
            kept = {key: value for key, value in changed.items() if value is not None}
            place.write_text(yaml.safe_dump(kept))
        kept = {key: tensor.contiguous() for key, tensor in weights.items() if tensor is not None}
        safetensors.torch.save_file(kept, folder / name)
        return folder / name

    return store


def refused(path, message):
    assert circuit_tracer.recognises(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        circuit_tracer.read(path)
    line = str(caught.value)
    assert "\n" not in line and str(path.parent.parent) in line and len(line) < 800


@pytest.mark.parametrize(
    ("hooks", "sites"),
    [
        (("mlp.hook_in", "mlp.hook_out"), ("blocks.4.mlp.hook_in", "blocks.4.mlp.hook_out")),
        (("hook_resid_mid", "hook_mlp_out"), ("blocks.4.hook_resid_mid", "blocks.4.hook_mlp_out")),
        (
            ("ln2.hook_normalized", "hook_mlp_out"),
            ("blocks.4.ln2.hook_normalized", "blocks.4.hook_mlp_out"),
        ),
        (("hook_resid_post", "hook_resid_post"), ("blocks.4.hook_resid_post", None)),
    ],
)
def test_sites_are_the_sets_hooks_in_the_layer_of_the_files_name(stored, hooks, sites):
    path = stored(dict(zip(("feature_input_hook", "feature_output_hook"), hooks, strict=True)))
    sae, absent = circuit_tracer.read(path)
    assert (sae.metadata.site, sae.metadata.output_site) == sites
    assert sae.is_transcoder == (sites[1] is not None)
    assert sae.metadata.subject == "Qwen/Qwen3-4B" and absent == ("context_length", "prepend_bos")


@pytest.mark.parametrize(
    ("name", "block"), [("layer_0.safetensors", 0), ("layer_07.safetensors", 7), ("layer_31.safetensors", 31)]
)
def test_the_layer_is_the_number_in_the_name(stored, name, block):
    assert circuit_tracer.read(stored(name=name))[0].metadata.site == f"blocks.{block}.mlp.hook_in"


def test_a_threshold_makes_a_jumprelu_and_a_skip_matrix_is_added_last(stored, draw):
    threshold, skip = draw(LATENTS).abs(), draw(WIDTH, WIDTH)
    w_enc, b_enc, w_dec, b_dec = draw(LATENTS, WIDTH), draw(LATENTS), draw(LATENTS, WIDTH), draw(WIDTH)
    weights = {"W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": b_dec}
    sae, _ = circuit_tracer.read(stored(tensors=weights | {THRESHOLD: threshold, "W_skip": skip}))
    x = draw(9, WIDTH)
    p = x @ w_enc.T + b_enc
    z = torch.where(p > threshold, p, 0)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae.reconstruct(x), z @ w_dec + b_dec + x @ skip.T)
    assert sae.architecture == "jumprelu transcoder + skip"
    assert circuit_tracer.read(stored())[0].architecture == "relu transcoder"


def test_the_configuration_may_lie_one_folder_up_and_beside_comes_first(stored):
    path = stored(config_at="../config.yaml")
    above = path.parent.parent / "config.yaml"
    assert circuit_tracer.files(path) == (path, above)
    assert circuit_tracer.read(path)[0].metadata.subject == "Qwen/Qwen3-4B"
    stored({"model_name": "google/gemma-2-2b"})
    assert circuit_tracer.files(path) == (path, path.parent / "config.yaml")
    assert circuit_tracer.read(path)[0].metadata.subject == "google/gemma-2-2b"


def test_without_a_configuration_nothing_says_what_it_predicts(stored):
    path = stored()
    (path.parent / "config.yaml").unlink()
    assert circuit_tracer.files(path) == (path,)
    refused(path, "a transcoder without config.yaml")


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"model_kind": "cross_layer_transcoder"}, {}, "a cross-layer transcoder, which writes to several"),
        ({"model_kind": "of_tomorrow"}, {}, "model_kind 'of_tomorrow' is not supported"),
        ({"feature_input_hook": None}, {}, "says no feature_input_hook"),
        ({"feature_output_hook": None}, {}, "says no feature_output_hook"),
        ({"feature_output_hook": ["a", "b"]}, {}, "'feature_output_hook' should be a text"),
        ({"feature_input_hook": "../hook"}, {}, "is no name of a hook"),
        ({"model_name": 7}, {}, "'model_name' should be a text"),
        ({"activation": "topk", "k": 32}, {}, "activation 'topk' is not supported: .* takes a relu"),
        ({"k": 32}, {}, "k '32' is not supported"),
        ({"activation": "jump_relu"}, {}, "activation 'jump_relu' is not supported: .* takes a relu"),
        ({"activation": "relu"}, {THRESHOLD: torch.ones(LATENTS)}, "takes a jumprelu"),
        ({}, {THRESHOLD: -torch.ones(LATENTS)}, "a negative threshold"),
        ({}, {THRESHOLD: torch.full((LATENTS,), torch.nan)}, "holds NaN or infinity"),
        ({}, {THRESHOLD: torch.ones(LATENTS, dtype=torch.int32)}, "not floats"),
        ({}, {THRESHOLD: torch.ones(1)}, "has shape"),
        ({}, {"W_skip": torch.ones(WIDTH, WIDTH + 1)}, "'W_skip' has shape"),
        ({}, {"W_skip": torch.full((WIDTH, WIDTH), torch.inf)}, "'W_skip' holds NaN or infinity"),
        ({}, {"log_thresholds": torch.ones(LATENTS)}, "unknown tensors 'log_thresholds'"),
        ({}, {"W_dec": torch.ones(LATENTS, 2, WIDTH)}, "'W_dec' has shape"),
        ({}, {"W_dec": torch.ones(LATENTS, WIDTH + 1)}, "'W_dec' has shape"),
    ],
)  # fmt: skip
def test_other_kinds_and_contradictions_are_refused(stored, config, tensors, message):
    refused(stored(config, tensors), message)


def test_an_activation_that_the_file_agrees_with_may_be_said(stored):
    assert circuit_tracer.read(stored({"activation": "relu"}))[0].architecture == "relu transcoder"
    path = stored({"activation_function": "jump_relu"}, {THRESHOLD: torch.ones(LATENTS)})
    assert circuit_tracer.read(path)[0].architecture == "jumprelu transcoder"


HUB = "hf://owner/name/layer_{}.safetensors?revision=new"


def test_the_sets_list_may_not_give_the_file_another_layer(stored):
    circuit_tracer.read(stored({"transcoders": [HUB.format(layer) for layer in range(9)]}))
    circuit_tracer.read(stored({"transcoders": ["a/params.npz", "b/params.npz"]}))
    circuit_tracer.read(stored({"transcoders": 3}))
    refused(
        stored({"transcoders": [HUB.format(4), HUB.format(0)]}), "lists layer_4.safetensors as the .* layer 0"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds a NoneType"),
        (b"- 1\n", "holds a list"),
        (b"a: [1\n", "no readable YAML"),
        (b"\xff\xfe\xff", "no readable YAML"),
        (b"a: \0", "no readable YAML"),
        (b"a: 2024-99-99", "no readable YAML"),
        (b"a: !!bool maybe", "no readable YAML"),
        (b"a: !!python/object/apply:os.system [true]", "no readable YAML .could not determine a constructor"),
        (b"a: &a [x]\nb: *a\n", "a configuration with aliases"),
        (b"[" * 60_000, "nested more than 10 levels"),
        (b"- " * 30_000, "nested more than 10 levels"),
        (b"a: 0x" + b"f" * 5000, "a value of more than 2048 characters"),
        (b"a: 1" + b":59" * 5000, "a value of more than 2048 characters"),
        (b"#" * (2**16 + 1), "more than 64 KiB"),
    ],
)
def test_a_configuration_that_is_no_plain_yaml_is_refused(stored, text, message):
    refused(stored(text), message)


@pytest.mark.parametrize("name", ["W_enc_0.safetensors", "W_dec_0.safetensors", "W_enc_17.safetensors"])
def test_a_part_of_a_cross_layer_transcoder_is_refused(stored, name):
    refused(stored(name=name), "a cross-layer transcoder, which writes to several layers")


def test_the_folder_of_a_cross_layer_transcoder_is_refused(stored):
    folder = stored(name="W_enc_0.safetensors").parent
    refused(folder, "a cross-layer transcoder, which writes to several layers")


def test_a_damaged_file_is_known_by_its_name(stored):
    path = stored()
    path.write_bytes(path.read_bytes()[:50])
    refused(path, "damaged or no safetensors file")


def test_other_files_are_not_claimed(stored):
    path = stored()
    for name in ("layer_4.pt", "params_layer_4.safetensors", "layer4.safetensors", "layer_4_.safetensors"):
        (path.parent / name).write_bytes(path.read_bytes())
        assert not circuit_tracer.recognises(path.parent / name)
    safetensors.torch.save_file({"weight": torch.ones(2)}, path)
    assert not circuit_tracer.recognises(path)
    assert not circuit_tracer.recognises(path.parent)
    assert not circuit_tracer.recognises(path.parent / "layer_9.safetensors")
