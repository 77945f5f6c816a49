"""Latents matched across the checkpoints of one run, and across two runs, from files."""

import json
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

import autointerp
from autointerp.cli import app
from autointerp.config import load_suite
from autointerp.errors import RunStoreError
from autointerp.evaluation.matching import match_runs
from autointerp.sampling.latents.tables import LEAST_MATCH_COSINE, MATCHES

NAMES = ("topk", "relu")


@pytest.fixture(scope="module")
def runs(sampled_suite, tmp_path_factory):
    """The same suite twice, with another seed the second time."""
    folder = tmp_path_factory.mktemp("matched")
    quick = ["explanations.enabled=false", "estimates.resamples=100"]
    for name, seed in (("a", 0), ("b", 1)):
        suite = load_suite(sampled_suite, overrides=[*quick, f"seed={seed}"])
        autointerp.evaluate(suite, out=folder / name)
    return folder / "a", folder / "b"


def test_every_sampled_latent_has_its_nearest_in_every_other_dictionary(runs):
    matches = pl.read_parquet(runs[0] / "latents" / "matches.parquet")
    assert dict(matches.schema) == MATCHES
    sampled = pl.read_parquet(runs[0] / "latents" / "latents.parquet").filter(pl.col("is_sampled"))
    others = matches["checkpoint"].n_unique() - 1
    assert matches.height == sampled.height * others
    assert matches["cosine"].is_between(-1.0001, 1.0001).all()
    alike = matches.filter(pl.col("cosine") >= LEAST_MATCH_COSINE)
    assert alike["co_firing"].null_count() < max(alike.height, 1)
    assert matches.filter(pl.col("cosine") < LEAST_MATCH_COSINE)["co_firing"].null_count() == (
        matches.height - alike.height
    )


def test_a_checkpoint_is_matched_whole_with_itself_and_fires_with_itself(runs):
    for found in match_runs(*runs, [(name, name) for name in NAMES]):
        assert found.status == "measured", found.reason
        assert found.matching.matched_fraction == 1.0
        assert set(found.co_firing) == {1.0}


def test_two_checkpoints_of_the_same_subject_are_matched_in_part(runs):
    [found] = match_runs(*runs, [("topk", "relu")])
    assert found.status == "measured"
    assert len(found.reference_latents) == found.matching.reference_count
    matched = {int(i) for i in found.matching.pairs[:, 0]}
    assert not matched & set(found.matching.lost.tolist())


def test_an_absent_or_changed_checkpoint_is_skipped_with_that_reason(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    report = json.loads((copy / "report.json").read_text())
    report["checkpoints"][0]["sha256"] = "0" * 64
    (copy / "report.json").write_text(json.dumps(report))
    [changed, absent] = match_runs(copy, runs[1], [("topk", "topk"), ("nowhere", "topk")])
    assert changed.status == absent.status == "skipped"
    assert "sha256" in changed.reason
    suite = (copy / "suite.toml").read_text().replace("topk.pt", "gone.pt")
    (copy / "suite.toml").write_text(suite)
    [gone] = match_runs(copy, runs[1], [("topk", "topk")])
    assert gone.status == "skipped"


def test_runs_of_different_subjects_or_with_damaged_firings_are_not_matched(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    whole = (copy / "report.json").read_text()
    report = json.loads(whole)
    report["subject"]["sha256"] = "0" * 64
    (copy / "report.json").write_text(json.dumps(report))
    [found] = match_runs(copy, runs[1], [("topk", "topk")])
    assert (found.status, found.reason) == ("skipped", "the runs are of different subjects")
    (copy / "report.json").write_text(whole)
    (copy / "latents" / "firing.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunStoreError, match="cannot be read"):
        match_runs(copy, runs[1], [("topk", "topk")])


def test_the_command_line_says_what_was_matched(runs):
    done = CliRunner().invoke(app, ["compare", str(runs[0]), str(runs[1]), "--latents"])
    assert done.exit_code == 0, done.output
    assert "(100%) matched, 0 lost, 0 gained" in done.output
    told = CliRunner().invoke(app, ["compare", *map(str, runs), "--latents", "--format", "json"])
    content = json.loads(told.stdout)
    assert {row["checkpoint"] for row in content["latents"]} == set(NAMES)


def test_a_page_json_and_markdown_are_written_with_the_latents(runs, tmp_path):
    for suffix in ("html", "json", "md"):
        target = tmp_path / f"compared.{suffix}"
        told = ["compare", *map(str, runs), "--latents", "--format", "json", "--out", str(target)]
        done = CliRunner().invoke(app, told)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout), "nothing but JSON is on standard output"
    page = (tmp_path / "compared.html").read_text(encoding="utf-8")
    assert "Kept, lost, gained and split latents" in page and "100.0 %" in page
    written = json.loads((tmp_path / "compared.json").read_text(encoding="utf-8"))
    assert written == json.loads(done.stdout)
    assert "matched, 0 lost" in (tmp_path / "compared.md").read_text(encoding="utf-8")
