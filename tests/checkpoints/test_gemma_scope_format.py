"""Gemma Scope's archives: what the path says, how arrays may be stored, and what is refused."""

import io
import zipfile

import numpy as np
import pytest
import torch

from autointerp.checkpoints.formats import gemma_scope
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
RELEASE = "gemma-scope-2b-pt-res"
PLACE = "layer_12/width_16k/average_l0_82"


@pytest.fixture
def arrays():
    draw = np.random.default_rng(3)
    shapes = {"W_enc": (WIDTH, LATENTS), "W_dec": (LATENTS, WIDTH), "b_enc": LATENTS, "b_dec": WIDTH}
    stored = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return stored | {"threshold": draw.uniform(0.1, 1, LATENTS).astype(np.float32)}


@pytest.fixture
def store(tmp_path):
    def save(arrays, folder="sae"):
        path = tmp_path / folder / "params.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
        return path

    return save


def load(path):
    assert gemma_scope.recognises(path)
    sae, _ = gemma_scope.read(path)
    return sae.to(dtype=torch.float32)


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        gemma_scope.read(path)
    assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "site", "output_site", "subject"),
    [
        (f"{RELEASE}/{PLACE}", "blocks.12.hook_resid_post", None, "google/gemma-2-2b"),
        (f"gemma-scope-9b-pt-mlp/{PLACE}", "blocks.12.hook_mlp_out", None, "google/gemma-2-9b"),
        (f"gemma-scope-27b-pt-res/{PLACE}", "blocks.12.hook_resid_post", None, "google/gemma-2-27b"),
        (f"gemma-scope-9b-it-att/{PLACE}", "blocks.12.attn.hook_z", None, "google/gemma-2-9b-it"),
        (
            f"gemma-scope-2b-pt-transcoders/{PLACE}",
            "blocks.12.ln2.hook_normalized",
            "blocks.12.hook_mlp_out",
            "google/gemma-2-2b",
        ),
        (
            f"models--google--{RELEASE}/snapshots/fd57/{PLACE}",
            "blocks.12.hook_resid_post",
            None,
            "google/gemma-2-2b",
        ),
        (
            f"{RELEASE}-canonical/layer_0/width_1m/canonical",
            "blocks.0.hook_resid_post",
            None,
            "google/gemma-2-2b",
        ),
    ],
)
def test_the_published_path_says_site_and_subject(arrays, store, folder, site, output_site, subject):
    path = store(arrays, folder)
    for given in (path, path.parent):
        metadata = load(given).metadata
        assert (metadata.site, metadata.output_site, metadata.subject) == (site, output_site, subject)
        assert "taken from the path" in metadata.notes[0]
        assert gemma_scope.files(given) == (path,)


@pytest.mark.parametrize(
    "folder",
    [
        PLACE,
        f"my-gemma-scope/{PLACE}",
        f"gemma-scope-2b-pt-other/{PLACE}",
        f"gemma-scope-3b-pt-res/{PLACE}",
        RELEASE,
        f"{RELEASE}/layer_x/width_16k/average_l0_82",
        f"{PLACE}/{RELEASE}",
    ],
)
def test_any_other_path_says_nothing(arrays, store, folder):
    path = store(arrays, folder)
    sae, absent = gemma_scope.read(path)
    assert absent == ("site", "subject", "context_length", "prepend_bos")
    assert "whether it is a transcoder" in sae.metadata.notes[0]


def test_a_relative_path_is_read_from_where_the_user_stands(arrays, store, monkeypatch):
    path = store(arrays, f"{RELEASE}/{PLACE}")
    monkeypatch.chdir(path.parent)
    for given in (path.relative_to(path.parent), path.parent.relative_to(path.parent)):
        assert load(given).metadata.site == "blocks.12.hook_resid_post"


def test_a_link_is_taken_for_what_it_is_called_not_for_what_it_leads_to(arrays, store, tmp_path):
    blob = store(arrays, "blobs").rename(tmp_path / "blobs" / "1f0e")
    link = tmp_path / RELEASE / PLACE / "params.npz"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    assert load(link.parent).metadata.subject == "google/gemma-2-2b"


def test_an_embedding_autoencoder_is_refused_by_name(arrays, store):
    path = store(arrays, f"{RELEASE}/embedding/width_4k/average_l0_6")
    assert gemma_scope.recognises(path)
    refused(path, "embedding autoencoder of Gemma Scope is not supported")


def as_bfloat16(array):
    """As ml_dtypes lets NumPy store it: the upper two bytes of each number, without a type."""
    return (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (np.asfortranarray, 0),
        (lambda array: array.astype(np.float64), 0),
        (lambda array: array.astype(">f4"), 0),
        (lambda array: array.astype(np.float16), 1e-2),
        (as_bfloat16, 1e-1),
    ],
    ids=["fortran order", "float64", "big endian", "float16", "bfloat16"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_any_float_type_and_order_are_read(arrays, store, change, tolerance, save):
    expected = load(store(arrays))
    path = store({}, "other")
    save(path, **{name: change(array) for name, array in arrays.items()})
    sae = load(path)
    for weight, same in sae.tensors().items():
        torch.testing.assert_close(same, expected.tensors()[weight], atol=tolerance, rtol=0)
    torch.testing.assert_close(
        sae.activation.threshold, expected.activation.threshold, atol=tolerance, rtol=0
    )


def test_matrices_stay_in_the_file_and_in_their_type(arrays, store):
    sae, _ = gemma_scope.read(store({name: array.astype(np.float16) for name, array in arrays.items()}))
    assert sae.encoder_weight.dtype == sae.decoder_weight.dtype == torch.float16
    assert sae.encoder_bias.dtype == sae.activation.threshold.dtype == torch.float32
    assert not sae.encoder_weight.is_contiguous()  # a transposed view


def test_the_threshold_is_strict_and_nothing_is_subtracted(arrays, store):
    arrays |= {"W_enc": np.zeros_like(arrays["W_enc"]), "b_enc": arrays["threshold"].copy()}
    arrays["b_enc"][0] = np.nextafter(arrays["b_enc"][0], np.float32(9))
    sae = load(store(arrays))
    assert torch.nonzero(sae.encode(torch.ones(1, WIDTH))).tolist() == [[0, 0]]
    assert sae.pre_bias is None


def test_a_scaling_factor_must_be_one(arrays, store):
    for name in ("W_enc", "W_dec"):
        arrays[name.lower()] = arrays.pop(name)
    arrays["scaling_factor"] = np.ones(LATENTS, np.float32)
    load(store(arrays))
    arrays["scaling_factor"][3] = 1.5
    refused(store(arrays), "scaling_factor other than 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_enc": np.zeros((LATENTS, WIDTH), np.float32)}, "'b_enc' has shape"),
        ({"W_dec": np.zeros((WIDTH, LATENTS), np.float32)}, "'W_dec' has shape"),
        ({"threshold": np.zeros(LATENTS, np.int64)}, "not floats"),
        ({"threshold": np.zeros(1, np.float32)}, "'threshold' has shape"),
        ({"b_dec": np.full(WIDTH, np.nan, np.float32)}, "'b_dec' holds NaN"),
        ({"W_skip": np.zeros((WIDTH, WIDTH), np.float32)}, "unknown tensors 'W_skip'"),
        ({"../../x": np.zeros(2, np.float32)}, "unknown tensors '../../x'"),
        ({"threshold": np.array([None] * LATENTS)}, "holds object, no numbers"),
        ({"threshold": np.array(["a"] * LATENTS)}, "holds <U1, no numbers"),
        ({"threshold": np.zeros(LATENTS, np.complex64)}, "holds complex64, no numbers"),
    ],
)
def test_misfits_and_objects_are_refused(arrays, store, tmp_path, change, message):
    path = store(arrays | change)
    before = sorted(tmp_path.rglob("*"))
    assert gemma_scope.recognises(path)
    refused(path, message)
    assert sorted(tmp_path.rglob("*")) == before


def with_entry(path, name, content, *, compression=zipfile.ZIP_STORED):
    """The archive again, one entry replaced by these bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for entry, old in entries.items():
            archive.writestr(entry, content if entry == name else old)
    return path


def header(shape, *, dtype="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**9, 10**9)) + b"\0" * 64, "another number of entries"),
        (header((-1, -4)) + b"\0" * 16, "another number of entries"),
        (header((2**62, 4)) + b"", "another number of entries"),
        (header((LATENTS,)) + b"\0" * (4 * LATENTS - 1), "another number of entries"),
        (header((LATENTS,), dtype="|O") + b"\x80\x04N.", "holds object, no numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "damaged or no NumPy archive"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')", "damaged or no NumPy archive"),
        (b"", "damaged or no NumPy archive"),
        (b"text", "damaged or no NumPy archive"),
    ],
)
def test_lying_headers_are_refused(arrays, store, content, message):
    path = with_entry(store(arrays), "threshold.npy", content)
    assert gemma_scope.recognises(path)
    refused(path, message)


def test_a_compressed_bomb_is_refused_before_it_unfolds(arrays, store):
    bomb = header((2**26,)) + b"\0" * 2**28
    path = with_entry(store(arrays), "threshold.npy", bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path, "would unfold to")


def test_a_truncated_archive_is_still_this_format_and_refused(arrays, store):
    path = store(arrays)
    content = path.read_bytes()
    for length in range(4, len(content), len(content) // 9):
        path.write_bytes(content[:length])
        assert gemma_scope.recognises(path)
        refused(path, "damaged or no NumPy archive")


def test_other_archives_and_files_are_left_to_others(arrays, store, tmp_path):
    assert not gemma_scope.recognises(store({"W_enc": arrays["W_enc"], "b": arrays["b_enc"]}))
    assert not gemma_scope.recognises(tmp_path)
    torch.save({"W_enc": torch.zeros(2)}, tmp_path / "params.npz")
    assert not gemma_scope.recognises(tmp_path)
    (tmp_path / "params.npz").write_text("{}")
    assert not gemma_scope.recognises(tmp_path)
    assert gemma_scope.recognises(store(arrays).rename(tmp_path / "layer_3.npz"))
