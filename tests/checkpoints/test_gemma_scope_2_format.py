"""Gemma Scope 2's folders: where the configuration says it attaches, and what is refused by name."""

import json

import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.formats import gemma_scope_2
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
MLP_IN, MLP_OUT = (f"model.layers.12.{side}_feedforward_layernorm.output" for side in ("pre", "post"))


@pytest.fixture
def folder(tmp_path, draw):
    """A function that stores published-style configuration and tensors, with changes; None removes."""

    def store(config=None, tensors=None):
        configuration = {
            "hf_hook_point_in": "model.layers.22.output",
            "hf_hook_point_out": "model.layers.22.output",
            "width": LATENTS,
            "model_name": "google/gemma-3-1b-it",
            "architecture": "jump_relu",
            "l0": 60,
            "affine_connection": False,
            "type": "sae",
        } | (config or {})
        weights = {
            "w_enc": draw(WIDTH, LATENTS),
            "b_enc": draw(LATENTS),
            "w_dec": draw(LATENTS, WIDTH),
            "b_dec": draw(WIDTH),
            "threshold": draw(LATENTS).abs(),
        } | (tensors or {})
        kept = {key: value for key, value in configuration.items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        stored = {name: tensor.contiguous() for name, tensor in weights.items() if tensor is not None}
        safetensors.torch.save_file(stored, tmp_path / "params.safetensors")
        return tmp_path

    return store


def refused(path, message):
    assert gemma_scope_2.recognises(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        gemma_scope_2.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


TRANSCODER = {"type": "transcoder", "hf_hook_point_in": MLP_IN, "hf_hook_point_out": MLP_OUT}


@pytest.mark.parametrize(
    ("hook_point", "site"),
    [
        ("model.layers.22.output", "blocks.22.hook_resid_post"),
        ("model.language_model.layers.0.output", "blocks.0.hook_resid_post"),
        ("model.layers.3.self_attn.o_proj.input", "blocks.3.attn.hook_z"),
        (MLP_OUT, "blocks.12.hook_mlp_out"),
        (MLP_IN, "blocks.12.mlp.hook_in"),
        ("model.layers.3.mlp.output", "model.layers.3.mlp"),
        ("model.layers.3.mlp.down_proj.input", "model.layers.3.mlp.down_proj:input"),
        ("model.embed_tokens.output", "model.embed_tokens"),
        (None, None),
    ],
)
def test_the_hook_point_becomes_a_site(folder, hook_point, site):
    sae, absent = gemma_scope_2.read(
        folder({"hf_hook_point_in": hook_point, "hf_hook_point_out": hook_point})
    )
    assert (sae.metadata.site, sae.metadata.output_site, sae.is_transcoder) == (site, None, False)
    assert ("site" in absent) == (site is None)


def test_a_transcoder_says_both_places(folder):
    sae, absent = gemma_scope_2.read(folder(TRANSCODER))
    assert (sae.metadata.site, sae.metadata.output_site) == (
        "blocks.12.mlp.hook_in",
        "blocks.12.hook_mlp_out",
    )
    assert sae.is_transcoder and sae.skip_weight is None and absent == ("context_length", "prepend_bos")


def test_the_affine_connection_maps_input_to_output(folder, draw):
    affine = draw(WIDTH, WIDTH)
    sae, _ = gemma_scope_2.read(
        folder(
            TRANSCODER | {"affine_connection": True},
            {
                "affine_skip_connection": affine,
                "w_dec": torch.zeros(LATENTS, WIDTH),
                "b_dec": torch.zeros(WIDTH),
            },
        )
    )  # fmt: skip
    x = draw(5, WIDTH)
    torch.testing.assert_close(sae.reconstruct(x), x @ affine)


@pytest.mark.parametrize(
    ("name", "subject", "notes"),
    [
        ("google/gemma-3-27b-it", "google/gemma-3-27b-it", 0),
        ("gemma-3-4b-pt", "google/gemma-3-4b-pt", 1),
        ("gemma-v3-1b-pt", "google/gemma-3-1b-pt", 1),
        ("google/gemma-3-270m-pt", "google/gemma-3-270m", 1),
        ("google/gemma-3-270m-it", "google/gemma-3-270m-it", 0),
        (None, None, 0),
    ],
)
def test_the_subject_is_called_as_on_the_hub(folder, name, subject, notes):
    metadata = gemma_scope_2.read(folder({"model_name": name}))[0].metadata
    assert metadata.subject == subject and len(metadata.notes) == notes
    assert all(repr(name) in note for note in metadata.notes)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"type": "clt"}, {}, "a cross-layer transcoder .* joins several layers"),
        ({"type": "crosscoder"}, {}, "a crosscoder .* joins several layers"),
        ({"type": "lorsa"}, {}, "type 'lorsa' is not supported"),
        ({"type": None}, {}, "type None is not supported"),
        ({"architecture": "topk"}, {}, "architecture 'topk' is not supported"),
        ({"architecture": None}, {}, "architecture None is not supported"),
        ({"hf_hook_point_in": "model.layers.{5,9}.output"}, {}, "an autoencoder by its type, but it reads"),
        (
            dict.fromkeys(("hf_hook_point_in", "hf_hook_point_out"), "model.layers.{5,9}.output"),
            {},
            "no place of one module",
        ),
        ({"hf_hook_point_out": MLP_OUT}, {}, "an autoencoder by its type, but it reads"),
        (TRANSCODER | {"hf_hook_point_out": MLP_IN}, {}, "a transcoder by its type, but it reads"),
        (TRANSCODER | {"hf_hook_point_out": None}, {}, "a transcoder by its type, but it reads"),
        ({"width": LATENTS + 1}, {}, "'w_enc' has shape"),
        ({"width": "16k"}, {}, "'width' should be a whole number"),
        ({"affine_connection": True}, {}, "'affine_skip_connection' is missing"),
        ({}, {"affine_skip_connection": torch.zeros(WIDTH, WIDTH)}, "unknown tensors 'affine_skip"),
        ({}, {"w_dec": torch.zeros(LATENTS, 3, WIDTH)}, "'w_dec' has shape"),
        ({}, {"w_dec": torch.zeros(WIDTH, LATENTS)}, "'w_dec' has shape"),
        ({}, {"w_dec": torch.zeros(LATENTS, WIDTH + 1)}, "'w_dec' has shape"),
        ({}, {"threshold": None}, "'threshold' is missing"),
        ({}, {"threshold": torch.full((LATENTS,), torch.inf)}, "'threshold' holds NaN or infinity"),
    ],
)  # fmt: skip
def test_other_kinds_and_contradictions_are_refused(folder, config, tensors, message):
    refused(folder(config, tensors), message)


def test_an_affine_connection_that_the_configuration_leaves_open_is_taken(folder, draw):
    path = folder({"affine_connection": None}, {"affine_skip_connection": draw(WIDTH, WIDTH)})
    assert gemma_scope_2.read(path)[0].skip_weight is not None
    path = folder({"affine_connection": None})
    assert gemma_scope_2.read(path)[0].skip_weight is None


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_a_folder_with_a_file_for_each_layer_is_named_for_what_it_is(folder, kind):
    path = folder({"type": kind, "hf_hook_point_in": "model.layers.{all}.output"})
    for layer in range(3):
        (path / f"params_layer_{layer}.safetensors").write_bytes((path / "params.safetensors").read_bytes())
    (path / "params.safetensors").unlink()
    refused(path, "joins several layers")


def test_the_files_are_the_two(folder):
    path = folder()
    (path / "examples.safetensors").write_bytes(b"")
    assert gemma_scope_2.files(path) == (path / "config.json", path / "params.safetensors")


def test_a_folder_without_a_configuration_is_none(folder):
    path = folder()
    (path / "config.json").unlink()
    assert not gemma_scope_2.recognises(path)
    assert not gemma_scope_2.recognises(path / "params.safetensors")
