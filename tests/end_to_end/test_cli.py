"""The command line: bad input is one clear line and exit code 2, whatever is wrong."""

import json
import os
import pickle
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from autointerp.cli import main


@pytest.fixture
def suite(tiny_suite, tmp_path):
    """A copy of the tiny suite's folder that a test may damage."""
    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite.parent, folder)
    return folder / "suite.toml"


def run(*arguments, monkeypatch, capsys):
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["autointerp", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


class Payload:
    """Unpickling this would make a file."""

    def __reduce__(self):
        return (os.system, ("touch pickle_ran",))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_state(path, **changes):
    state = torch.load(path, weights_only=True)
    state.update(changes)
    torch.save({key: value for key, value in state.items() if value is not None}, path)


def edit_text(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def one_nan(folder):
    weights = load_file(folder / "relu" / "sae_weights.safetensors")
    weights["W_enc"][0, 0] = float("nan")
    save_file(weights, folder / "relu" / "sae_weights.safetensors")


DAMAGES = {
    "wrong width": (lambda d: edit_state(d / "topk.pt", **{"pre_bias": torch.zeros(31)}), "topk.pt"),
    "NaN": (one_nan, "relu"),
    "missing tensor": (lambda d: edit_state(d / "topk.pt", **{"decoder.weight": None}), "topk.pt"),
    "truncated": (lambda d: cut(d / "topk.pt"), "topk.pt"),
    "truncated safetensors": (lambda d: cut(d / "relu" / "sae_weights.safetensors"), "sae_weights"),
    "unknown format": (lambda d: (d / "topk.pt").write_bytes(b"not a checkpoint"), "topk.pt"),
    "no file": (lambda d: (d / "topk.pt").unlink(), "topk.pt"),
    "pickle": (lambda d: (d / "topk.pt").write_bytes(pickle.dumps(Payload())), "topk.pt"),
    "torch pickle": (lambda d: torch.save({"pre_bias": Payload()}, d / "topk.pt"), "topk.pt"),
    "unknown key": (
        lambda d: edit_text(d / "suite.toml", "context_length", "contxt_length"),
        "context_length",
    ),
    "no site": (lambda d: edit_text(d / "suite.toml", 'site = "blocks.1.hook_resid_post"', ""), "site"),
    "no such site": (lambda d: edit_text(d / "suite.toml", "blocks.1.", "blocks.9."), "blocks.9"),
    "no text": (lambda d: (d / "text.jsonl").write_text(""), "text.jsonl"),
    "text is no JSON": (lambda d: (d / "text.jsonl").write_text("{"), "text.jsonl"),
    "text field": (lambda d: edit_text(d / "text.jsonl", '"text"', '"txt"'), "txt"),
    "no subject": (lambda d: shutil.rmtree(d / "subject"), "subject"),
    "broken subject": (lambda d: cut(d / "subject" / "model.safetensors"), "subject"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_input_is_one_line_and_exit_code_2(damage, suite, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    breaks, names = DAMAGES[damage]
    breaks(suite.parent)
    code, out, err = run("evaluate", suite, "--out", tmp_path / "run", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    complaint = [line for line in err.strip().splitlines() if line.strip()]
    assert len(complaint) == 1, err
    assert names in complaint[0]
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / "finished.json").exists()
    assert not (tmp_path / "run" / "report.json").exists()
    assert not (tmp_path / "pickle_ran").exists()


def test_unwritable_output_is_one_line_and_exit_code_2(suite, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / "run"
    code, _, err = run("evaluate", suite, "--out", target, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_a_run_prints_its_table_and_where_the_report_is(suite, tmp_path, monkeypatch, capsys):
    out_folder = tmp_path / "run"
    code, out, _ = run("evaluate", suite, "--out", out_folder, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "random dictionary 1" in out
    assert str(out_folder / "report.html") in out.replace("\n", "")
    code, out, _ = run("report", out_folder, "--format", "csv", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "downstream.kl_nats" in (out_folder / "report.csv").read_text(encoding="utf-8")


POLICY = """
name = "ours"
[[rules]]
name = "small loss"
reason = "users notice"
metric = "downstream.delta_ce_nats"
at_most = {limit}
"""


def test_a_run_is_gated_at_its_end_and_the_page_says_so(suite, tmp_path, monkeypatch, capsys):
    policy, out_folder = tmp_path / "ours.toml", tmp_path / "run"
    command = ("evaluate", suite, "--out", out_folder, "--policy", policy)
    code, _, err = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "ours.toml" in err and not out_folder.exists()  # before anything is computed
    policy.write_text(POLICY.format(limit=1000))
    code, out, _ = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "gate, PASS: ours" in out
    page = (out_folder / "report.html").read_text(encoding="utf-8")
    assert "Gate: pass, by the policy ours" in page
    # The run is finished: nothing is measured again, and the page follows the new verdict.
    observed = (out_folder / "observations" / "downstream.parquet").stat().st_mtime_ns
    policy.write_text(POLICY.format(limit=-1000))
    code, out, _ = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert "gate, FAIL: ours" in out
    page = (out_folder / "report.html").read_text(encoding="utf-8")
    assert "Gate: fail, by the policy ours" in page
    assert (out_folder / "observations" / "downstream.parquet").stat().st_mtime_ns == observed


def test_a_verdict_that_the_page_does_not_show_yet_is_drawn(suite, tmp_path, monkeypatch, capsys):
    policy, out_folder = tmp_path / "ours.toml", tmp_path / "run"
    policy.write_text(POLICY.format(limit=1000))
    code, _, _ = run("evaluate", suite, "--out", out_folder, monkeypatch=monkeypatch, capsys=capsys)
    gate = ("gate", out_folder, "--policy", policy, "--out", out_folder / "gate")
    code, _, _ = run(*gate, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "Gate: pass" not in (out_folder / "report.html").read_text(encoding="utf-8")
    command = ("evaluate", suite, "--out", out_folder, "--policy", policy)
    code, _, _ = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    page = out_folder / "report.html"
    assert "Gate: pass, by the policy ours" in page.read_text(encoding="utf-8")
    # Another report.json in the same folder has not been judged.
    other = out_folder / "other.json"
    other.write_text((out_folder / "report.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    command = ("report", other, "--out", tmp_path / "other.html")
    code, _, _ = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    shown = (tmp_path / "other.html").read_text(encoding="utf-8")
    assert "Gate: pass" not in shown and "another report.json" in shown


def test_a_folder_that_cannot_be_written_leaves_the_page(suite, tmp_path, monkeypatch, capsys):
    policy, out_folder = tmp_path / "ours.toml", tmp_path / "run"
    policy.write_text(POLICY.format(limit=1000))
    run("evaluate", suite, "--out", out_folder, monkeypatch=monkeypatch, capsys=capsys)
    (out_folder / "gate").write_text("in the way")
    command = ("evaluate", suite, "--out", out_folder, "--policy", policy)
    code, _, err = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "gate" in err and "Traceback" not in err
    assert (out_folder / "report.html").is_file()


def test_a_baseline_without_a_policy_is_refused(suite, tmp_path, monkeypatch, capsys):
    command = ("evaluate", suite, "--out", tmp_path / "run", "--baseline", tmp_path)
    code, _, err = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "--policy" in err


def test_a_policy_that_names_no_checkpoint_leaves_the_page(suite, tmp_path, monkeypatch, capsys):
    policy, out_folder = tmp_path / "ours.toml", tmp_path / "run"
    policy.write_text(POLICY.format(limit=1).replace("[[rules]]", 'checkpoints = ["nobody"]\n[[rules]]'))
    command = ("evaluate", suite, "--out", out_folder, "--policy", policy)
    code, _, err = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "nobody" in err
    assert (out_folder / "report.html").is_file()


def test_a_failed_metric_is_exit_code_4_and_still_reported(suite, tmp_path, monkeypatch, capsys):
    state = torch.load(suite.parent / "topk.pt", weights_only=True)
    edit_state(suite.parent / "topk.pt", **{"decoder.weight": torch.full_like(state["decoder.weight"], 3e38)})
    out_folder = tmp_path / "run"
    code, out, _ = run("evaluate", suite, "--out", out_folder, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 4
    assert "not finite" in out
    assert (out_folder / "report.html").is_file()
    policy = tmp_path / "ours.toml"
    policy.write_text(POLICY.format(limit=1).replace("[[rules]]", 'checkpoints = ["nobody"]\n[[rules]]'))
    command = ("evaluate", suite, "--out", out_folder, "--policy", policy)
    code, _, err = run(*command, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 4 and "nobody" in err, "what failed goes before a gate that cannot be used"


def test_schemas_are_json(monkeypatch, capsys):
    for arguments in (("schema",), ("schema", "--suite")):
        code, out, _ = run(*arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert code == 0
        assert json.loads(out)["type"] == "object"


def test_inspect_says_what_a_checkpoint_is(suite, monkeypatch, capsys):
    code, out, _ = run("inspect", suite.parent / "topk.pt", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    for words in ("openai", "topk(k=4)", "64", "32"):
        assert words in out


def test_train_makes_a_checkpoint_that_evaluate_takes(suite, tmp_path, monkeypatch, capsys):
    folder = suite.parent
    lines = [
        f"the fox number {i} ran over {i * 7919 % 1000} hills and said hello to them" for i in range(1500)
    ]
    (folder / "long.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    arguments = ["--subject", folder / "subject", "--site", "blocks.1.hook_resid_post"]
    arguments += ["--corpus", folder / "long.jsonl", "--latents", 64, "--k", 4, "--tokens", 4096]
    arguments += ["--context-length", 16, "--format", "saelens", "--out", tmp_path / "trained"]
    code, _, err = run("train", *arguments, "--device", "cpu", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, err
    code, out, err = run(
        "evaluate",
        suite,
        "--checkpoint",
        tmp_path / "trained",
        "--out",
        tmp_path / "run",
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert code == 0, err
    assert "trained" in out


def test_train_says_at_once_that_it_cannot_write(suite, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = ["--subject", suite.parent / "subject", "--site", "blocks.1.hook_resid_post"]
    arguments += ["--corpus", suite.parent / "text.jsonl", "--out", tmp_path / "file" / "sae"]
    code, _, err = run("train", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "sae" in err


@pytest.mark.parametrize(
    "address",
    ["http://user:hunter2@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=hunter2", "ftp://hunter2", ""],
)
def test_check_endpoint_refuses_addresses_in_one_line_that_does_not_show_them(address, monkeypatch, capsys):
    code, out, err = run("check-endpoint", address, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "base_url" in err
    assert "hunter2" not in err


def test_check_endpoint_refuses_a_model_name_that_is_no_text(monkeypatch, capsys):
    address = "http://127.0.0.1:9/v1"
    code, _, err = run(
        "check-endpoint", address, "--model", "a\udcff", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 2
    assert err.count("\n") == 1
    assert "llm.model" in err
