"""`autointerp show`: one latent of a run, or the list of those that were sampled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autointerp.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))

import latent_examples
from latent_examples import CHECKPOINTS, DEAD, FAILED, LIVE, UNDEFINED, UNSAMPLED

FIRST, SECOND = CHECKPOINTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return latent_examples.write_run(tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def show(monkeypatch, capsys):
    """Exit code, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autointerp", "show", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return call


def test_a_latent_is_shown(folder, show):
    code, out, err = show(folder, "--latent", LIVE)
    assert (code, err) == (0, "")
    assert out.startswith(f"latent {LIVE} of {FIRST}\nfires on 1 in ")
    assert "«" in out
    assert max(map(len, out.splitlines())) <= 100
    assert len(out) > len(show(folder, "--latent", LIVE, "--examples", 1)[1])


def test_the_width_is_that_asked_for(folder, show):
    _, out, _ = show(folder, "--latent", LIVE, "--width", 140)
    assert 100 < max(map(len, out.splitlines())) <= 140


def test_samplers_and_a_split_may_be_chosen(folder, show):
    _, out, _ = show(folder, "--latent", LIVE, "--sampler", "top", "--sampler", "silent", "--split", "score")
    rows = out.split("Examples")[1]
    assert "\ntop  " in rows and "\nsilent  " in rows and "uniform" not in rows
    assert "  score " in rows and "  explain " not in rows


def test_without_a_latent_the_sampled_ones_are_listed(folder, show):
    code, out, _ = show(folder, "--checkpoint", SECOND, "--examples", 3)
    assert code == 0
    assert out.startswith(f"sampled latents of {SECOND}, the first 3 of 14\n")


def test_json_is_for_programs(folder, show):
    code, out, _ = show(folder, "--latent", LIVE, "--json", "--examples", 2)
    found = json.loads(out)
    assert code == 0 and latent_examples.without_null(found)
    assert found["latent"] == LIVE
    assert max(len(group["examples"]) for group in found["groups"]) == 2
    texts = {text for group in found["groups"] for example in group["examples"] for text in example["tokens"]}
    assert "\x1b[31m" in texts, "texts reach a program whole"
    assert "\x1b" not in out
    listed = json.loads(show(folder, "--json")[1])
    assert [latent["latent"] for latent in listed["latents"]][:2] == [1, 3]


def test_random_is_the_same_latent_every_time(folder, show):
    first = show(folder, "--latent", "random", "--seed", 4)
    assert first == show(folder, "--latent", "random", "--seed", 4)
    seen = {
        show(folder, "--latent", "random", "--seed", seed, "--sampler", "top")[1].split(" of ")[0]
        for seed in range(6)
    }
    assert len(seen) > 2


@pytest.mark.parametrize(
    ("latent", "words"),
    [(DEAD, "· dead"), (UNDEFINED, "too few documents"), (UNSAMPLED, "sampling.latents=[2]")],
)
def test_a_latent_without_examples_is_no_error(folder, show, latent, words):
    code, out, err = show(folder, "--latent", latent)
    assert (code, err) == (0, "")
    assert words in out


REFUSED = {
    "no such run": (["nowhere"], "no such run directory"),
    "no tables": (["."], "[sampling]"),
    "checkpoint": (["RUN", "--checkpoint", "topk-16-k"], "did you mean 'topk-16-k2'"),
    "failed": (["RUN", "--checkpoint", FAILED], "were not sampled"),
    "range": (["RUN", "--latent", "16"], "0 to 15"),
    "no index": (["RUN", "--latent", "x\x1b[31m"], "is no latent"),
    "sampler": (["RUN", "--latent", "5", "--sampler", "uniforms"], "did you mean 'uniform'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(folder, show, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = REFUSED[case]
    code, out, err = show(*(folder if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "")
    assert words in err and err.count("\n") == 1
    assert "\x1b" not in err


def test_several_checkpoints_are_named(folder, show, tmp_path):
    target = latent_examples.write_run(tmp_path / "run", with_report=False).folder
    code, _, err = show(target, "--latent", LIVE)
    assert code == 2
    assert f"--checkpoint: '{FIRST}', '{SECOND}', '{FAILED}'" in err


def test_a_damaged_table_is_one_line_that_names_it(show, tmp_path):
    target = latent_examples.write_run(tmp_path / "run").folder
    file = target / "latents" / "examples.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    code, _, err = show(target, "--latent", LIVE)
    assert code == 2
    assert "examples.parquet" in err and "run the evaluation again" in err and err.count("\n") == 1


def test_no_language_model_library_is_loaded(folder):
    program = (
        "import sys; from autointerp.cli import main\n"
        f"sys.argv = ['autointerp', 'show', {str(folder)!r}, '--latent', '{LIVE}']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'altair', 'scipy', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"latent {LIVE} of ")
