"""Broken and malicious input: one clear CheckpointError each, nothing executed, nothing huge allocated."""

import contextlib
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.load import load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError


class Payload:
    """Unpickled naively, it creates the folder `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


@pytest.mark.parametrize("place", ["openai", "dictionary_learning"])
@pytest.mark.parametrize("writer", ["torch", "legacy torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    openai_file, dictionary_learning_folder, tmp_path, place, writer
):
    trace = tmp_path / "trace"
    if place == "openai":
        state, _ = openai_file
        target = path = tmp_path / "sae.pt"
    else:
        config, state, store = dictionary_learning_folder
        path = store(config, state)
        target = path / "ae.pt"
    state = {**state, "activation": Payload(trace)}
    if writer == "pickle":
        target.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, target, _use_new_zipfile_serialization=writer == "torch")
    refused(path, "reading it (could|would) run code")
    assert not trace.exists()
    torch.load(target, weights_only=False) if writer != "pickle" else pickle.loads(target.read_bytes())
    assert trace.exists(), "the payload is no payload, the test proves nothing"


def test_nothing_there_is_said(tmp_path):
    refused(tmp_path / "absent", "No such file")


def test_an_empty_folder_is_no_format(tmp_path):
    refused(tmp_path, "an empty folder")


def test_an_unknown_folder_lists_what_was_seen_and_what_is_known(tmp_path):
    for name in ("params.npz", "README.md", "cfg.json"):
        (tmp_path / name).write_bytes(b"{}")
    line = refused(tmp_path, "README.md, cfg.json, params.npz")
    assert "known are openai, saelens, sparsify" in line


def test_an_empty_file_and_a_text_are_no_format(tmp_path):
    for content in (b"", b"hello", b"PK"):
        (tmp_path / "sae.pt").write_bytes(content)
        refused(tmp_path / "sae.pt", f"a file of {len(content)} bytes")


def test_an_unknown_state_dictionary_lists_its_keys(tmp_path):
    torch.save({"layer.weight": torch.zeros(2), 3: 1}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "torch file of a dict with 3, layer.weight")
    torch.save([1, 2], tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "torch file of a list")


def test_a_numpy_archive_is_not_taken_for_a_torch_file(tmp_path):
    np.savez(tmp_path / "params.npz", W_enc=np.zeros((2, 2)))
    refused(tmp_path / "params.npz", "no known checkpoint format")


def test_two_formats_in_one_folder_are_a_tie(autoencoder, tmp_path):
    write_checkpoint(autoencoder(), tmp_path, format="dictionary_learning")
    write_checkpoint(autoencoder(), tmp_path, format="sparsify")
    refused(tmp_path, "more than one format: sparsify and dictionary_learning")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no readable JSON"),
        (b"{", "no readable JSON"),
        (b"\xff\xfe\x00", "no readable JSON"),
        (b"[1]", "holds a list"),
        (b"null", "holds a NoneType"),
        (b"[" * 200_000, "no readable JSON"),
        (b" " * (16 * 2**20 + 1), "more than 16 MiB"),
    ],
)
@pytest.mark.parametrize("name", ["saelens", "sparsify", "dictionary_learning"])
def test_a_configuration_that_is_no_json_object_is_refused(autoencoder, tmp_path, name, content, message):
    write_checkpoint(autoencoder(), tmp_path, format=name)
    next(tmp_path.glob("c*.json")).write_bytes(content)
    refused(tmp_path, message)


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 10**6, 0])
def test_a_header_of_a_huge_length_is_refused(autoencoder, tmp_path, length):
    write_checkpoint(autoencoder(), tmp_path, format="saelens")
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(length.to_bytes(8, "little") + weights.read_bytes()[8:])
    refused(tmp_path, "no safetensors file")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(autoencoder, tmp_path):
    write_checkpoint(autoencoder(), tmp_path, format="saelens")
    claim = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"W_enc": claim}).encode()
    (tmp_path / "sae_weights.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"\0" * 64
    )
    refused(tmp_path, "no safetensors file")


def test_strides_of_zero_cannot_make_a_small_file_huge(openai_file):
    state, store = openai_file
    state["encoder.weight"] = torch.zeros(1).expand(10**7, 10**6)
    refused(store(state), "claims more numbers than the file holds")


def test_a_compressed_archive_is_refused(openai_file, tmp_path):
    state, store = openai_file
    with zipfile.ZipFile(store(state)) as source, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    refused(tmp_path / "bomb.pt", "compressed records")


def test_what_is_no_plain_tensor_is_refused(openai_file):
    state, store = openai_file
    for impostor in ("text", [1.0], torch.zeros(30, 6).to_sparse()):
        refused(store(state | {"encoder.weight": impostor}), "no plain tensor")


def test_keys_that_are_no_text_are_refused(dictionary_learning_folder):
    config, state, store = dictionary_learning_folder
    state = {**state, 1: torch.zeros(1), "zz": torch.zeros(1)}
    path = store(config, {"ae": state, "norm_factor": 1.0})
    with pytest.raises(CheckpointError, match="unknown tensors '<int>', 'zz'"):
        load_checkpoint(path)


def test_stored_parameters_ask_for_no_gradients(openai_file):
    state, store = openai_file
    asking = {
        name: torch.nn.Parameter(value) if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in state.items()
    }
    sae = load_checkpoint(store(asking))
    assert type(sae.encoder_weight) is torch.Tensor
    for weight in (sae.encoder_weight, sae.encoder_bias, sae.decoder_weight, sae.decoder_bias, sae.pre_bias):
        assert not weight.requires_grad
    torch.testing.assert_close(sae.encoder_weight, state["encoder.weight"])


def test_an_empty_tensor_is_refused(openai_file):
    state, store = openai_file
    refused(store(state | {"encoder.weight": torch.zeros(0, 6)}), "has shape \\(0, 6\\)")


def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(tmp_path / "a", "symbolic links")


def test_a_folder_whose_weights_are_a_circle_of_links_is_no_format(autoencoder, tmp_path):
    write_checkpoint(autoencoder(), tmp_path, format="saelens")
    weights = tmp_path / "sae_weights.safetensors"
    weights.unlink()
    weights.symlink_to(weights)
    refused(tmp_path, "no known checkpoint format")


def test_a_link_to_a_checkpoint_is_followed(autoencoder, tmp_path, draw):
    write_checkpoint(autoencoder(), tmp_path / "layers.4", format="sparsify")
    (tmp_path / "latest").symlink_to(tmp_path / "layers.4")
    assert load_checkpoint(tmp_path / "latest").metadata.site == "blocks.4.hook_resid_post"


@contextlib.contextmanager
def as_nobody():
    """Not the superuser, who may read everything."""
    is_superuser = os.geteuid() == 0
    if is_superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_superuser:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["openai", "saelens", "dictionary_learning"])
def test_what_may_not_be_read_is_said(autoencoder, tmp_path, name):
    path = tmp_path / "sae"
    write_checkpoint(autoencoder(ReLU()), path, format=name)
    load_checkpoint(path)  # everything is imported now: nobody might not be allowed to
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    for file in [path] if path.is_file() else path.iterdir():
        file.chmod(0)
    with pytest.raises(CheckpointError, match="Permission denied"), as_nobody():
        load_checkpoint(path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a file nor a folder")


def test_writing_names_unknown_formats_and_forbidden_places(autoencoder, tmp_path):
    with pytest.raises(CheckpointError, match="no format called 'gguf' can be written; known are openai"):
        write_checkpoint(autoencoder(), tmp_path / "x", format="gguf")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(autoencoder(), tmp_path / "file" / "x", format="sparsify")


def test_a_file_from_inside_a_folder_is_explained(autoencoder, tmp_path):
    write_checkpoint(autoencoder(TopK(2)), tmp_path, format="saelens")
    line = refused(tmp_path / "sae_weights.safetensors", "no known checkpoint format")
    assert "known are openai, saelens" in line


def test_a_path_with_a_nul_character_is_refused() -> None:
    with pytest.raises(CheckpointError, match="NUL"):
        read_checkpoint("a\0b")
