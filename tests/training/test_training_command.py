"""`autointerp train` end to end on a tiny subject, and what it refuses before it begins."""

import json
import shutil

import pytest

from autointerp.checkpoints.load import read_checkpoint
from autointerp.errors import BadInputError, CheckpointError
from autointerp.testing.tiny_subject import write_tiny_subject
from autointerp.training import command
from autointerp.training.command import corpus_kind, normalization_for, train_checkpoint


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("subject")
    write_tiny_subject(path / "tiny")
    return path / "tiny"


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for index in range(6):
        words = " ".join(f"word {index} {place} and {place * index % 7};" for place in range(800))
        (folder / f"{index}.txt").write_text(words, encoding="utf-8")
    return folder


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


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed_when_writing(subject, text, out, monkeypatch, **changes):
    """Train, and die when the checkpoint is about to be written: the finished state stays."""

    def killed(*given, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(command, "_write", killed)
        with pytest.raises(Killed):
            train(subject, text, out, **changes)
    assert (out.with_name(f"{out.name}.state") / "training_state.pt").is_file()


def test_a_killed_run_does_not_go_on_with_another_text(subject, text, tmp_path, monkeypatch):
    out = tmp_path / "sae"
    killed_when_writing(subject, text, out, monkeypatch, token_count=2048)
    other = tmp_path / "other"
    shutil.copytree(text, other)
    (other / "0.txt").write_text("one word more", encoding="utf-8")
    for changes in ({"corpus": str(other)}, {"prepend_bos": False}, {"separator": ";"}):
        with pytest.raises(BadInputError, match="another subject, site, text or options"):
            train(subject, text, out, **{"token_count": 2048} | changes)
    train(subject, text, out, token_count=2048)
    assert out.exists()


@pytest.mark.parametrize(("form", "architecture"), [("saelens", "topk"), ("openai", "topk")])
def test_a_run_killed_while_writing_goes_on(subject, text, tmp_path, monkeypatch, form, architecture):
    out = tmp_path / "out" / "sae"
    changes = {"token_count": 2048, "form": form, "architecture": architecture}

    def half_written(sae, path, *, format):
        if path.parent != out.parent:
            return  # the trial before training
        path.mkdir()
        (path / "cfg.json").write_text("{")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(command, "write_checkpoint", half_written)
        with pytest.raises(Killed):
            train(subject, text, out, **changes)
    assert not out.exists()
    train(subject, text, out, **changes)
    assert read_checkpoint(out).format == form
    assert sorted(path.name for path in out.parent.iterdir()) == ["sae", "sae.training.json"]


def test_contexts_without_bos_are_recorded(subject, text, tmp_path):
    train(subject, text, tmp_path / "out" / "sae", prepend_bos=False, token_count=2048)
    assert read_checkpoint(tmp_path / "out" / "sae").sae.metadata.prepend_bos is False


def test_field_and_separator_reach_the_text(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"body": "four"}\n', encoding="utf-8")
    parts = command._opened_text(str(tmp_path / "a.txt"), "auto", text_field="text", separator="\n\n")
    field = command._opened_text(str(tmp_path / "a.jsonl"), "auto", text_field="body", separator=None)
    assert [document.text for document in parts.documents()] == ["one", "two", "three"]
    assert [document.text for document in field.documents()] == ["four"]


def test_a_data_set_is_read_at_the_commit_that_is_named():
    commit = "0123456789abcdef0123456789abcdef01234567"
    opened = command._opened_text("who/texts", "auto", text_field="text", separator=None, revision=commit)
    assert (opened.kind, opened.revision) == ("datasets", commit)
    with pytest.raises(BadInputError, match="'stdlib' has no revision"):
        command._opened_text("stdlib", "auto", text_field="text", separator=None, revision=commit)


@pytest.mark.parametrize(("corpus", "separator"), [("stdlib", "x"), ("a.jsonl", "x"), ("a.txt", "")])
def test_a_separator_that_separates_nothing_is_refused(corpus, separator):
    with pytest.raises(BadInputError, match="separator"):
        command._opened_text(corpus, "auto", text_field="text", separator=separator)


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
