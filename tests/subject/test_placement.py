"""A subject whose weights are spread, or left off the device until they are used, obeys the same laws."""

import gc
import tempfile
from pathlib import Path

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file

from autointerp.errors import SubjectError
from autointerp.subject import loading, placement
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_subject, write_tiny_subject

BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "gemma2": "model.layers"}
AROUND = {
    "llama": ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"),
    "gemma2": ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"),
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"),
}
SITES = (
    *("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"),
    *("attn.hook_z", "mlp.hook_in", "mlp.hook_post", "mlp.hook_out", "ln2.hook_normalized"),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("subjects")
    return {family: write_tiny_subject(root / family, family) for family in BLOCKS}


def partly_on_disk(folder, family):
    """The middle block stays on disk; everything else is on the CPU."""
    table = dict.fromkeys([*AROUND[family], *(f"{BLOCKS[family]}.{layer}" for layer in range(3))], "cpu")
    return SubjectModel.load(folder, device_map=table | {f"{BLOCKS[family]}.1": "disk"})


def all_on_disk(folder, _family):
    return SubjectModel.load(folder, device_map={"": "disk"})


def fetched_for_each_use(folder, family):
    loaded = SubjectModel.load(folder)
    accelerate.cpu_offload(loaded.model, execution_device="cpu")
    return SubjectModel(loaded.model, loaded.tokenizer, name=family, sha256=loaded.sha256)


@pytest.mark.parametrize("family", sorted(BLOCKS))
@pytest.mark.parametrize("place", [partly_on_disk, all_on_disk, fetched_for_each_use])
def test_laws_hold_wherever_the_weights_are(folders, family, place, tokens, mask):
    reference, subject = SubjectModel.load(folders[family]), place(folders[family], family)
    assert any(weight.device.type == "meta" for weight in subject.model.parameters())
    sites = [f"blocks.{layer}.{name}" for layer in (0, 1, 2) for name in SITES]
    expected = reference.read_with_logits(tokens, sites, mask)
    found = subject.read_with_logits(tokens, sites, mask)
    assert torch.equal(found.logits, expected.logits)
    for site in sites[::3]:
        value = found.activations[site]
        assert torch.equal(value, expected.activations[site]), site
        assert torch.equal(subject.logits_from(site, value, found), found.logits), site
        again = subject.logits_from(site, value + 0.5, found)
        assert torch.equal(again, reference.logits_from(site, value + 0.5, expected)), site
        assert subject.canonical_site(site) == reference.canonical_site(site)


def test_what_was_spread_says_where_it_lies(folders):
    plain, spread = SubjectModel.load(folders["llama"]), partly_on_disk(folders["llama"], "llama")
    assert spread.describe() == plain.describe() | {"device_map": "cpu, disk"}
    assert spread.device.type == "cpu"
    assert spread.site_device("blocks.1.mlp.hook_in").type == "cpu"


def test_spreading_is_silent(folders, capfd):
    partly_on_disk(folders["llama"], "llama")
    assert capfd.readouterr() == ("", "")


def test_auto_is_a_device_map_too(folders, tokens):
    plain = SubjectModel.load(folders["llama"])
    spread = SubjectModel.load(folders["llama"], device_map="auto")
    logits = spread.read_with_logits(tokens, []).logits.to(plain.device)
    torch.testing.assert_close(logits, plain.read_with_logits(tokens, []).logits, atol=1e-3, rtol=1e-3)


def test_a_folder_for_weights_on_disk_goes_with_the_model(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subject = SubjectModel.load(folders["llama"], device_map={"": "disk"})
    assert list(tmp_path.iterdir())
    del subject
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_loading_that_fails_leaves_no_folder_behind(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = tmp_path / "broken"
    write_tiny_subject(broken, "llama")
    (broken / "model.safetensors").write_bytes(b"no weights")
    assert_refused(broken, "broken", device_map={"": "disk"})
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_weights_on_disk_are_looked_at_too(tmp_path):
    folder = write_tiny_subject(tmp_path / "x", "llama")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert_refused(folder, "model.layers.1.mlp.up_proj.weight holds NaN", device_map={"": "disk"})


def test_a_model_that_is_not_in_memory_is_not_identified_by_its_weights():
    subject = tiny_subject("llama")
    accelerate.cpu_offload(subject.model, execution_device="cpu")
    with pytest.raises(SubjectError, match=r"is not in memory.*give `sha256`"):
        loading.fingerprint_of_model(subject.model)


# ---- faults -----------------------------------------------------------------------------------------


def assert_refused(path, *parts, **options):
    with pytest.raises(SubjectError) as caught:
        SubjectModel.load(path, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ("fast", "no device map 'fast'; use auto"),
        ({}, "the device map is empty"),
        ({"": "warp"}, "no usable device 'warp'"),
        ({"": "meta"}, "no usable device 'meta'"),
        ({"": 99}, "no usable device 99"),
        ({"": "cpu", "model.layers.x": "cpu"}, "names 'model.layers.x'"),
        ({"model.layers.0": "cpu"}, "leaves weights out"),
        ({"": "cpu", "model.layers.0": "disk"}, "check device map"),
    ],
)
def test_a_device_map_that_does_not_fit_is_refused(folders, device_map, message):
    assert_refused(folders["llama"], message, device_map=device_map)


def test_without_accelerate_a_device_map_says_what_to_install(folders, monkeypatch):
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    assert_refused(folders["llama"], "a device map needs", "pip install accelerate", device_map="auto")
    assert SubjectModel.load(folders["llama"]).device.type == "cpu"


def test_a_place_without_numbers_is_no_device(folders):
    assert_refused(Path(folders["llama"]), "no usable device 'meta'", device="meta")
