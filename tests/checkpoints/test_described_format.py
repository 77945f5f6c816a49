"""Descriptions of plain state dictionaries: what each key does, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.formats import described, gemma_scope, gemma_scope_2, openai
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.errors import CheckpointError

WIDTH, LATENTS = 6, 30
FIXTURES = Path(__file__).parent / "fixtures"
TEXT = """
weights = "model.safetensors"
subtract = "decoder_bias"

[tensors]
encoder_weight = { name = "E", axes = "latent d_model" }
encoder_bias = "e"
decoder_weight = { name = "D", axes = "d_out latent" }
decoder_bias = { name = "d", axes = "d_out" }

[activation]
kind = "relu"
"""


@pytest.fixture
def tensors(draw):
    return {"E": draw(LATENTS, WIDTH), "e": draw(LATENTS), "D": draw(WIDTH, LATENTS), "d": draw(WIDTH)}


@pytest.fixture
def describe(tmp_path, tensors):
    """A function that stores the description with replacements (old, new), and the weights with changes."""

    def store(*replacements, **changes):
        text = TEXT
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "autoencoder.toml").write_text(text, encoding="utf-8")
        safetensors.torch.save_file(tensors | changes, tmp_path / "model.safetensors")
        return tmp_path

    return store


def refused(path, message):
    assert described.recognises(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        described.read(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000 and (str(path) in line or not caught.value.where)


def test_the_folder_and_the_file_are_the_same_checkpoint(describe, tensors, draw):
    folder = describe()
    sae, absent = described.read(folder)
    again, _ = described.read(folder / "autoencoder.toml")
    x = draw(4, WIDTH)
    z = torch.relu((x - tensors["d"]) @ tensors["E"].T + tensors["e"])
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(again.reconstruct(x), z @ tensors["D"].T + tensors["d"])
    assert absent == ("site", "subject", "context_length", "prepend_bos")
    assert described.files(folder) == described.files(folder / "autoencoder.toml")
    assert described.files(folder) == (folder / "autoencoder.toml", folder / "model.safetensors")


def test_a_description_may_have_any_name(describe):
    folder = describe()
    (folder / "autoencoder.toml").rename(folder / "run 7.toml")
    assert described.recognises(folder / "run 7.toml") and not described.recognises(folder)
    assert described.read(folder / "run 7.toml")[0].latent_count == LATENTS


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".npz", ".safetensors"])
def test_the_weights_may_lie_below_in_any_kind_of_file(describe, tensors, suffix):
    folder = describe(('"model.safetensors"', f'"weights/step 5{suffix}"'))
    file = folder / "weights" / f"step 5{suffix}"
    file.parent.mkdir()
    if suffix == ".npz":
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif suffix == ".safetensors":
        safetensors.torch.save_file(tensors, file)
    else:
        torch.save(tensors, file)
    sae, _ = described.read(folder)
    assert torch.equal(sae.decoder_weight, tensors["D"].T)
    assert described.files(folder)[1] == file


@pytest.mark.parametrize(
    ("section", "more", "expected"),
    [
        ('kind = "relu"', {}, ReLU()),
        ('kind = "identity"', {}, Identity()),
        ('kind = "topk"\nk = 5', {}, TopK(5)),
        ('kind = "topk"\nk = 5\npostact = "identity"', {}, TopK(5, "identity")),
        ('kind = "abstopk"\nk = 5', {}, AbsTopK(5)),
        ('kind = "groupmax"\nk = 5', {}, GroupMax(5, LATENTS)),
    ],
)
def test_activations(describe, section, more, expected):
    assert described.read(describe(('kind = "relu"', section), **more))[0].activation == expected


def with_tensors(*lines, kind):
    return (("[activation]", "\n".join([*lines, "[activation]"])), ('"relu"', f'"{kind}"'))


def test_thresholds_may_be_one_for_each_or_one_for_all(describe, draw):
    each = draw(LATENTS)
    path = describe(*with_tensors('threshold = "t"', kind="jumprelu"), t=each)
    activation = described.read(path)[0].activation
    assert isinstance(activation, JumpReLU) and torch.equal(activation.threshold, each)
    path = describe(
        *with_tensors('threshold = { name = "t", axes = "" }', kind="jumprelu"), t=torch.tensor(0.25)
    )
    assert torch.equal(described.read(path)[0].activation.threshold, torch.full((LATENTS,), 0.25))


@pytest.mark.parametrize("name", ["magnitude_scale", "r_mag"])
def test_gates_take_a_scale_or_its_logarithm(describe, draw, name):
    lines = ('gate_bias = "g"', f'{name} = "s"', 'magnitude_bias = "m"')
    parts = {"g": draw(LATENTS), "s": draw(LATENTS).abs(), "m": draw(LATENTS)}
    gate = described.read(describe(*with_tensors(*lines, kind="gated"), **parts))[0].activation
    assert isinstance(gate, Gated) and torch.equal(gate.gate_bias, parts["g"])
    assert torch.equal(gate.magnitude_scale, parts["s"].exp() if name == "r_mag" else parts["s"])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('kind = "none"', InputNormalization()),
        ('kind = "layer_norm"', InputNormalization("layer_norm", eps=1e-5)),
        ('kind = "layer_norm"\neps = 0.001', InputNormalization("layer_norm", eps=0.001)),
        ('kind = "constant_norm"', InputNormalization("constant_norm")),
        ('kind = "scale"\nscale = 2', InputNormalization("scale", scale=2.0, output_scale=2.0)),
        (
            'kind = "scale"\nscale = 2\noutput_scale = 0.5',
            InputNormalization("scale", scale=2.0, output_scale=0.5),
        ),
    ],
)
def test_normalizations(describe, section, expected):
    path = describe(("[activation]", f"[normalization]\n{section}\n[activation]"))
    assert described.read(path)[0].normalization == expected


def test_what_is_subtracted_is_what_was_said(describe, tensors, draw):
    centre = draw(WIDTH)
    assert torch.equal(described.read(describe())[0].pre_bias, tensors["d"])
    assert described.read(describe(('"decoder_bias"', '"nothing"')))[0].pre_bias is None
    path = describe(('"decoder_bias"', '"pre_bias"'), ("[tensors]", '[tensors]\npre_bias = "c"'), c=centre)
    assert torch.equal(described.read(path)[0].pre_bias, centre)


def test_zeros_stand_for_what_the_weights_do_not_have(describe, tensors):
    del tensors["e"], tensors["d"]
    path = describe(
        ('"e"', "{ zeros = true }"), ('{ name = "d", axes = "d_out" }', "{ zeros = true }")
    )  # fmt: skip
    sae, _ = described.read(path)
    assert torch.equal(sae.encoder_bias, torch.zeros(LATENTS))
    assert torch.equal(sae.decoder_bias, torch.zeros(WIDTH)) and sae.pre_bias is not None


def test_origin_and_tensors_without_meaning(describe):
    head = """
site = "blocks.3.hook_resid_pre"
subject = "gpt2"
context_length = 64
prepend_bos = true
ignore = ["step", "dead"]
[tensors]"""
    path = describe(("[tensors]", head), step=torch.tensor(3), dead=torch.zeros(2))
    sae, absent = described.read(path)
    said = sae.metadata
    assert (said.site, said.subject, said.context_length, said.prepend_bos) == (
        "blocks.3.hook_resid_pre", "gpt2", 64, True,
    )  # fmt: skip
    assert absent == () and said.output_site is None


def test_another_output_width_needs_an_output_site(describe, draw):
    other = {"D": draw(4, LATENTS), "d": draw(4)}
    nothing = ('"decoder_bias"', '"nothing"')
    refused(describe(nothing, **other), r"'D' has shape \(4, 30\), not \(d_out = 6")
    site = ("[tensors]", 'output_site = "blocks.1.hook_mlp_out"\n[tensors]')
    sae, _ = described.read(describe(nothing, site, **other))
    assert sae.is_transcoder and (sae.d_model, sae.d_out) == (WIDTH, 4)
    refused(describe(site, **other), "bias has another width than the input")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("subtract", "substract", "'substract' is unknown in the description; the nearest are subtract"),
        ("encoder_bias", "encoder_biass", "unknown in tensors; the nearest are encoder_bias"),
        ("kind", "kid", "'kid' is unknown in activation; the nearest are kind"),
        ("relu", "rellu", "'kind' is 'rellu'; choose one of relu, identity"),
        ('kind = "relu"', "", "'kind' is missing; choose one of relu"),
        ('kind = "relu"', 'kind = "relu"\nk = 3', "'k' is unknown in activation of kind 'relu'"),
        ('"relu"', '"topk"', "activation of kind 'topk' without k"),
        ('"relu"', '"topk"\nk = 0', "'k' should be at least 1"),
        ('"relu"', '"topk"\nk = 31', "k = 31, more than the 30 latents"),
        ('"relu"', '"topk"\nk = "5"', "'k' should be a whole number"),
        ('"relu"', '"topk"\nk = 5\npostact = "gelu"', "'postact' is 'gelu'; choose one of relu, identity"),
        ('"relu"', '"groupmax"\nk = 7', "cannot deal 30 latents into 7 groups"),
        ('"relu"', '"jumprelu"', "tensors.threshold is missing; say e.g. threshold = "),
        ('"relu"', '"gated"', "tensors.gate_bias is missing"),
        ('subtract = "decoder_bias"\n', "", "'subtract' is missing; choose one of decoder_bias, pre_bias"),
        ('"decoder_bias"', '"b_dec"', "'subtract' is 'b_dec'; choose one of"),
        ('"decoder_bias"', '"pre_bias"', "tensors.pre_bias is missing"),
        ("[tensors]", '[tensors]\npre_bias = "d"', "pre_bias is described, but 'activation' and 'subtract'"),
        ("[tensors]", '[tensors]\nthreshold = "e"', "tensors.threshold is described, but"),
        ("[activation]", "[other]", "'other' is unknown in the description"),
        ('[activation]\nkind = "relu"', "", r"no section \[activation\]"),
        ('encoder_bias = "e"\n', "", "tensors.encoder_bias is missing; .* zeros = true"),
        ('"e"', "{ zeros = false }", "'zeros' is unknown in tensors.encoder_bias"),
        ('"e"', '{ zeros = true, name = "e" }', "'zeros' is unknown in tensors.encoder_bias"),
        ('"e"', "7", "'encoder_bias' should be an object"),
        ('"e"', "{ name = 7 }", "'name' should be a text"),
        ('"e"', '"enc.bias"', "tensor 'enc.bias' is missing, there are 'D', 'E', 'd', 'e'"),
        ('"e"', '"d"', "tensor 'd' has shape"),
        ('name = "E", ', "", "tensors.encoder_weight has no name; e.g. encoder_weight = "),
        (', axes = "latent d_model"', "", "says the axes None; say latent and d_model in the order"),
        ('"latent d_model"', '"latents d_model"', "encoder_weight says the axes 'latents d_model'"),
        ('"latent d_model"', '"d_model latent"', "has shape"),
        ('"d_out latent"', '"d_model latent"', "say latent and d_out in the order of the file"),
        ('"d_out"', '""', "decoder_bias says the axes ''"),
        ("[tensors]", 'ignore = "step"\n[tensors]', "'ignore' should be a list of names"),
        ("[tensors]", "context_length = 0\n[tensors]", "'context_length' should be at least 1"),
        ("[tensors]", 'prepend_bos = "no"\n[tensors]', "'prepend_bos' should be true or false"),
        ("[tensors]", "site = 3\n[tensors]", "'site' should be a text"),
        ("[activation]", "[normalization]\n[activation]", "'kind' is missing; choose one of none"),
        ("[activation]", '[normalization]\nkind = "scale"\n[activation]', "'scale' without scale"),
        ("[activation]", '[normalization]\nkind = "scale"\nscale = 0\n[activation]', "must be positive"),
        ("[activation]", '[normalization]\nkind = "scale"\nscale = inf\n[activation]', "should be a number"),
        ("[activation]", '[normalization]\nkind = "none"\neps = 1\n[activation]', "'eps' is unknown"),
        ("[tensors]", "[tensors", "no readable TOML"),
        ("[tensors]", "subtract = 1\n[tensors]", "no readable TOML"),
        ("weights", "# weights", "'weights' is missing"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_line(describe, old, new, message):
    path = describe()
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    (path / "autoencoder.toml").write_text(text, encoding="utf-8")
    refused(path, message)


def test_what_the_weights_hold_beside_it_must_be_named(describe):
    refused(describe(W_skip=torch.zeros(WIDTH, WIDTH)), "unknown tensors 'W_skip'")


def test_scales_must_be_positive(describe):
    path = describe(("[activation]", 'latent_scale = "s"\n[activation]'), s=torch.zeros(LATENTS))
    with pytest.raises(CheckpointError, match="must be positive"):
        described.read(path)


def test_both_a_magnitude_scale_and_its_logarithm_are_one_too_many(describe, draw):
    lines = ('gate_bias = "g"', 'r_mag = "g"', 'magnitude_scale = "g"', 'magnitude_bias = "g"')
    refused(describe(*with_tensors(*lines, kind="gated"), g=draw(LATENTS)), "tensors.r_mag is described, but")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors", "sub/../../model.safetensors", "/etc/model.safetensors", "a\\u0000.pt",
        "C:\\\\model.safetensors", "C:model.safetensors", "..\\\\model.safetensors",
        "\\\\\\\\host\\\\share\\\\a.pt",
    ],
)  # fmt: skip
def test_weights_outside_of_the_folder_are_refused(describe, tmp_path, tensors, name):
    safetensors.torch.save_file(tensors, tmp_path.parent / "model.safetensors")
    refused(describe(('"model.safetensors"', f'"{name}"')), "should be a path inside")


@pytest.mark.parametrize("link", ["model.safetensors", "."])
def test_links_that_lead_out_are_refused_and_links_within_are_not(describe, tmp_path, link):
    folder, elsewhere = describe(), tmp_path / "elsewhere"
    inside = folder / "sub"
    inside.mkdir()
    elsewhere.mkdir()
    (folder / "model.safetensors").rename(elsewhere / "model.safetensors")
    (folder / "autoencoder.toml").rename(inside / "autoencoder.toml")
    if link == ".":
        (inside / "linked").symlink_to(elsewhere)
        text = (inside / "autoencoder.toml").read_text().replace('"model', '"linked/model')
        (inside / "autoencoder.toml").write_text(text)
    else:
        (inside / link).symlink_to(elsewhere / link)
    refused(inside, "leads out of the description's folder")
    (elsewhere / "model.safetensors").rename(inside / "real.safetensors")
    (inside / "model.safetensors").unlink(missing_ok=True)
    (inside / "model.safetensors").symlink_to(inside / "real.safetensors")
    (inside / "autoencoder.toml").write_text(TEXT)
    assert described.read(inside)[0].d_model == WIDTH


@pytest.mark.parametrize(
    ("snapshot", "target", "is_read"),
    [
        ("models--o--n/snapshots/c0/a", "models--o--n/blobs/b1", True),
        ("models--o--n/snapshots/c0", "models--o--n/blobs/b1", True),
        ("models--o--n/snapshots/c0/a", "models--o--other/blobs/b1", False),
        ("models--o--n/snapshots/c0/a", "models--o--n/snapshots/c1/b1", False),
        ("models--o--n/snapshots/c0/a", "b1", False),
        ("models--o--n/a", "models--o--n/blobs/b1", False),
        ("other/snapshots/c0/a", "other/blobs/b1", False),
    ],
)
def test_in_the_hubs_cache_weights_are_links_into_the_same_repository(
    describe, tmp_path, snapshot, target, is_read
):
    folder, cache = describe(), tmp_path / "cache"
    inside, blob = cache / snapshot, cache / target
    inside.mkdir(parents=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").rename(blob)
    (folder / "autoencoder.toml").rename(inside / "autoencoder.toml")
    (inside / "model.safetensors").symlink_to(blob)
    if is_read:
        assert described.read(inside)[0].d_model == WIDTH
        assert described.files(inside) == (inside / "autoencoder.toml", inside / "model.safetensors")
    else:
        refused(inside, "leads out of the description's folder")


def test_blobs_that_lead_out_of_the_cache_are_refused(describe, tmp_path):
    folder, repository = describe(), tmp_path / "cache/models--o--n"
    inside, elsewhere = repository / "snapshots/c0", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "model.safetensors").rename(elsewhere / "b1")
    (folder / "autoencoder.toml").rename(inside / "autoencoder.toml")
    (repository / "blobs").symlink_to(elsewhere)
    (inside / "model.safetensors").symlink_to(repository / "blobs/b1")
    refused(inside, "leads out of the description's folder")


def test_absent_and_unknown_weights_are_refused(describe, tmp_path):
    refused(describe(('"model.safetensors"', '"modell.safetensors"')), "there is no weights file")
    (tmp_path / "model.onnx").write_bytes(b"")
    refused(describe(('"model.safetensors"', '"model.onnx"')), "of no known kind; known are .safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(describe(('"model.safetensors"', '"list.pt"')), "holds a list, no state dictionary")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[tensors]\nx = \xff", "no readable TOML"),
        (b"[tensors]\nx = " + b"[" * 100_000, "no readable TOML"),
        (b"[tensors]\nx = 1" + b"0" * 10_000, "no readable TOML"),
        (b"[tensors]\n" + b"#" * 2**20, "more than 1 MiB"),
        (b"tensors = 3", "'tensors' should be an object|'weights' is missing"),
        (b"", "no section"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path, content, message):
    (tmp_path / "autoencoder.toml").write_bytes(content)
    refused(tmp_path, message)


def test_other_toml_files_and_folders_are_left_alone(tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text('[subject]\nmodel = "x"\n[metrics]\nnote = "[tensors]"\n')
    assert not described.recognises(suite) and not described.recognises(tmp_path)
    suite.rename(tmp_path / "suite.txt").write_text(TEXT)
    assert not described.recognises(tmp_path / "suite.txt")


def test_the_example_of_the_documentation_loads(describe, tensors, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "formats-described.md").read_text(encoding="utf-8")
    describe()
    (tmp_path / "autoencoder.toml").write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    names = {"enc.weight": tensors["E"], "enc.bias": tensors["e"], "dec.weight": tensors["D"]}
    wide = {
        name: torch.cat([tensor, tensor], dim=-1 if name == "dec.weight" else 0)
        for name, tensor in names.items()
    }
    safetensors.torch.save_file({**wide, "step": torch.tensor(1)}, tmp_path / "model.safetensors")
    sae, absent = described.read(tmp_path)
    assert sae.architecture == "topk(k=32)" and sae.latent_count == 2 * LATENTS and absent == ()


CASES = sorted(FIXTURES.glob("*/*/fixture.json"))


@pytest.mark.parametrize("facts", CASES, ids=lambda facts: "/".join(facts.parts[-3:-1]))
def test_none_of_these_formats_claims_what_is_anothers(facts):
    library = facts.parts[-3]
    path = facts.parent / json.loads(facts.read_text())["checkpoint"]
    ours = {chosen.NAME: chosen for chosen in (openai, gemma_scope, gemma_scope_2, described)}
    claimed = [name for name, chosen in ours.items() if chosen.recognises(path)]
    assert claimed == ([library] if library in ours else [])
