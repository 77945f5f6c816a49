"""The user's own code as a dictionary: what names it, what it may do wrong, how it is identified."""

import importlib
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from autointerp.checkpoints.activation_functions import JumpReLU, ReLU
from autointerp.checkpoints.formats.custom import content_sha256, from_factory, is_factory_name
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

GOOD = """
import torch
from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder

def make():
    ones = torch.ones(5, 3)
    return SparseAutoencoder(ones, torch.zeros(5), ones, torch.zeros(3), None, ReLU())

def misfit():
    ones = torch.ones(5, 3)
    return SparseAutoencoder(ones, torch.zeros(4), ones, torch.zeros(3), None, ReLU())

def asks(path):
    return make()

def stops():
    raise SystemExit(3)

def breaks():
    raise ValueError("two\\nlines" * 100)

def imports():
    import my_absent_dependency

class Other:
    pass

number = 7
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a module of the package `their_code`."""
    (tmp_path / "their_code").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def write(content, name="made"):
        (tmp_path / "their_code" / f"{name}.py").write_text(content)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "their_code"]:
        del sys.modules[name]


@pytest.mark.parametrize("text", ["package.module:factory", "module:make", "a.b.c:D", "_x:_y", "mödul:größe"])
def test_names_of_factories(text):
    assert is_factory_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "module", "module:", ":make", "package.module", "a:b:c", "a..b:c", ".a:b", "a.:b", "a.b:c.d",
        "a/b:c", "a b:c", "a:b()", "a-b:c", "1a:b", "a:1", "class:make", "a.import:b", "a:lambda", "a:b\n",
        "C:sae", "c:folder", "C:\\sae", "hf:model", "demo:topk", "https://x:y", "a:b@c",
    ],
)  # fmt: skip
def test_other_texts_are_none(text):
    assert not is_factory_name(text)


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_factory_name("their_code:make")
    (tmp_path / "their_code:make").mkdir()
    assert not is_factory_name("their_code:make")
    with pytest.raises(CheckpointError, match="no name of a factory"):
        from_factory("their_code:make")


def test_what_the_factory_makes_is_the_dictionary(package):
    package(GOOD)
    sae = from_factory("their_code.made:make")
    assert (sae.latent_count, sae.d_model) == (5, 3)
    assert content_sha256(sae) == content_sha256(from_factory("their_code.made:make"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_code.absent:make", "importing their_code.absent raised ModuleNotFoundError .* PYTHONPATH"),
        ("my_absent_package:make", "importing my_absent_package raised ModuleNotFoundError"),
        ("their_code.made:mak", "their_code.made has no function mak; define it, without arguments"),
        ("their_code.made:number", "has no function number"),
        ("their_code.made:asks", "asks\\(\\) raised TypeError .*'path'"),
        ("their_code.made:stops", "stops\\(\\) raised SystemExit"),
        ("their_code.made:breaks", "breaks\\(\\) raised ValueError"),
        ("their_code.made:imports", "imports\\(\\) raised ModuleNotFoundError .*my_absent_dependency"),
        ("their_code.made:Other", "Other\\(\\) returned a Other; return an autointerp.*SparseAutoencoder"),
        ("their_code.made:misfit", "misfit\\(\\) raised .*"),
        ("their_code/made:make", "no name of a factory"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(package, name, message):
    package(GOOD)
    with pytest.raises(CheckpointError, match=message) as caught:
        from_factory(name)
    line = str(caught.value)
    assert line.startswith(f"{name}: ") and "\n" not in line and "; " in line and len(line) < 500


@pytest.mark.parametrize("content", ["def (", "1 / 0", "import sys; sys.exit('bye')", "\0"])
def test_a_module_that_cannot_be_imported_is_one_line(package, content):
    package(content, "broken")
    with pytest.raises(CheckpointError, match=r"importing their_code.broken raised") as caught:
        from_factory("their_code.broken:make")
    assert "\n" not in str(caught.value)


def test_an_interruption_is_not_taken_for_a_mistake(package):
    package("def make():\n    raise KeyboardInterrupt", "slow")
    with pytest.raises(KeyboardInterrupt):
        from_factory("their_code.slow:make")


def test_the_hash_is_of_the_numbers_not_of_how_they_lie(autoencoder):
    sae = autoencoder()
    view = replace(sae, encoder_weight=sae.encoder_weight.T.contiguous().T)
    assert not view.encoder_weight.is_contiguous()
    assert content_sha256(view) == content_sha256(sae)
    assert content_sha256(replace(sae, metadata=CheckpointMetadata(site="x"))) == content_sha256(sae)
    assert len(content_sha256(sae)) == 64


def test_blocks_do_not_change_the_hash(autoencoder, monkeypatch):
    sae = autoencoder()
    whole = content_sha256(sae)
    monkeypatch.setattr("autointerp.checkpoints.formats.custom._BLOCK_BYTES", 50)
    assert content_sha256(sae) == whole


def test_every_part_changes_the_hash(autoencoder):
    sae = autoencoder()
    ones = torch.ones(sae.latent_count)
    others = [
        sae,
        *(
            replace(sae, **{name: getattr(sae, name) + 1})
            for name in ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias", "pre_bias")
        ),
        replace(sae, pre_bias=None),
        replace(sae, latent_scale=ones),
        replace(sae, skip_weight=torch.zeros(sae.d_out, sae.d_model)),
        replace(sae, normalization=InputNormalization("layer_norm")),
        replace(sae, normalization=InputNormalization("layer_norm", eps=1e-6)),
        replace(sae, activation=TopK(6)),
        replace(sae, activation=TopK(5, weight=ones)),
        replace(sae, activation=ReLU()),
        replace(sae, activation=JumpReLU(ones)),
        replace(sae, activation=JumpReLU(2 * ones)),
        sae.to(dtype=torch.bfloat16),
    ]
    assert len({content_sha256(other) for other in others}) == len(others)


def test_a_part_without_bytes_is_refused(autoencoder):
    @dataclass(frozen=True, eq=False)
    class Odd(ReLU):
        table: object = None

    sae = replace(autoencoder(), activation=Odd({"a": 1}))
    with pytest.raises(CheckpointError, match=r"activation\.table is a dict, which has no bytes"):
        content_sha256(sae)
    assert content_sha256(replace(sae, activation=Odd(3))) != content_sha256(replace(sae, activation=Odd(4)))
