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


def test_folders_of_probe_tasks_are_taken_from_the_suite_file_and_shipped_sets_go_first(tmp_path):
    for name in ("mine", "stdlib"):
        (tmp_path / name).mkdir()
    suite = load_suite(write(tmp_path, MINIMAL + '[probes]\ntasks = ["mine", "stdlib", "gao61/sciq"]\n'))
    assert suite.probes.tasks == (str(tmp_path / "mine"), "stdlib", "gao61/sciq")


def test_folder_names_with_dots_stay_whole(tmp_path):
    suite = load_suite(write(tmp_path, MINIMAL + '[[checkpoints]]\npath = "run/layers.4"\n'))
    assert suite.checkpoints[0].name == "layers.4"


def test_what_is_no_path_is_left_alone(tmp_path):
    given = ["demo:a", "hf:o/n/b@main", "my.package:factory"]
    text = MINIMAL + "".join(f'[[checkpoints]]\npath = "{path}"\n' for path in [*given, "c:sae"])
    suite = load_suite(write(tmp_path, text))
    paths = [entry.path for entry in suite.checkpoints]
    assert paths == [*given, str(tmp_path / "c:sae")]  # one letter is a drive


def test_what_stands_for_others_is_named_when_it_is_looked_up(tmp_path):
    text = MINIMAL + '[[checkpoints]]\npath = "a/**"\n[[checkpoints]]\npath = "b/**"\n'
    text += '[[checkpoints]]\npath = "hf:o/n"\n[[checkpoints]]\npath = "c/sae.pt"\n'
    suite = load_suite(write(tmp_path, text))
    assert [entry.name for entry in suite.checkpoints] == [None, None, None, "sae"]
    assert suite.checkpoints[0].path == str(tmp_path / "a" / "**")


def test_demo_is_the_embedded_subject_whatever_lies_beside_the_suite(tmp_path):
    (tmp_path / "demo").mkdir()
    bare, dotted = (
        load_suite(write(tmp_path, f'name = "x"\n[subject]\nmodel = "{model}"\n'))
        for model in ("demo", "./demo")
    )
    assert bare.subject.model == "demo"
    assert dotted.subject.model == str(tmp_path / "demo")


def test_a_tilde_is_the_home_folder_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = 'name = "x"\n[subject]\nmodel = "~/m"\n[corpus]\nkind = "text"\npath = "~/t"\n'
    suite = load_suite(write(tmp_path, text + '[[checkpoints]]\npath = "~/c"\n'))
    paths = (suite.subject.model, suite.corpus.path, suite.checkpoints[0].path)
    assert paths == tuple(str(tmp_path / "home" / name) for name in "mtc")


def test_a_checkpoint_whose_path_has_no_last_part_still_has_a_name(tmp_path):
    suite = load_suite(write(tmp_path, MINIMAL + '[[checkpoints]]\npath = "/"\n'))
    assert suite_from_mapping(tomllib.loads(suite_toml(suite)), folder=tmp_path) == suite


def test_how_a_file_falls_into_documents_and_what_special_tokens_are_can_be_said(tmp_path):
    assert load_suite(write(tmp_path, MINIMAL)).corpus.separator is None
    assert load_suite(write(tmp_path, MINIMAL)).corpus.special_tokens == "text"
    text = '[corpus]\nkind = "text"\npath = "t"\nseparator = "\\n\\n"\nspecial_tokens = "parse"\n'
    suite = load_suite(write(tmp_path, MINIMAL + text))
    assert (suite.corpus.separator, suite.corpus.special_tokens) == ("\n\n", "parse")
    assert suite_from_mapping(tomllib.loads(suite_toml(suite)), folder=tmp_path) == suite


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
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("seed = " + "1" * 5000 + "\n" + MINIMAL, "too many digits"),
        ("seed = 20261122213000\n" + MINIMAL, "`seed`: Input should be less than 2147483648"),
        (MINIMAL + '[[checkpoints]]\npath = "a\\u0000b"\n', "`checkpoints.0.path`: a path cannot hold a NUL"),
        (
            MINIMAL + '[corpus]\nkind = "text"\npath = "a\\u0000b"\n',
            "`corpus.path`: a path cannot hold a NUL",
        ),
        ('name = "x"\n[subject]\nmodel = "a\\u0000b"\n', "`subject.model`: a path cannot hold a NUL"),
        (MINIMAL + '[[checkpoints]]\npath = "~nosuchuser/x"\n', "'~nosuchuser/x' cannot be used"),
        ('name = "x"\n[subject]\nmodel = "~nosuchuser/x"\n', "'~nosuchuser/x' cannot be used"),
        (MINIMAL + "[metrics]\nfamilies = []\n", "metrics.families"),
        (MINIMAL + '[[checkpoints]]\npath = ""\n', "checkpoints.0.path"),
        (MINIMAL + '[[checkpoints]]\npath = "x"\nname = ""\n', "checkpoints.0.name"),
        (MINIMAL + '[corpus]\nkind = "text"\npath = ""\n', "corpus.path"),
        ('name = "x"\n[subject]\nmodel = ""\n', "subject.model"),
        (MINIMAL + '[corpus]\nkind = "text"\npath = "t"\nseparator = ""\n', "corpus.separator"),
        (MINIMAL + '[corpus]\nkind = "jsonl"\npath = "t"\nseparator = "x"\n', "has no separator"),
        (MINIMAL + '[corpus]\nspecial_tokens = "drop"\n', "corpus.special_tokens"),
        (MINIMAL + "[sampling]\nwindow_token = 3\n", "nearest: window_tokens"),
        (MINIMAL + "[sampling]\nlatents = []\n", "say enabled = false"),
        (MINIMAL + "[sampling]\nstrata = 1001\n", "`sampling.strata`: Input should be less than"),
        *(
            (
                MINIMAL + f"[sampling]\nlatents = {wrong}\n",
                "`sampling.latents`: must be 'random', 'stratified'",
            )
            for wrong in ('"foo"', "[1, -2]", '["a"]', "[1.5]", "[true]", "true", "5", "{a = 1}")
        ),
        *(
            (MINIMAL + f"[sampling]\n{key} = {10**20}\n", f"`sampling.{key}`: Input should be less than")
            for key in ("latent_count", "examples", "strata", "least_documents", "window_tokens")
        ),
    ],
    ids=lambda value: value[-30:],
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


def test_a_path_that_no_suite_file_can_have_is_one_clear_line():
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(Path("a\0b"))


@pytest.mark.parametrize("extra", ["", "a\0b", "~nosuchuser/x"])
def test_a_further_checkpoint_that_is_no_path_is_refused(tmp_path, extra):
    with pytest.raises(SuiteError, match="--checkpoint"):
        load_suite(write(tmp_path, MINIMAL), checkpoints=[extra])


@pytest.mark.parametrize(
    "override",
    ["corpus", "=3", "name.x=3", "corpus.nope=1", "seed=" + "1" * 5000, "seed=" + "[" * 100_000],
    ids=lambda override: override[:12],
)
def test_a_bad_override_is_refused(tmp_path, override):
    with pytest.raises(SuiteError):
        load_suite(write(tmp_path, MINIMAL), overrides=[override])


def test_further_checkpoints_join_the_suites_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, MINIMAL + '[[checkpoints]]\npath = "a.pt"\n')
    suite = load_suite(path, checkpoints=["b.pt", "demo:c"])
    assert [entry.name for entry in suite.checkpoints] == ["a", "b", "c"]
    assert suite.checkpoints[1].path == str(tmp_path / "b.pt")
