"""A run with its latents sampled: the tables it leaves, what it says of them, and that it can be trusted."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import autointerp
from autointerp.config import load_suite
from autointerp.errors import RunStoreError, SuiteError
from autointerp.sampling.latents.shared_ngrams import leaks
from autointerp.sampling.latents.tables import TABLES
from autointerp.sampling.samplers.sampler import SPLITS

CHECKPOINTS = {"topk", "relu", "random dictionary 1"}


@pytest.fixture(scope="module")
def run(sampled_suite, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sampled") / "run"
    autointerp.evaluate(load_suite(sampled_suite), out=out)
    return out


@pytest.fixture(scope="module")
def tables(run) -> dict[str, pl.DataFrame]:
    return {name: pl.read_parquet(run / "latents" / f"{name}.parquet") for name in TABLES}


def test_every_table_is_there_with_its_columns_for_every_dictionary(tables):
    for name, schema in TABLES.items():
        assert dict(tables[name].schema) == schema
        if "checkpoint" in schema:
            assert set(tables[name]["checkpoint"]) == CHECKPOINTS, name


def test_latents_are_counted_as_the_pass_counted_them(run, tables):
    firing = pl.read_parquet(run / "latents" / "firing.parquet")
    both = tables["latents"].join(firing, on=["checkpoint", "latent"], how="left", suffix="_counted")
    for name in ("tokens_fired", "documents_fired"):
        assert (both[name] == both[f"{name}_counted"].fill_null(0)).all()
    assert (both["tokens_fired"] > 0).any()


def test_the_reports_coverage_is_that_of_the_tables(run, tables):
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    told = {entry["checkpoint"]: entry for entry in report["coverage"]}
    assert set(told) == CHECKPOINTS
    for row in tables["coverage"].iter_rows(named=True):
        assert told[row["checkpoint"]]["scorable_fraction"] == row["scorable_fraction"]
        own = tables["latents"].filter(checkpoint=row["checkpoint"])
        assert row["latent_count"] == own.height
        assert row["scorable_count"] == (own["status"] == "live").sum()
        assert row["sampled_count"] == own["is_sampled"].sum() == min(12, row["live_count"])
    assert "Which latents can be scored" in (run / "report.html").read_text(encoding="utf-8")


def test_nothing_that_explains_is_scored(tables):
    number = pl.col("split").replace_strict({name: i for i, name in enumerate(SPLITS)}, return_dtype=pl.UInt8)
    for name in CHECKPOINTS:
        own = tables["examples"].filter(checkpoint=name).with_columns(number)
        assert set(own["split"]) == {0, 1, 2}
        assert leaks(own, tables["contexts"]).is_empty()
    sides = tables["contexts"].group_by("cluster").agg(pl.col("split").n_unique())
    assert (sides["split"] == 1).all()


def test_every_token_that_is_named_reads_as_something(tables):
    named = pl.concat(
        [tables["tokens"]["token"], tables["promoted"]["token"], tables["contexts"]["tokens"].explode()]
    )
    assert set(named) <= set(tables["vocabulary"]["token"])
    assert (tables["vocabulary"]["text"].str.len_chars() > 0).mean() > 0.9


def test_one_pass_feeds_the_metrics_and_the_latents(run):
    events = [json.loads(line) for line in (run / "run.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [event["name"] for event in events if event["event"] == "step"]
    assert names.count("activation pass") == 1 and "sampling latents" in names


def test_damaged_tables_of_a_finished_run_are_made_anew(run, sampled_suite, tmp_path):
    again = shutil.copytree(run, tmp_path / "run")
    (again / "latents" / "examples.parquet").unlink()
    (again / "latents" / "tokens.parquet").write_bytes(b"no table")
    autointerp.evaluate(load_suite(sampled_suite), out=again)
    for name in TABLES:
        table = f"latents/{name}.parquet"
        assert (again / table).read_bytes() == (run / table).read_bytes(), name


def test_a_run_of_another_layout_is_refused_in_one_line(run, sampled_suite, tmp_path):
    older = shutil.copytree(run, tmp_path / "run")
    identity = json.loads((older / "identity.json").read_text(encoding="utf-8"))
    del identity["layout"]
    (older / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
    with pytest.raises(RunStoreError, match="holds another run: layout is null there"):
        autointerp.evaluate(load_suite(sampled_suite), out=older)


def test_a_latent_that_no_dictionary_has_is_refused_in_one_line(sampled_suite, tmp_path):
    suite = load_suite(sampled_suite, overrides=["sampling.latents=[3, 64]"])
    with pytest.raises(SuiteError, match="names latent 64, which no checkpoint has; the widest one has"):
        autointerp.evaluate(suite, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_list_of_latents_is_sampled_from_every_dictionary(sampled_suite, tmp_path):
    suite = load_suite(sampled_suite, overrides=["sampling.latents=[3, 60]", "corpus.evaluation_tokens=600"])
    autointerp.evaluate(suite, out=tmp_path / "run")
    latents = pl.read_parquet(tmp_path / "run" / "latents" / "latents.parquet").filter("is_sampled")
    found = dict(latents.group_by("checkpoint").agg("latent").iter_rows())
    assert found == {"topk": [3, 60], "relu": [3], "random dictionary 1": [3, 60]}
    assert latents["sampling_weight"].is_null().all()


def test_a_checkpoint_that_is_stopped_has_a_row_with_the_reason(sampled_suite, tmp_path):
    suite = load_suite(sampled_suite, overrides=["checks.largest_normalized_mse=0.0001"])
    autointerp.evaluate(suite, out=tmp_path / "run")
    coverage = pl.read_parquet(tmp_path / "run" / "latents" / "coverage.parquet")
    stopped = coverage.filter(status="failed")
    assert {"topk", "relu"} <= set(stopped["checkpoint"])
    assert stopped["reason"].str.contains("normalised MSE").all()
    assert stopped["scorable_fraction"].is_null().all()


def test_shares_that_do_not_add_up_and_empty_lists_are_refused(sampled_suite):
    with pytest.raises(SuiteError, match=r"add up to 1\.1"):
        load_suite(sampled_suite, overrides=["sampling.explain_fraction=0.5"])
    with pytest.raises(SuiteError, match="enabled = false"):
        load_suite(sampled_suite, overrides=["sampling.latents=[]"])


def test_without_sampling_there_are_no_tables_of_it(tiny_suite, tmp_path):
    report = autointerp.evaluate(load_suite(tiny_suite), out=tmp_path / "run")
    assert report.coverage == ()
    assert [file.name for file in (tmp_path / "run" / "latents").iterdir()] == ["firing.parquet"]
    assert not list((tmp_path / "run" / "chunks").glob("contexts*"))
