"""What others published: read as it is, never taken for ours, scored anew where examples are there."""

import json

import numpy as np
import pytest
from report_examples import realistic_report
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import RunStoreError
from autointerp.metrics.catalogue import METRICS
from autointerp.reporting.imported import read_results
from autointerp.reporting.imported.saebench import _OURS
from autointerp.reporting.imported_section import imported_sections
from autointerp.reporting.json_file import report_json

CORE = {
    "eval_type_id": "core",
    "sae_lens_release_id": "release",
    "sae_lens_id": "sae-1",
    "eval_result_metrics": {
        "model_performance_preservation": {"ce_loss_score": 0.9, "ce_loss_with_sae": 3.5},
        "sparsity": {"l0": -1, "l1": None},
        "reconstruction_quality": {"mse": float("nan"), "cossim": 0.8, "explained_variance": "<b>"},
    },
}


def write_delphi(folder, *, latents=6, seed=0, method="detection"):
    """Invented judgements in delphi's layout; their AUROCs by scikit-learn."""
    generator = np.random.default_rng(seed)
    scores = folder / "scores" / method
    scores.mkdir(parents=True)
    aurocs = []
    for latent in range(latents):
        truth = np.arange(20) % 2 == 0
        judged = np.clip(generator.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
        rows = [
            {"activating": bool(t), "probability": float(p), "prediction": bool(p > 0.5), "distance": 1}
            for t, p in zip(truth, judged, strict=True)
        ]
        rows.append({"activating": True, "probability": None, "prediction": None})  # a reply of no use
        (scores / f"layers.3_latent{latent}.txt").write_text(json.dumps(rows))
        aurocs.append(roc_auc_score(truth, judged))
    return folder, aurocs


@pytest.mark.parametrize("wrapped", [False, True])
def test_saebench_numbers_are_read_and_minus_one_is_missing(tmp_path, wrapped):
    file = tmp_path / "x_eval_results.json"
    file.write_text(json.dumps({"release_sae": CORE} if wrapped else CORE))
    found = {each.metric.partition(".")[2]: each for each in read_results([tmp_path])}
    assert found["ce_loss_score"].value == 0.9
    assert found["ce_loss_score"].ours == "downstream.fraction_recovered_zero"
    assert {name for name, each in found.items() if each.value is None} == {
        "l0",
        "l1",
        "mse",
        "explained_variance",
    }
    assert all(each.reason for each in found.values() if each.value is None)
    assert all(each.caution for each in found.values())
    assert found["l0"].name == "release/sae-1"


def test_what_is_set_beside_ours_is_a_metric_of_ours():
    names = {metric.name for metric in METRICS}
    assert {ours for ours, _ in _OURS.values() if ours} <= names


def test_delphi_judgements_are_scored_as_scikit_learn_scores_them(tmp_path):
    folder, aurocs = write_delphi(tmp_path / "run")
    [found] = read_results([folder])
    assert found.value == pytest.approx(np.mean(aurocs))
    assert found.low < found.value < found.high
    assert (found.n, found.sampled, found.name) == (6, "latent", "layers.3")


def test_damaged_files_of_delphi_are_counted(tmp_path):
    folder, _ = write_delphi(tmp_path / "run")
    for name, text in (("layers.3_latent8.txt", "{"), ("layers.3_latent9.txt", '{"a": 1}')):
        (folder / "scores" / "detection" / name).write_text(text)
    [found] = read_results([folder])
    assert "2 of 8 files could not be read" in found.caution


@pytest.mark.parametrize("text", ["", "[]", "{", '{"eval_result_metrics": 3}'])
def test_other_files_are_refused_in_one_line(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(RunStoreError, match="known are"):
        read_results([file])
    with pytest.raises(RunStoreError, match="known are"):
        read_results([tmp_path])
    with pytest.raises(RunStoreError, match="cannot be read"):
        read_results([tmp_path / "nowhere.json"])


def test_they_stand_in_a_section_of_their_own(tmp_path):
    (tmp_path / "x_eval_results.json").write_text(json.dumps(CORE))
    folder, _ = write_delphi(tmp_path / "run")
    report = realistic_report()
    [section] = imported_sections(report, read_results([tmp_path / "x_eval_results.json", folder]))
    beside, apart = section.parts
    assert {row.cells[0].text for row in beside.rows} == {"SAEBench core", "delphi"}
    assert all(row.cells[4].text for row in apart.rows)
    assert imported_sections(report, []) == ()


def test_the_command_line_shows_them(tmp_path):
    (tmp_path / "report.json").write_text(report_json(realistic_report()))
    (tmp_path / "x_eval_results.json").write_text(json.dumps(CORE))
    given = ["report", str(tmp_path), str(tmp_path / "x_eval_results.json")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "Published by others" in (tmp_path / "report.html").read_text()
    assert isinstance(CliRunner().invoke(app, [*given, "--format", "csv"]).exception, RunStoreError)


def test_yes_and_no_are_not_mixed_with_probabilities(tmp_path):
    folder, aurocs = write_delphi(tmp_path / "run")
    for file in (folder / "scores" / "detection").glob("*.txt"):
        rows = json.loads(file.read_text())
        rows += [{"activating": False, "probability": None, "prediction": True, "distance": -1}] * 5
        file.write_text(json.dumps(rows))
    [found] = read_results([folder])
    assert found.value == pytest.approx(np.mean(aurocs))


def test_numbers_no_float_holds_and_deep_files_are_no_tracebacks(tmp_path):
    folder, aurocs = write_delphi(tmp_path / "run")
    for file in (folder / "scores" / "detection").glob("*.txt"):
        rows = json.loads(file.read_text())
        file.write_text(json.dumps([*rows, {"activating": True, "probability": 10**400}]))
    assert read_results([folder])[0].value == pytest.approx(np.mean(aurocs))
    file = tmp_path / "x_eval_results.json"
    file.write_text(json.dumps({"eval_result_metrics": {"sparsity": {"l0": 10**400}}}))
    assert read_results([file])[0].value is None
    file.write_text('{"a":' * 900 + "1" + "}" * 900)
    with pytest.raises(RunStoreError, match="known are"):
        read_results([file])
