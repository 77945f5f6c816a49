import tomllib
from pathlib import Path

import pytest

from autointerp.config import load_suite, suite_from_mapping, suite_toml
from autointerp.errors import SuiteError

MINIMAL = 'name = "x"\n[subject]\nmodel = "some/model"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_minimal_suite_has_the_papers_context_length(tmp_path):
    suite = load_suite(write(tmp_path, MINIMAL))
    assert suite.corpus.context_length == 64
    assert suite.subject.model == "some/model"


def test_resolved_suite_reads_back_equal(tmp_path):
    text = MINIMAL + (
        '[corpus]\nkind = "text"\npath = "a\\"b\\\\c\\u0007.txt"\n'
        "[metrics]\n[[metrics.compute_curve]]\nflops = 1e15\nloss_nats = 3.5\n"
        '[[checkpoints]]\npath = "one.pt"\n[[checkpoints]]\npath = "demo:two"\n'
    )
    suite = load_suite(write(tmp_path, text))
    again = suite_from_mapping(tomllib.loads(suite_toml(suite)), folder=tmp_path / "elsewhere")
    assert again == suite


def test_relative_paths_are_taken_from_the_suite_file(tmp_path):
    (tmp_path / "model").mkdir()
    text = 'name = "x"\n[subject]\nmodel = "model"\n[corpus]\nkind = "jsonl"\npath = "t.jsonl"\n'
    suite = load_suite(write(tmp_path, text + '[[checkpoints]]\npath = "sub/sae.pt"\n'))
    assert suite.subject.model == str(tmp_path / "model")
    assert suite.corpus.path == str(tmp_path / "t.jsonl")
    assert suite.checkpoints[0].path == str(tmp_path / "sub/sae.pt")
    assert suite.checkpoints[0].name == "sae"


def test_folder_names_with_dots_stay_whole(tmp_path):
    suite = load_suite(write(tmp_path, MINIMAL + '[[checkpoints]]\npath = "run/layers.4"\n'))
    assert suite.checkpoints[0].name == "layers.4"


def test_embedded_and_hub_paths_are_left_alone(tmp_path):
    text = MINIMAL + '[[checkpoints]]\npath = "demo:a"\n[[checkpoints]]\npath = "hf:o/n/b"\n'
    suite = load_suite(write(tmp_path, text))
    assert [entry.path for entry in suite.checkpoints] == ["demo:a", "hf:o/n/b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "is no TOML"),
        (MINIMAL + "[corpus]\ncontxt_length = 3\n", "nearest: context_length"),
        (MINIMAL + '[corpus]\nkind = "foo"\n', "corpus.kind"),
        (MINIMAL + '[corpus]\nkind = "text"\n', "needs a path"),
        (MINIMAL + "[estimates]\nlevel = 2\n", "estimates.level"),
        (MINIMAL + "[estimates]\nlevel = nan\n", "estimates.level"),
        ('name = "x"\n', "subject"),
        ("nme = 1\n" + MINIMAL, "nearest: name"),
        (
            MINIMAL + '[[checkpoints]]\npath = "a/x"\n[[checkpoints]]\npath = "b/x"\n',
            "two checkpoints are called 'x'",
        ),
        (MINIMAL + '[[checkpoints]]\npth = "a"\n', "unknown key"),
    ],
)
def test_a_bad_suite_is_one_clear_line(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_suite_is_one_clear_line(tmp_path):
    with pytest.raises(SuiteError, match="no such suite file"):
        load_suite(tmp_path / "none.toml")


def test_a_binary_suite_is_one_clear_line(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(path)


def test_overrides_take_toml_values_and_bare_words(tmp_path):
    path = write(tmp_path, MINIMAL)
    suite = load_suite(path, overrides=["corpus.context_length=32", "subject.dtype=bfloat16", "seed=7"])
    assert (suite.corpus.context_length, suite.subject.dtype, suite.seed) == (32, "bfloat16", 7)


@pytest.mark.parametrize("override", ["corpus", "=3", "name.x=3", "corpus.nope=1"])
def test_a_bad_override_is_refused(tmp_path, override):
    with pytest.raises(SuiteError):
        load_suite(write(tmp_path, MINIMAL), overrides=[override])


def test_further_checkpoints_join_the_suites_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, MINIMAL + '[[checkpoints]]\npath = "a.pt"\n')
    suite = load_suite(path, checkpoints=["b.pt", "demo:c"])
    assert [entry.name for entry in suite.checkpoints] == ["a", "b", "c"]
    assert suite.checkpoints[1].path == str(tmp_path / "b.pt")
