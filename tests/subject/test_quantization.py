"""Quantised subjects: packed weights, what is passed to transformers, and what is said about them.

The packages that quantise are no part of the tests' environment: a stand-in packs weights as they do.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from autointerp.errors import SubjectError
from autointerp.subject import loading, quantization
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_subject, write_tiny_subject


class PackedLinear(nn.Module):
    """A linear layer with rows of whole numbers from -127 to 127 and one scale for each, as a flat array."""

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        packed = (weight / scale).round().to(torch.int8)
        self.packed = nn.Parameter(packed.flatten(), requires_grad=False)
        self.register_buffer("scale", scale)

    def forward(self, x):
        weight = self.packed.view(self.scale.shape[0], -1).float() * self.scale
        return nn.functional.linear(x, weight.to(x.dtype))


@pytest.fixture(scope="module")
def packed():
    model = tiny_subject("gemma2").model
    for block in model.model.layers:
        for path, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, name = path.rpartition(".")
                setattr(block.get_submodule(parent), name, PackedLinear(module))
    return SubjectModel(model, tiny_subject("gemma2").tokenizer, name="packed")


def test_sites_of_packed_modules_are_found_read_and_replaced(packed, tokens, mask):
    names = ("attn.hook_z", "mlp.hook_in", "mlp.hook_post", "mlp.hook_out", "hook_mlp_out", "hook_resid_mid")
    sites = [f"blocks.1.{name}" for name in names]
    seen = {}
    block = packed.model.model.layers[1]
    for name, module in (("attn.hook_z", block.self_attn.o_proj), ("mlp.hook_post", block.mlp.down_proj)):
        module.register_forward_pre_hook(lambda _m, args, name=name: seen.__setitem__(name, args[0].clone()))
    clean = packed.read_with_logits(tokens, sites, mask)
    for name, value in list(seen.items()):
        assert torch.equal(clean.activations[f"blocks.1.{name}"], value), name
    for site in sites:
        value = clean.activations[site]
        assert torch.equal(packed.logits_from(site, value, clean), clean.logits), site
        changed = packed.logits_from(site, value + 0.5, clean)
        assert torch.equal(changed, packed.logits_from(site, value + 0.5, tokens, mask)), site


def test_packed_weights_can_be_checked_and_identified(packed):
    loading._check_weights(packed.model, "packed")
    assert loading.fingerprint_of_model(packed.model) == packed.sha256
    assert packed.describe()["dtype"] == "float32"


def test_weights_of_a_class_of_their_own_are_looked_into():
    class Holder(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.weight = nn.Parameter(TwoTensor(torch.ones(2, 2), scale), requires_grad=False)

    loading._check_weights(Holder(torch.ones(2, 2)), "x")
    with pytest.raises(SubjectError, match="weight weight holds NaN"):
        loading._check_weights(Holder(torch.full((2, 2), float("inf"))), "x")


def test_weights_of_eight_bits_are_checked():
    class Holder(nn.Module):
        def __init__(self, value):
            super().__init__()
            weight = torch.full((2, 2), value).to(torch.float8_e4m3fn)
            self.weight = nn.Parameter(weight, requires_grad=False)

    loading._check_weights(Holder(2.0), "x")
    with pytest.raises(SubjectError, match="holds NaN"):
        loading._check_weights(Holder(float("nan")), "x")


# ---- loading ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return write_tiny_subject(tmp_path / "tiny", "llama")


@pytest.fixture
def asked(monkeypatch):
    """What transformers was asked for; it then loads the model without quantising it."""
    options = {}
    original = loading._load_model

    def load(files, config, given):
        options.update(given)
        return original(files, config, {"dtype": given["dtype"]})

    monkeypatch.setattr(loading, "_load_model", load)
    return options


@pytest.mark.parametrize(("name", "bits"), [("bitsandbytes-4bit", 4), ("bitsandbytes-8bit", 8)])
def test_a_short_name_asks_transformers_to_quantise(folder, asked, name, bits):
    SubjectModel.load(folder, quantization=name)
    config = asked["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (bits == 4, bits == 8)
    assert asked["device_map"] == {"": torch.device("cpu")}


def test_a_table_asks_for_what_a_configuration_would_say(folder, asked):
    table = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    SubjectModel.load(folder, quantization=table, device_map="auto", dtype="auto")
    assert asked["quantization_config"].bnb_4bit_quant_type == "nf4"
    assert (asked["device_map"], asked["dtype"]) == ("auto", "auto")


def test_without_being_asked_nothing_is_quantised_or_spread(folder, asked):
    SubjectModel.load(folder)
    assert asked == {"dtype": torch.float32}


def refusal(folder, **options):
    with pytest.raises(SubjectError) as caught:
        SubjectModel.load(folder, **options)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("request_", ["int3", {}, {"quant_method": "none such"}, {"bits": 4}])
def test_what_transformers_does_not_know_is_refused_with_what_it_takes(folder, request_):
    assert "bitsandbytes-4bit" in refusal(folder, quantization=request_)


def stated(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_that_says_how_it_is_quantised_is_loaded_so(folder, monkeypatch):
    stated(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    plain = tiny_subject("llama").model
    seen = []

    def load(files, config, options):
        seen.append((config.quantization_config["load_in_8bit"], options))
        return plain

    monkeypatch.setattr(loading, "_load_model", load)
    SubjectModel.load(folder)
    # Packed weights are put in their place at once, since they may not be moved.
    assert seen == [(True, {"dtype": torch.float32, "device_map": {"": torch.device("cpu")}})]


def test_a_package_that_is_missing_is_named(folder):
    stated(folder, quantization_config={"quant_method": "aqlm", "in_group_size": 8, "nbits_per_codebook": 8})
    line = refusal(folder)
    assert "aqlm" in line
    assert "install what it names" in line


def test_what_is_quantised_already_is_not_quantised_again(folder):
    stated(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    assert "quantised already" in refusal(folder, quantization="bitsandbytes-4bit")


def test_an_empty_statement_about_quantisation_means_none(folder):
    stated(folder, quantization_config=None)
    assert "quantization" not in SubjectModel.load(folder).describe()


# ---- what is said about it --------------------------------------------------------------------------


def configured(settings):
    return SimpleNamespace(config=SimpleNamespace(quantization_config=settings))


def test_a_description_names_the_method_and_what_is_not_its_default():
    from transformers import BitsAndBytesConfig

    described = quantization.describe_quantization
    assert described(SimpleNamespace(config=SimpleNamespace())) is None
    assert described(configured(None)) is None
    assert described(configured(BitsAndBytesConfig(load_in_4bit=True))) == "bitsandbytes load_in_4bit=true"
    table = {"quant_method": "gptq", "bits": 4, "sym": False, "groups": {"a": [1]}, "name": "x"}
    assert described(configured(table)) == 'gptq bits=4 groups={"a":[1]} name=x'


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # gpt2's head shares its weight with the embedding
def test_packed_weights_count_for_all_that_they_stand_for(family):
    subject = tiny_subject(family)
    expected = subject.parameter_count
    model = tiny_subject(family).model
    model.config.quantization_config = {"quant_method": "standing in"}
    for block in model.get_submodule(subject.blocks.path):
        for weight in block.parameters():
            weight.data = weight.data.flatten()[::2].clone()
    assert quantization.parameter_count(model) == expected
    assert hasattr(model.config, "quantization_config")
