"""Checkpoints saved by the real libraries, with what those compute from them: we must compute the same.

`fixtures/<library>/<case>/` holds the files, `expected.safetensors` (x, latents, reconstruction) and
`fixture.json` (library, version, what the files say); `fixtures/make_*.py` made them. For formats without a
package the formula was evaluated in float64 by code of its own. The laws below hold for every case.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.load import FORMATS, load_checkpoint, read_checkpoint
from autointerp.checkpoints.tensor_files import read_npz
from autointerp.errors import CheckpointError
from autointerp.metrics.calibration import _scale_products

FIXTURES = Path(__file__).parent / "fixtures"
CASES = sorted(path.parent for path in FIXTURES.glob("*/*/fixture.json"))
WEIGHTS = (".safetensors", ".pt", ".npz")
LARGEST_BYTES = 50_000
# A format's own name where it is not that of the folder of its fixtures.
FORMAT_OF = {"sae_lens": "saelens"}


def name_of(case):
    return f"{case.parent.name}/{case.name}"


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    return request.param


@pytest.fixture
def facts(case):
    return json.loads((case / "fixture.json").read_text())


@pytest.fixture
def expected(case):
    return safetensors.torch.load_file(case / "expected.safetensors")


@pytest.fixture
def copy(case, facts, tmp_path):
    """The checkpoint where it may be damaged: its path, and its files of weights."""
    shutil.copytree(case / "checkpoint", tmp_path / "checkpoint")
    path = tmp_path / facts["checkpoint"]
    known = next(chosen for chosen in FORMATS if chosen.recognises(path))
    own = [file for file in known.files(path) if file.suffix in WEIGHTS and "scaler" not in file.name]
    return path, [file for file in own if "state" not in file.name and "whitening" not in file.name]


def read_tensors(file):
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    if file.suffix == ".npz":
        return {name: tensor.clone() for name, tensor in read_npz(file).items()}
    return torch.load(file, weights_only=True)


def write_tensors(file, content):
    if file.suffix == ".safetensors":
        safetensors.torch.save_file({name: t.contiguous() for name, t in content.items()}, file)
    elif file.suffix == ".npz":
        np.savez(file, **{name: t.float().numpy() for name, t in content.items()})
    else:
        torch.save(content, file)


def table_of(content):
    """The dictionary of tensors itself: training backups keep it one level down."""
    return content["ae"] if isinstance(content.get("ae"), dict) else content


def weight_names(content, facts):
    optional = {"k", "threshold", *facts.get("optional_tensors", ())}
    return [
        name
        for name, tensor in table_of(content).items()
        if isinstance(tensor, torch.Tensor)
        and tensor.is_floating_point()
        and tensor.ndim
        and not (tensor.numel() == 1 or name in optional or name.startswith("latents_"))
    ]


def damaged(copy, facts, change):
    """Every weight after `change(table, name)`, one at a time, each stored and the rest left as it was."""
    path, files = copy
    for file in files:
        whole = file.read_bytes()
        for name in weight_names(read_tensors(file), facts):
            content = read_tensors(file)
            if change(table_of(content), name) is not False:
                write_tensors(file, content)
                yield path, name
            file.unlink()  # a new file: tensors of the old one may still be mapped
            file.write_bytes(whole)


def refuses(path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1500
    return line


def test_every_format_of_files_has_cases():
    covered = {FORMAT_OF.get(case.parent.name, case.parent.name) for case in CASES}
    assert covered == {chosen.NAME for chosen in FORMATS}


def test_a_case_is_small_and_says_where_its_numbers_are_from(case, facts):
    assert sum(file.stat().st_size for file in case.rglob("*") if file.is_file()) < LARGEST_BYTES
    assert facts["library"] and facts["version"]


def test_encode_and_reconstruct_equal_what_was_recorded(case, facts, expected):
    sae = load_checkpoint(case / facts["checkpoint"])
    x = expected["x"]
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(sae.encode(x), expected["latents"], **close)
    torch.testing.assert_close(sae.reconstruct(x), expected["reconstruction"], **close)
    x_hat, latents = sae.reconstruct_sparse(x)
    torch.testing.assert_close(latents.dense(), expected["latents"], **close)
    torch.testing.assert_close(x_hat, expected["reconstruction"], **close)


def test_what_was_recorded_fires_here_and_not_there(facts, expected):
    """Else equality would say little."""
    fires = expected["latents"] != 0
    assert fires.any() and (not fires.all() or facts["architecture"] == "identity")
    assert expected["x"].std() > 0


def test_it_says_what_its_files_say(case, facts):
    metadata = load_checkpoint(case / facts["checkpoint"]).metadata
    said = {name: value for name, value in facts["says"].items() if value is not None}
    assert {name: getattr(metadata, name) for name in said} == said


def test_exactly_one_format_claims_it(case, facts):
    path = case / facts["checkpoint"]
    assert [chosen.NAME for chosen in FORMATS if chosen.recognises(path)] == [
        FORMAT_OF.get(case.parent.name, case.parent.name)
    ]


def test_a_relative_path_is_the_same_checkpoint(case, facts, monkeypatch):
    monkeypatch.chdir(case)
    relative, absolute = read_checkpoint(facts["checkpoint"]), read_checkpoint(case / facts["checkpoint"])
    assert relative.sha256 == absolute.sha256
    assert relative.sae.metadata == absolute.sae.metadata


def test_the_hash_is_the_contents_not_the_place(case, facts, copy):
    assert read_checkpoint(case / facts["checkpoint"]).sha256 == read_checkpoint(copy[0]).sha256


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_it_can_be_loaded_in_another_precision(case, facts, expected, dtype):
    sae = load_checkpoint(case / facts["checkpoint"], dtype=dtype)
    x_hat, latents = sae.reconstruct_sparse(expected["x"])
    assert x_hat.dtype == latents.values.dtype == sae.dtype == dtype
    if dtype == torch.float64:
        close = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(x_hat, expected["reconstruction"].double(), **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_that_stay_in_their_file_give_the_same(case, facts, expected, monkeypatch, dtype):
    whole = load_checkpoint(case / facts["checkpoint"])
    for limit in ("_SHARD_BYTES", "_LARGEST_BLOCK_BYTES", "_BLOCK_BYTES"):
        monkeypatch.setattr(f"autointerp.checkpoints.sharded_products.{limit}", 700)
    if whole.activation.needs_all_latents:
        return  # refused, see below
    streamed = read_checkpoint(case / facts["checkpoint"], dtype=dtype, room=0).sae
    assert streamed.is_streamed and not whole.is_streamed
    x_hat, latents = streamed.reconstruct_sparse(expected["x"])
    close = {"atol": 1e-4, "rtol": 1e-4, "check_dtype": False}
    torch.testing.assert_close(latents.dense(), whole.encode(expected["x"]), **close)
    torch.testing.assert_close(x_hat, whole.reconstruct(expected["x"]), **close)


def test_its_own_reconstruction_is_fitted_by_the_output_scale_one(case, facts, expected):
    """Of nulls the scale is fitted; of what is exact, whatever it normalises, skips and predicts, it is 1."""
    sae = load_checkpoint(case / facts["checkpoint"], dtype=torch.float64)
    x = expected["x"].double()
    cross, square = _scale_products(sae, x, sae.reconstruct(x))
    assert float(cross / square) == pytest.approx(1, abs=1e-6)


def test_what_fits_into_memory_is_a_copy_of_its_files(copy, expected):
    """A training that writes its file in place while a run goes must not reach into the run."""
    path, files = copy
    sae = load_checkpoint(path)
    before = sae.reconstruct(expected["x"])
    for file in files:
        with file.open("r+b") as opened:
            opened.write(bytes(file.stat().st_size))
    assert torch.equal(sae.reconstruct(expected["x"]), before)
    for file in files:
        os.truncate(file, 10)
    assert torch.equal(sae.reconstruct_sparse(expected["x"])[1].dense(), sae.encode(expected["x"]))


def test_a_missing_tensor_is_refused(copy, facts):
    def remove(table, name):
        del table[name]

    for path, name in damaged(copy, facts, remove):
        # Where a name has two spellings the other one is what is missing then.
        line = refuses(path)
        assert name.lower() in line.lower() or "is missing" in line


def test_a_renamed_tensor_is_refused(copy, facts):
    for path, _ in damaged(copy, facts, lambda table, name: table.update({f"{name}_": table.pop(name)})):
        refuses(path)


def test_a_transposed_tensor_is_refused(copy, facts):
    def transpose(table, name):
        if table[name].ndim != 2 or table[name].shape[0] == table[name].shape[1]:
            return False  # a square matrix looks the same
        table[name] = table[name].T.contiguous()
        return None

    for path, name in damaged(copy, facts, transpose):
        assert re.search("shape|should be|is not|claims", refuses(path)), name


def test_a_tensor_that_is_too_long_is_refused(copy, facts):
    def lengthen(table, name):
        if name.lower() == "w_enc" and facts["says"].get("output_site"):
            return False  # what a transcoder reads may have any width
        table[name] = torch.cat([table[name], table[name][:1]])
        return None

    for path, _ in damaged(copy, facts, lengthen):
        refuses(path)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_nan_and_infinity_are_refused(copy, facts, bad):
    def spoil(table, name):
        table[name] = table[name].clone()
        table[name][(-1,) * table[name].ndim] = bad

    for path, name in damaged(copy, facts, spoil):
        assert "NaN or infinity" in refuses(path), name


def test_integers_are_refused(copy, facts):
    def rounded(table, name):
        if copy[1][0].suffix == ".npz":
            return False  # the helper writes floats
        table[name] = table[name].to(torch.int32)
        return None

    for path, _ in damaged(copy, facts, rounded):
        refuses(path)


def test_an_extra_tensor_is_refused(copy):
    path, files = copy
    content = read_tensors(files[0])
    table_of(content)["surprise"] = torch.zeros(3)
    files[0].unlink()
    write_tensors(files[0], content)
    assert "surprise" in refuses(path)


def test_every_truncation_is_refused(copy):
    path, files = copy
    for file in files:
        whole = file.read_bytes()
        for length in (0, 1, 8, len(whole) // 3, len(whole) - 1):
            file.unlink()
            file.write_bytes(whole[:length])
            refuses(path)
        file.unlink()
        file.write_bytes(whole)


def test_flipped_bits_load_or_are_refused_and_never_anything_else(copy, facts):
    path, files = copy
    generator = torch.Generator().manual_seed(len(str(facts)))
    for file in files:
        whole = file.read_bytes()
        for _ in range(12):
            spoilt = bytearray(whole)
            for place in torch.randint(min(len(whole), 2000), (3,), generator=generator).tolist():
                spoilt[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
            file.unlink()
            file.write_bytes(spoilt)
            with contextlib.suppress(CheckpointError):
                load_checkpoint(path)
