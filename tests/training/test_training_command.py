"""`autointerp train` end to end on a tiny subject, and what it refuses before it begins."""

import json

import pytest

from autointerp.checkpoints.load import read_checkpoint
from autointerp.errors import BadInputError, CheckpointError
from autointerp.testing.tiny_subject import write_tiny_subject
from autointerp.training.command import corpus_kind, normalization_for, train_checkpoint


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("subject")
    write_tiny_subject(path / "tiny")
    return path / "tiny"


@pytest.fixture
def text(tmp_path):
    for index in range(6):
        words = " ".join(f"word {index} {place} and {place * index % 7};" for place in range(800))
        (tmp_path / f"{index}.txt").write_text(words, encoding="utf-8")
    return tmp_path


def train(subject, text, out, **changes):
    given = {
        "subject": str(subject),
        "site": "blocks.0.hook_resid_post",
        "out": out,
        "corpus": str(text),
        "kind": "auto",
        "architecture": "topk",
        "latent_count": 32,
        "k": 4,
        "l1_coefficient": 0.1,
        "token_count": 4096,
        "context_length": 32,
        "form": "saelens",
        "seed": 0,
        "device": "cpu",
    }
    return train_checkpoint(**given | changes)


def test_a_checkpoint_and_its_record_are_written_and_the_state_is_gone(subject, text, tmp_path):
    out = tmp_path / "out" / "sae"
    record = train(subject, text, out)
    loaded = read_checkpoint(out)
    assert (loaded.format, loaded.sae.latent_count) == ("saelens", 32)
    assert loaded.sae.metadata.site == "blocks.0.hook_resid_post"
    assert loaded.sae.metadata.context_length == 32
    assert loaded.sae.metadata.prepend_bos is True
    assert record["tokens"] == 4096
    assert record["held_out"]["l0"] <= 4
    assert json.loads((out.parent / "sae.training.json").read_text()) == json.loads(json.dumps(record))
    assert not (out.parent / "sae.state").exists()
    with pytest.raises(BadInputError, match="there already"):
        train(subject, text, out)


def test_a_format_that_cannot_hold_the_autoencoder_is_refused_before_training(subject, text, tmp_path):
    with pytest.raises(CheckpointError):
        train(subject, text / "nowhere", tmp_path / "sae", form="sparsify", architecture="relu")


@pytest.mark.parametrize(
    ("corpus", "kind"),
    [
        ("stdlib", "stdlib"),
        ("a/b.jsonl", "jsonl"),
        ("x.parquet", "parquet"),
        ("x.txt", "text"),
        ("who/what", "datasets"),
    ],
)
def test_the_kind_of_corpus_goes_by_the_name(corpus, kind):
    assert corpus_kind(corpus) == kind


def test_the_kind_of_a_folder_goes_by_what_it_holds(tmp_path):
    assert corpus_kind(str(tmp_path)) == "text"
    (tmp_path / "part.parquet").touch()
    assert corpus_kind(str(tmp_path)) == "parquet"


def test_activations_are_normalised_where_the_format_can_say_so():
    assert [normalization_for(form, "topk") for form in ("openai", "saelens", "sparsify")] == [
        "layer_norm",
        "layer_norm",
        "none",
    ]
    assert normalization_for("openai", "relu") == "none"
