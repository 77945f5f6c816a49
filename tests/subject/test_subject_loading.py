import hashlib
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from autointerp.errors import SubjectError
from autointerp.subject.quiet import quiet_transformers
from autointerp.subject.subject_files import fingerprint_of_folder
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import TINY_FAMILIES, tiny_subject, tiny_tokenizer, write_tiny_subject

TOKENS = torch.tensor([[5, 77, 200, 9]])


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    return write_tiny_subject(tmp_path_factory.mktemp("saved") / "tiny-model", "llama")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "tiny-model"))


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def changed_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("family", sorted(TINY_FAMILIES))
def test_a_saved_subject_comes_back_with_the_same_logits(family, tmp_path):
    loaded = SubjectModel.load(write_tiny_subject(tmp_path / "x", family, seed=4))
    expected = tiny_subject(family, seed=4).read_with_logits(TOKENS, []).logits
    assert torch.equal(loaded.read_with_logits(TOKENS, []).logits, expected)


def test_the_tokenizer_comes_back_too(saved):
    text = "the hé🙂 ing\n"
    loaded = SubjectModel.load(saved)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.decode(ids) == text


def test_type_of_the_weights_is_as_asked(saved):
    subject = SubjectModel.load(saved, dtype=torch.bfloat16)
    assert subject.describe()["dtype"] == "bfloat16"
    assert (
        subject.read(TOKENS, ["blocks.0.hook_resid_pre"])["blocks.0.hook_resid_pre"].dtype == torch.bfloat16
    )


def test_auto_is_the_type_that_the_weights_are_stored_in(folder):
    assert SubjectModel.load(folder, dtype="auto").dtype == torch.float32
    subject = tiny_subject("llama", dtype=torch.bfloat16)
    with quiet_transformers():
        subject.model.save_pretrained(folder)
    assert SubjectModel.load(folder, dtype="auto").describe()["dtype"] == "bfloat16"
    assert SubjectModel.load(folder).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "saved_from", "known"),
    [
        ("EleutherAI/pythia-70m", None, ("EleutherAI/pythia-70m", "pythia-70m")),
        ("pythia-70m", "EleutherAI/pythia-70m", ("pythia-70m", "EleutherAI/pythia-70m")),
        ("mine", "/home/somebody/models/gpt2/", ("mine", "gpt2")),
        ("mine", "C:\\models\\gpt2", ("mine", "gpt2")),
        ("mine", "./mine", ("mine",)),
        ("mine", "", ("mine",)),
        ("mine", ".", ("mine",)),
    ],
)
def test_known_names_are_what_a_checkpoint_may_call_it(name, saved_from, known):
    tiny = tiny_subject("llama")
    subject = SubjectModel(tiny.model, tiny.tokenizer, name=name, sha256="0", saved_from=saved_from)
    assert subject.known_names == known


def test_a_folders_configuration_may_know_where_the_model_came_from(folder, monkeypatch):
    assert SubjectModel.load(folder).known_names == ("tiny-model",)
    monkeypatch.chdir(folder.parent)
    assert SubjectModel.load("./tiny-model").known_names == ("tiny-model",)
    changed_config(folder, _name_or_path="google/gemma-2-2b")
    subject = SubjectModel.load(folder)
    assert subject.known_names == ("tiny-model", "google/gemma-2-2b", "gemma-2-2b")
    subject.name = "demo"
    assert subject.known_names == ("demo", "google/gemma-2-2b", "gemma-2-2b")


def test_the_name_is_the_folders_own_and_the_hash_that_of_its_files(saved):
    description = SubjectModel.load(saved).describe()
    digest = hashlib.sha256()
    for path in sorted(saved.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.stat().st_size.to_bytes(8, "little"))
        digest.update(path.read_bytes())
    assert description["name"] == "tiny-model"
    assert description["revision"] is None
    assert description["sha256"] == digest.hexdigest()
    assert str(saved.parent) not in json.dumps(description)


def test_the_hash_follows_weights_configuration_and_tokenizer_but_no_other_file(folder):
    before = fingerprint_of_folder(folder)
    (folder / "README.md").write_text("hello")
    (folder / "optimizer.bin").write_text("hello")
    assert fingerprint_of_folder(folder) == before
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert fingerprint_of_folder(folder) != before
        (folder / name).write_bytes(content)
    assert fingerprint_of_folder(folder) == before


def test_a_model_in_memory_has_a_hash_of_its_weights():
    assert tiny_subject(seed=1).sha256 == tiny_subject(seed=1).sha256
    assert len({tiny_subject(seed=1).sha256, tiny_subject(seed=2).sha256, tiny_subject("gpt2").sha256}) == 3


def test_tiny_subjects_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    tiny_subject(seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_tiny_family_is_refused_with_the_known_ones():
    with pytest.raises(SubjectError, match="llama"):
        tiny_subject("gpt9")


def test_loading_is_silent_and_leaves_logging_as_it_was(folder, capfd):
    changed_config(folder, bos_token_id=100_000)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SubjectModel.load(folder)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, bars)


# ---- faults -----------------------------------------------------------------------------------------


def assert_refused(path, *parts, **options):
    with pytest.raises(SubjectError) as caught:
        SubjectModel.load(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.remedy
    for part in parts:
        assert part in line


def test_a_path_that_is_not_there(tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere", "no such folder")
    assert_refused(str(tmp_path / "nowhere"), "no such folder")
    assert_refused("./nowhere", "no such folder")


def test_a_file_instead_of_a_folder(folder):
    assert_refused(folder / "config.json", "this is a file", "folder that holds config.json")


def test_an_empty_folder(tmp_path):
    assert_refused(tmp_path, "no config.json")


def test_a_folder_without_configuration(folder):
    (folder / "config.json").unlink()
    assert_refused(folder, "tiny-model", "no config.json")


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"model_type": 3}', '{"hidden_size": 3}'])
def test_a_damaged_configuration(folder, content):
    (folder / "config.json").write_text(content)
    assert_refused(folder, "tiny-model")


def test_an_architecture_that_nobody_knows(folder):
    changed_config(folder, model_type="no_such_model")
    assert_refused(folder, "no_such_model")


def test_a_configuration_that_contradicts_itself(folder):
    changed_config(folder, hidden_size=33, head_dim=None, num_attention_heads=4)
    assert_refused(folder, "hidden size (33)")


def test_a_configuration_with_a_field_of_the_wrong_type(folder):
    changed_config(folder, hidden_size="many")
    assert_refused(folder, "'hidden_size' expected int")


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto_map = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    changed_config(folder, model_type="own", auto_map=auto_map)
    assert_refused(folder, "never run")
    assert not (tmp_path / "ran").exists()


def test_a_model_that_predicts_no_next_token(folder):
    changed_config(folder, model_type="t5", architectures=["T5ForConditionalGeneration"])
    assert_refused(folder, "'t5'", "not causal language models")


def test_a_model_whose_tokens_see_later_ones(tmp_path):
    config = AutoConfig.for_model(
        "bert",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        vocab_size=293,
        is_decoder=False,
    )
    with quiet_transformers():
        model = AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            weight.data.normal_(generator=torch.Generator().manual_seed(0))
        model.save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
    assert_refused(tmp_path, "depend on later tokens")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert_refused(folder, "no weights")


def test_weights_that_were_cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        (folder / "model.safetensors").write_bytes(content[:length])
        assert_refused(folder, "tiny-model")


def test_weights_that_are_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 10)
    assert_refused(folder, "tiny-model")


def test_a_pickle_that_would_run_code(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    call = f"cbuiltins\nopen\n(V{tmp_path / 'ran'}\nVw\ntR.".encode()
    (folder / "pytorch_model.bin").write_bytes(call)
    assert_refused(folder, "tiny-model")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_missing(folder):
    changed_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert_refused(folder, "missing", "model.layers.1.mlp.up_proj.weight")


def test_a_trunk_without_its_head(folder):
    config = AutoConfig.from_pretrained(folder)
    with quiet_transformers():
        AutoModel.from_config(config).save_pretrained(folder)
    assert_refused(folder, "lm_head.weight")


def test_weights_of_another_shape(folder):
    changed_config(folder, intermediate_size=40)
    assert_refused(folder, "another shape", "model.layers.0.mlp.down_proj.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(folder, value):
    name = "model.layers.1.mlp.up_proj.weight"
    changed_weights(folder, lambda weights: weights[name][3, 4].fill_(value))
    assert_refused(folder, name, "NaN or infinity")


def test_weights_that_are_finite_but_lead_to_no_numbers(folder):
    changed_weights(folder, lambda weights: weights["lm_head.weight"].fill_(3e38))
    assert_refused(folder, "tiny-model")


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert_refused(folder, "tokenizer")


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    assert_refused(folder, "tokenizer")


def test_a_device_that_is_not_there(folder):
    assert_refused(folder, "no usable device", device="warp")


def test_a_hub_name_without_a_connection():
    assert_refused("nobody/no-such-model-here", "nobody/no-such-model-here", "cannot be reached")


def test_a_name_that_no_hub_model_can_have():
    assert_refused("no such/model name!", "no such model")


def test_a_hub_model_is_loaded_from_the_files_it_resolves_to(saved, monkeypatch, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        return str(shutil.copytree(saved, tmp_path / commit, dirs_exist_ok=True))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    description = SubjectModel.load("somebody/tiny", revision="v1").describe()
    assert asked == [("somebody/tiny", "v1")]
    assert (description["name"], description["revision"]) == ("somebody/tiny", commit)
    assert description["sha256"] == fingerprint_of_folder(saved)
