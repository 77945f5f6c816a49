import json
import shutil

import polars as pl
import pytest
import torch

import autointerp
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import load_suite
from autointerp.errors import (
    CheckpointError,
    CorpusError,
    InterruptedRunError,
    RunStoreError,
    SiteError,
    SuiteError,
)
from autointerp.reporting.json_file import read_report
from autointerp.sampling import activation_pass
from autointerp.sampling.corpus import open_corpus
from autointerp.subject.subject_model import SubjectModel


@pytest.fixture(scope="module")
def finished(tiny_suite, tmp_path_factory):
    """A run directory of the tiny suite, and its report."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    return out, autointerp.evaluate(load_suite(tiny_suite), out=out)


def headline(report, checkpoint, metric):
    [found] = [
        result.outcome
        for result in report.results
        if (result.checkpoint, result.metric, dict(result.slice)) == (checkpoint, metric, {})
    ]
    return found


def test_every_checkpoint_and_the_null_have_every_metric(finished):
    _, report = finished
    names = {checkpoint.name for checkpoint in report.checkpoints}
    assert names == {"topk", "relu", "random dictionary 1"}
    for name in names:
        for metric in ("reconstruction.normalized_mse", "reconstruction.l0", "downstream.delta_ce_nats"):
            outcome = headline(report, name, metric)
            assert outcome.status == "measured"
            assert outcome.estimate.low <= outcome.estimate.value <= outcome.estimate.high
            assert outcome.estimate.n > 10
    assert headline(report, "topk", "reconstruction.l0").estimate.value <= 4


def test_without_a_curve_the_compute_equivalent_is_undefined_not_a_number(finished):
    _, report = finished
    outcome = headline(report, "topk", "downstream.compute_equivalent_fraction")
    assert outcome.status == "undefined"
    assert not hasattr(outcome, "estimate")


def test_the_run_directory_holds_what_the_design_promises(finished):
    out, report = finished
    for name in ("report.json", "report.html", "suite.toml", "run.jsonl", "latents/firing.parquet"):
        assert (out / name).is_file(), name
    assert list(read_report(out / "report.json").results) == list(report.results)
    observations = pl.read_parquet(out / "observations" / "*.parquet")
    assert observations.filter(pl.col("metric") == "downstream.kl_nats").height > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "topk" in page
    assert 'src="http' not in page


def test_no_path_of_this_machine_is_in_the_report(finished, tiny_suite):
    out, _ = finished
    for name in ("report.json", "report.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert str(tiny_suite.parent) not in text.replace("\\\\", "\\")


def test_estimates_can_be_recomputed_from_the_files_alone(finished):
    out, report = finished
    rows = pl.read_parquet(out / "observations" / "reconstruction.parquet").filter(
        (pl.col("metric") == "reconstruction.normalized_mse")
        & (pl.col("checkpoint") == "topk")
        & (pl.col("slice") == "{}")
    )
    by_hand = rows["numerator"].sum() / rows["denominator"].sum()
    assert headline(report, "topk", "reconstruction.normalized_mse").estimate.value == pytest.approx(by_hand)


def test_every_two_dictionaries_are_compared_on_the_same_documents(finished):
    _, report = finished
    pairs = {(comparison.checkpoint, comparison.reference) for comparison in report.comparisons}
    assert ("topk", "random dictionary 1") in pairs
    assert ("relu", "topk") in pairs


def test_a_finished_run_is_read_back_without_running_the_subject(finished, tiny_suite, monkeypatch):
    out, report = finished
    monkeypatch.setattr(activation_pass.ActivationPass, "run", lambda *_, **__: pytest.fail("ran again"))
    assert autointerp.evaluate(load_suite(tiny_suite), out=out).results == report.results


def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(
    finished, tiny_suite, tmp_path, monkeypatch
):
    _, report = finished
    measure = activation_pass.ActivationPass.measure
    calls = []

    def interrupted(self, chunk, cost=None):
        calls.append(chunk.index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, chunk, cost)

    monkeypatch.setattr(activation_pass.ActivationPass, "measure", interrupted)
    with pytest.raises(InterruptedRunError) as caught:
        autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")
    assert caught.value.exit_code == 130
    resumed = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")
    assert calls[:4] == [0, 1, 2, 2]
    assert resumed.results == report.results
    assert resumed.comparisons == report.comparisons


def test_batch_size_does_not_change_the_numbers(finished, tiny_suite, tmp_path):
    _, report = finished
    suite = load_suite(tiny_suite, overrides=["runtime.batch_tokens=16", "runtime.chunk_tokens=400"])
    other = autointerp.evaluate(suite, out=tmp_path / "run")
    for mine, theirs in zip(report.results, other.results, strict=True):
        assert mine.outcome.status == theirs.outcome.status
        if mine.outcome.status == "measured":
            value = theirs.outcome.estimate.value  # float32 rounds otherwise in other batches
            assert mine.outcome.estimate.value == pytest.approx(value, abs=2e-5, rel=1e-5)


def test_another_suite_in_the_same_directory_is_refused(finished, tiny_suite):
    out, _ = finished
    with pytest.raises(RunStoreError, match="seed"):
        autointerp.evaluate(load_suite(tiny_suite, overrides=["seed=1"]), out=out)


def test_autoencoders_in_memory_give_what_the_files_give(finished, tiny_suite):
    _, report = finished
    suite = load_suite(tiny_suite)
    subject = SubjectModel.load(tiny_suite.parent / "subject")
    sae = autointerp.load_checkpoint(tiny_suite.parent / "topk.pt")
    corpus = open_corpus("jsonl", path=tiny_suite.parent / "text.jsonl")
    live = autointerp.evaluate_autoencoders(
        subject, {"step 1": sae}, corpus, site=suite.site, text=suite.corpus
    )
    from_file = headline(report, "topk", "downstream.delta_ce_nats").estimate.value
    assert headline(live, "step 1", "downstream.delta_ce_nats").estimate.value == pytest.approx(
        from_file, abs=2e-5
    )


def test_a_checkpoint_of_another_width_is_refused_before_anything_runs(tiny_suite, tmp_path):
    from autointerp.testing.tiny_subject import write_tiny_subject

    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite.parent, folder)
    shutil.rmtree(folder / "subject")
    write_tiny_subject(folder / "subject", hidden_size=64, head_dim=16)
    with pytest.raises(CheckpointError, match=r"width 32.*has 64"):
        autointerp.evaluate(load_suite(folder / "suite.toml"), out=tmp_path / "run")


def test_a_suite_without_checkpoints_is_refused(tiny_suite, tmp_path):
    suite = load_suite(tiny_suite).model_copy(update={"checkpoints": ()})
    with pytest.raises(SuiteError, match="names no checkpoint"):
        autointerp.evaluate(suite, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_text_that_is_too_short_to_be_split_is_refused(tiny_suite, tmp_path):
    text = tmp_path / "one.jsonl"
    text.write_text(json.dumps({"text": "hello"}) + "\n", encoding="utf-8")
    suite = load_suite(tiny_suite, overrides=[f"corpus.path={json.dumps(str(text))}"])
    with pytest.raises(CorpusError):
        autointerp.evaluate(suite, out=tmp_path / "run")


def test_one_broken_dictionary_fails_alone(tiny_suite, tmp_path):
    """Weights so large that reconstructions overflow: its metrics fail, the others are measured."""
    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite.parent, folder)
    state = torch.load(folder / "topk.pt", weights_only=True)
    state["decoder.weight"] = torch.full_like(state["decoder.weight"], 3e38)
    torch.save(state, folder / "huge.pt")
    suite = load_suite(folder / "suite.toml", checkpoints=[str(folder / "huge.pt")])
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    assert headline(report, "huge", "reconstruction.normalized_mse").status == "failed"
    assert headline(report, "topk", "reconstruction.normalized_mse").status == "measured"
    assert report.failures
    assert "not finite" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_density_of_a_failed_dictionary_is_failed_too(tiny_suite, tmp_path):
    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite.parent, folder)
    state = torch.load(folder / "topk.pt", weights_only=True)
    state["decoder.weight"] = torch.full_like(state["decoder.weight"], 3e38)
    torch.save(state, folder / "topk.pt")
    autointerp.evaluate(load_suite(folder / "suite.toml"), out=tmp_path / "run")
    rows = pl.read_parquet(tmp_path / "run" / "observations" / "reconstruction.parquet")
    density = rows.filter(pl.col("metric") == "reconstruction.latent_density")
    assert set(density.filter(pl.col("checkpoint") == "topk")["status"]) == {"failed"}
    assert set(density.filter(pl.col("checkpoint") == "relu")["status"]) == {"measured"}
    firing = pl.read_parquet(tmp_path / "run" / "latents" / "firing.parquet")
    assert "topk" not in firing["checkpoint"].to_list()


def test_a_suite_without_topk_has_a_null_all_the_same(tiny_suite, tmp_path):
    suite = load_suite(tiny_suite)
    relu = next(entry for entry in suite.checkpoints if entry.name == "relu")
    report = autointerp.evaluate(suite.model_copy(update={"checkpoints": (relu,)}), out=tmp_path / "run")
    [null] = [checkpoint for checkpoint in report.checkpoints if checkpoint.role == "null"]
    assert any("mean L0" in note for note in null.notes)
    spent = headline(report, "relu", "reconstruction.l0").estimate.value
    given = headline(report, null.name, "reconstruction.l0").estimate.value
    assert given == pytest.approx(spent, rel=0.25)


def test_a_checkpoints_own_site_wins_over_the_suites(tiny_suite, tmp_path):
    suite = load_suite(tiny_suite, overrides=['site="blocks.0.hook_resid_post"'])
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    sites = {checkpoint.name: checkpoint.site for checkpoint in report.checkpoints}
    assert sites["relu"] == "blocks.1.hook_resid_post"
    assert sites["topk"] == "blocks.0.hook_resid_post"
    assert sum(checkpoint.role == "null" for checkpoint in report.checkpoints) == 2


def test_a_site_given_for_one_checkpoint_wins_and_is_noted(tiny_suite, tmp_path):
    suite = load_suite(tiny_suite, overrides=["checks.allow_mismatch=true"])
    moved = tuple(
        entry.model_copy(update={"site": "model.layers.0"} if entry.name == "relu" else {})
        for entry in suite.checkpoints
    )
    report = autointerp.evaluate(suite.model_copy(update={"checkpoints": moved}), out=tmp_path / "run")
    [relu] = [checkpoint for checkpoint in report.checkpoints if checkpoint.name == "relu"]
    assert relu.site == "blocks.0.hook_resid_post"
    assert any("says that it reads blocks.1.hook_resid_post" in note for note in relu.notes)


@pytest.mark.parametrize("damage", ["cut", "gone", "no page"])
def test_a_finished_run_with_a_damaged_report_is_mended(finished, tiny_suite, tmp_path, damage):
    out, report = finished
    run = tmp_path / "run"
    shutil.copytree(out, run)
    if damage == "cut":
        text = (run / "report.json").read_text(encoding="utf-8")
        (run / "report.json").write_text(text[: len(text) // 2], encoding="utf-8")
    else:
        (run / ("report.json" if damage == "gone" else "report.html")).unlink()
    assert autointerp.evaluate(load_suite(tiny_suite), out=run).results == report.results
    assert (run / "report.html").is_file()
    assert read_report(run / "report.json").results == report.results


def test_a_wrong_site_leaves_nothing_behind_that_blocks_the_corrected_suite(tiny_suite, tmp_path):
    wrong = load_suite(tiny_suite, overrides=['site="blocks.9.hook_resid_post"'])
    with pytest.raises(SiteError, match=r"blocks\.9"):
        autointerp.evaluate(wrong, out=tmp_path / "run")
    autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")


def test_an_in_memory_report_names_no_text_that_was_not_used(tiny_suite):
    subject = SubjectModel.load(tiny_suite.parent / "subject")
    sae = autointerp.load_checkpoint(tiny_suite.parent / "relu")
    corpus = open_corpus("jsonl", path=tiny_suite.parent / "text.jsonl")
    report = autointerp.evaluate_autoencoders(
        subject, {"now": sae}, corpus, text=load_suite(tiny_suite).corpus, metrics=["reconstruction"]
    )
    assert "kind" not in report.suite["corpus"]
    assert report.corpus["kind"] == "jsonl"
    assert not [result for result in report.results if result.metric.startswith("downstream")]
    with pytest.raises(SuiteError, match="families"):
        autointerp.evaluate_autoencoders(subject, {"now": sae}, corpus, metrics=["typo"])
    with pytest.raises(CheckpointError, match="no autoencoder"):
        autointerp.evaluate_autoencoders(subject, {}, corpus)


def test_the_demo_begins_anew_where_another_run_lies(finished, tiny_suite, tmp_path):
    out, _ = finished
    run = tmp_path / "run"
    shutil.copytree(out, run)
    other = load_suite(tiny_suite, overrides=["seed=3"])
    report = autointerp.evaluate(other, out=run, replace_other=True)
    assert report.provenance["seed"] == 3


def test_a_run_with_failures_measures_what_failed_again(finished, tiny_suite, tmp_path, monkeypatch):
    _, report = finished
    reconstruct = SparseAutoencoder.reconstruct_sparse

    def out_of_memory(self, x):
        if self.latent_count == 48:
            raise RuntimeError("out of memory")
        return reconstruct(self, x)

    monkeypatch.setattr(SparseAutoencoder, "reconstruct_sparse", out_of_memory)
    first = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")
    assert {failure.checkpoint for failure in first.failures} == {"relu"}
    monkeypatch.undo()
    second = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")
    assert not second.failures
    assert second.results == report.results


def test_dictionaries_compute_in_bfloat16_when_asked(tiny_suite, tmp_path, finished):
    suite = load_suite(tiny_suite, overrides=["dictionary_dtype=bfloat16"])
    report = autointerp.evaluate(suite, out=tmp_path / "run")
    exact = {(r.checkpoint, r.metric, str(r.slice)): r.outcome for r in finished[1].results}
    gaps = []
    for result in report.results:
        usual = exact[result.checkpoint, result.metric, str(result.slice)]
        assert result.outcome.status == usual.status
        if result.metric == "reconstruction.normalized_mse" and not result.slice:
            gaps.append(abs(result.outcome.estimate.value - usual.estimate.value))
    assert len(gaps) == 3 and 0 < max(gaps) < 0.05
