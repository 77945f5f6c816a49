"""`evaluate` with a language model, over HTTP, against an oracle that sees the requests alone."""

import json
import sqlite3

import polars as pl
import pytest
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import BudgetReachedError, EndpointError
from autointerp.testing.planted_words import write_planted_words
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

KEY = "sk-a-key-that-must-not-be-found-anywhere"
ALL = '["token_table","detection","fuzzing","simulation","intruder","generation","surprisal"]'


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_planted_words(tmp_path_factory.mktemp("planted"), documents=160)


def run(suite, out, server, *, arguments=()):
    """Exit code and output of the command line; every request carries the key."""
    settings = [f"llm.base_url={server.base_url}", "llm.model=oracle", "nulls.random_dictionaries=0"]
    given = [part for setting in settings for part in ("--set", setting)]
    return CliRunner().invoke(
        app,
        ["evaluate", str(suite), "--out", str(out), *given, *arguments],
        env={"OPENAI_API_KEY": KEY},
    )


def results(out):
    report = json.loads((out / "report.json").read_text())
    return {(r["metric"], json.dumps(r["slice"], sort_keys=True)): r for r in report["results"]}, report


@pytest.fixture(scope="module")
def finished(suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    with tiny_chat_server(OracleBackend()) as server:
        done = run(suite, out, server, arguments=["--set", f"explanations.methods={ALL}"])
        yield out, done, server


def test_everything_is_measured(finished):
    out, done, _ = finished
    assert done.exit_code == 0, done.output
    found, report = results(out)
    for metric in ("detection_auroc", "fuzzing_auroc"):
        assert found[f"explanation.{metric}", "{}"]["value"] > 0.95
    assert found["explanation.simulation_correlation", "{}"]["value"] > 0.9
    assert report["explanations"]["explainers"] == ["highlighted", "token_statistics"]
    assert report["explanations"]["models"][0]["answered_by"] == "oracle"


def test_nulls_do_worse(finished):
    found, _ = results(finished[0])
    own = found["explanation.detection_auroc", "{}"]
    for kind in ("borrowed", "empty"):
        null = found["explanation.detection_auroc", json.dumps({"explanation": kind})]
        assert null["ci_high"] < own["ci_low"] or null["value"] < 0.8
    assert found["explanation.detection_over_borrowed", "{}"]["ci_low"] > 0


def test_cost_and_models_are_told(finished):
    _, report = results(finished[0])
    spent = report["cost"]["llm"]
    assert {row["role"] for row in spent["rows"]} == {"explainer", "simulator", "judge"}
    assert spent["totals"]["prompt_tokens"] > 0
    assert spent["per_million_latents"]["latents"] == 1_000_000
    assert "usd" not in spent["totals"], "the suite names no price"


def test_the_key_is_nowhere(finished):
    out, done, _ = finished
    assert KEY not in done.output
    for file in out.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


def test_what_was_explained_is_on_disk(finished):
    out = finished[0]
    rows = [json.loads(line) for line in (out / "explanations.jsonl").read_text().splitlines()]
    assert {row["explainer"] for row in rows} == {"highlighted", "token_statistics"}
    assert all(row["status"] == "explained" for row in rows)
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["explanation"] for row in scores} == {"own", "borrowed", "empty"}
    predictions = pl.read_parquet(out / "predictions" / "000.parquet")
    assert set(predictions["method"].unique()) >= {"detection", "fuzzing", "simulation", "intruder"}


def test_no_explanation_saw_what_is_scored(finished):
    out = finished[0]
    with sqlite3.connect(out / "llm_replies.sqlite") as answers:
        (count,) = answers.execute("SELECT COUNT(*) FROM answers WHERE role = 'explainer'").fetchone()
    assert count >= 12


def test_replayed_offline_to_the_same_results(finished, suite, tmp_path):
    out, _, server = finished
    again = tmp_path / "again"
    again.mkdir()
    (again / "llm_replies.sqlite").write_bytes((out / "llm_replies.sqlite").read_bytes())
    before = sum(server.log.asked.values())
    done = run(suite, again, server, arguments=["--set", f"explanations.methods={ALL}", "--offline"])
    assert done.exit_code == 0, done.output
    assert sum(server.log.asked.values()) == before, "nobody was asked"
    assert results(again)[1]["results"] == results(out)[1]["results"]


def test_offline_without_answers_is_one_line(finished, suite, tmp_path):
    done = run(suite, tmp_path / "none", finished[2], arguments=["--offline"])
    assert isinstance(done.exception, EndpointError)
    assert done.exception.exit_code == 2


def test_a_budget_stops_it_and_a_larger_one_goes_on(suite, tmp_path):
    with tiny_chat_server(OracleBackend()) as server:
        stopped = run(suite, tmp_path / "run", server, arguments=["--budget-tokens", "20000"])
        assert isinstance(stopped.exception, BudgetReachedError), stopped.output
        assert stopped.exception.exit_code == 5
        done = run(suite, tmp_path / "run", server, arguments=["--budget-tokens", "20000000"])
        assert done.exit_code == 0, done.output
        paid = server.log.answered
    with tiny_chat_server(OracleBackend()) as server:
        assert run(suite, tmp_path / "other", server).exit_code == 0
        assert server.log.answered == paid, "nothing is paid twice, nothing is left out"


def test_an_llm_explains_a_finished_run(suite, tmp_path):
    plain = CliRunner().invoke(
        app, ["evaluate", str(suite), "--out", str(tmp_path / "run"), "--set", "nulls.random_dictionaries=0"]
    )
    assert plain.exit_code == 0, plain.output
    assert results(tmp_path / "run")[1]["explanations"]["explainers"] == ["token_statistics"]
    with tiny_chat_server(OracleBackend()) as server:
        done = run(suite, tmp_path / "run", server)
    assert done.exit_code == 0, done.output
    report = results(tmp_path / "run")[1]
    assert report["explanations"]["explainers"][0] == "highlighted"
    assert report["cost"]["resumed_chunk_count"] == report["cost"]["chunk_count"], "the pass is not repeated"
