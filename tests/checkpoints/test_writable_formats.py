"""Laws of the formats that can be written: a round trip is exact, and damage is refused in these words."""

import contextlib
import hashlib

import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.activation_functions import Identity, JumpReLU, ReLU
from autointerp.checkpoints.load import WRITABLE_FORMATS, load_checkpoint, read_checkpoint, write_checkpoint
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

CASES = [
    ("openai", TopK(5), "layer_norm", True),
    ("openai", TopK(5, "identity"), "layer_norm", True),
    ("openai", ReLU(), "none", True),
    ("openai", Identity(), "none", True),
    ("saelens", TopK(5), "layer_norm", True),
    ("saelens", TopK(5), "none", False),
    ("saelens", ReLU(), "none", True),
    ("saelens", JumpReLU(torch.linspace(0, 1, 30)), "layer_norm", False),
    ("sparsify", TopK(5), "none", True),
    ("dictionary_learning", TopK(5), "none", True),
    ("dictionary_learning", ReLU(), "none", True),
]
FIRST_CASES = {name: (activation, normalization) for name, activation, normalization, _ in reversed(CASES)}
WEIGHTS = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
WEIGHT_FILES = {
    "openai": "sae",
    "saelens": "sae/sae_weights.safetensors",
    "sparsify": "sae/sae.safetensors",
    "dictionary_learning": "sae/ae.pt",
}


@pytest.fixture(params=[chosen.NAME for chosen in WRITABLE_FORMATS])
def written(request, autoencoder, tmp_path):
    """The name of a format, a checkpoint written in it, and the file with the weights."""
    activation, normalization = FIRST_CASES[request.param]
    write_checkpoint(autoencoder(activation, normalization), tmp_path / "sae", format=request.param)
    return request.param, tmp_path / "sae", tmp_path / WEIGHT_FILES[request.param]


def change_tensors(weights, change):
    """Rewrite a weights file after `change` has had its dictionary."""
    if weights.suffix == ".safetensors":
        tensors = safetensors.torch.load_file(weights)
        change(tensors)
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, weights)
    else:
        tensors = torch.load(weights, weights_only=True)
        change(tensors)
        torch.save(tensors, weights)


def weight_names(weights):
    names = []
    change_tensors(
        weights,
        lambda t: names.extend(n for n, v in t.items() if getattr(v, "ndim", 0) and v.is_floating_point()),
    )
    return [name for name in names if not name.startswith("latents_")]


def test_every_writable_format_has_a_case_here():
    assert {name for name, *_ in CASES} == {chosen.NAME for chosen in WRITABLE_FORMATS} == set(WEIGHT_FILES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "activation", "normalization", "shared"), CASES)
def test_a_round_trip_is_equal_to_the_bit(
    autoencoder, draw, tmp_path, name, activation, normalization, shared, dtype
):
    sae = autoencoder(activation, normalization, shared=shared)
    write_checkpoint(sae, tmp_path / "sae", format=name, dtype=dtype)
    checkpoint = read_checkpoint(tmp_path / "sae")
    loaded, rounded = checkpoint.sae, sae.to(dtype=dtype).to(dtype=torch.float32)
    for weight in WEIGHTS:
        assert torch.equal(getattr(loaded, weight), getattr(rounded, weight))
    x = draw(9, 6)
    assert torch.equal(loaded.encode(x), rounded.encode(x))
    assert torch.equal(loaded.reconstruct(x), rounded.reconstruct(x))
    assert loaded.dtype == torch.float32 and checkpoint.format == name
    assert (checkpoint.architecture, checkpoint.normalization) == (activation.describe(), normalization)


def test_exactly_one_format_recognises_it(written):
    name, path, _ = written
    assert [chosen.NAME for chosen in WRITABLE_FORMATS if chosen.recognises(path)] == [name]


def test_it_can_be_loaded_in_another_precision(written):
    _, path, _ = written
    assert load_checkpoint(path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_loading_twice_gives_the_same_hash_and_another_weight_another_one(written):
    _, path, weights = written
    first = read_checkpoint(path).sha256
    assert read_checkpoint(str(path)).sha256 == first and len(first) == 64
    change_tensors(weights, lambda tensors: tensors[weight_names(weights)[0]].add_(1))
    assert read_checkpoint(path).sha256 != first


def test_a_missing_tensor_is_named(written):
    _, path, weights = written
    for name in weight_names(weights):
        content = weights.read_bytes()
        change_tensors(weights, lambda tensors, name=name: tensors.pop(name))
        with pytest.raises(CheckpointError, match=f"'{name}' is missing"):
            load_checkpoint(path)
        weights.write_bytes(content)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_in_every_tensor(written, bad):
    _, path, weights = written
    for name in weight_names(weights):
        content = weights.read_bytes()
        change_tensors(weights, lambda tensors, name=name: tensors[name].view(-1)[-1].fill_(bad))
        with pytest.raises(CheckpointError, match=f"'{name}' holds NaN or infinity"):
            load_checkpoint(path)
        weights.write_bytes(content)


def test_a_wrong_shape_is_refused_in_every_tensor(written):
    _, path, weights = written

    def with_one_more(tensors, name):
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])

    for name in weight_names(weights):
        content = weights.read_bytes()
        change_tensors(weights, lambda tensors, name=name: with_one_more(tensors, name))
        with pytest.raises(CheckpointError, match=r"has shape \(\d+.*\), not \("):
            load_checkpoint(path)
        weights.write_bytes(content)


def test_an_unknown_tensor_is_refused(written):
    _, path, weights = written
    change_tensors(weights, lambda tensors: tensors.update(surprise=torch.zeros(3)))
    with pytest.raises(CheckpointError, match="unknown tensors 'surprise'"):
        load_checkpoint(path)


def test_integers_are_no_weights(written):
    _, path, weights = written
    name = weight_names(weights)[0]
    change_tensors(weights, lambda tensors: tensors.update({name: tensors[name].to(torch.int64)}))
    with pytest.raises(CheckpointError, match="not floats"):
        load_checkpoint(path)


def test_every_truncation_is_refused_in_one_line(written):
    _, path, weights = written
    content = weights.read_bytes()
    for length in [0, 1, 4, 8, 9, *range(40, len(content) - 1, len(content) // 12), len(content) - 1]:
        weights.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_flipped_bytes_load_or_are_refused_and_never_anything_else(written):
    _, path, weights = written
    content = weights.read_bytes()
    generator = torch.Generator().manual_seed(7)
    for _ in range(150):
        damaged = bytearray(content)
        for place in torch.randint(len(content), (3,), generator=generator).tolist():
            damaged[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        weights.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            load_checkpoint(path)


def test_extra_files_beside_a_folder_change_neither_result_nor_hash(written):
    _, path, _ = written
    if path.is_dir():
        before = read_checkpoint(path).sha256
        (path / "eval_results.json").write_text("{}")
        assert read_checkpoint(path).sha256 == before


def test_a_files_hash_is_what_sha256sum_says(autoencoder, tmp_path):
    write_checkpoint(autoencoder(ReLU()), tmp_path / "1.pt", format="openai")
    expected = hashlib.sha256((tmp_path / "1.pt").read_bytes()).hexdigest()
    assert read_checkpoint(tmp_path / "1.pt").sha256 == expected
