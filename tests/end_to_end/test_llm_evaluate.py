"""`evaluate` with a language model, over HTTP, against an oracle that sees the requests alone."""

import json
import sqlite3
import zlib
from contextlib import closing

import polars as pl
import pytest
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import BudgetReachedError, EndpointError
from autointerp.reporting.cost_charts import cost_chart
from autointerp.reporting.json_file import read_report
from autointerp.testing.planted_words import PLANTED, write_planted_words
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

KEY = "sk-a-key-that-must-not-be-found-anywhere"
ALL = ("token_table", "detection", "fuzzing", "simulation", "intruder", "generation")
FEW = (
    "nulls.random_dictionaries=0",
    "explanations.judged_examples=3",
    "explanations.explain_examples=8",
    "explanations.null_latents=5",
    "explanations.passage_tokens=16",
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_planted_words(tmp_path_factory.mktemp("planted"), documents=90, words=PLANTED[:6])


def evaluated(suite, out, *arguments, settings=()):
    """Exit code and output of the command line; every request carries the key."""
    given = [part for setting in (*FEW, *settings) for part in ("--set", setting)]
    return CliRunner().invoke(
        app,
        ["evaluate", str(suite), "--out", str(out), *given, *arguments],
        env={"OPENAI_API_KEY": KEY},
    )


def run(suite, out, server, *arguments, methods=("detection",)):
    """The same with an LLM."""
    settings = [f"llm.base_url={server.base_url}", "llm.model=oracle"]
    return evaluated(
        suite, out, *arguments, settings=[*settings, f"explanations.methods={json.dumps(methods)}"]
    )


def blobs(path):
    """All that a database of replies holds, unpacked where it is compressed."""
    with closing(sqlite3.connect(path)) as base:
        names = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for row in (row for name in names for row in base.execute(f'SELECT * FROM "{name}"')):
            for value in row:
                content = value if isinstance(value, bytes) else str(value).encode()
                try:
                    yield zlib.decompress(content)
                except zlib.error:
                    yield content


def results(out):
    report = json.loads((out / "report.json").read_text())
    return {(r["metric"], json.dumps(r["slice"], sort_keys=True)): r for r in report["results"]}, report


@pytest.fixture(scope="module")
def finished(suite, tmp_path_factory):
    """A run that was finished without an LLM, and then explained by one."""
    out = tmp_path_factory.mktemp("run") / "run"
    plain = evaluated(suite, out)
    assert plain.exit_code == 0, plain.output
    assert results(out)[1]["explanations"]["explainers"] == ["token_statistics"]
    with tiny_chat_server(OracleBackend()) as server:
        yield out, run(suite, out, server, methods=ALL), server


def test_everything_is_measured(finished):
    out, done, _ = finished
    assert done.exit_code == 0, done.output
    found, report = results(out)
    for metric in ("detection_auroc", "fuzzing_auroc"):
        assert found[f"explanation.{metric}", "{}"]["value"] > 0.9
    assert found["explanation.simulation_correlation", "{}"]["value"] > 0.9
    assert report["explanations"]["explainers"] == ["highlighted", "token_statistics"]
    assert report["explanations"]["models"][0]["answered_by"] == "oracle"


def test_nulls_do_worse(finished):
    found, _ = results(finished[0])
    own = found["explanation.detection_auroc", "{}"]
    for kind in ("borrowed", "empty"):
        null = found["explanation.detection_auroc", json.dumps({"explanation": kind})]
        assert null["value"] < own["value"] - 0.1
    assert found["explanation.detection_over_borrowed", "{}"]["ci_low"] > 0


def test_cost_and_models_are_told(finished):
    _, report = results(finished[0])
    spent = report["cost"]["llm"]
    assert {row["role"] for row in spent["rows"]} == {"explainer", "simulator", "judge"}
    assert spent["totals"]["prompt_tokens"] > 0
    assert spent["per_million_latents"]["latents"] == 1_000_000
    assert "usd" not in spent["totals"], "the suite names no price"


def test_what_a_latent_costs_is_drawn_against_what_its_explanations_tell(finished):
    out, _, _ = finished
    report = read_report(out / "report.json")
    chart = cost_chart(report)
    assert {point.series for point in chart.points} == {
        "highlighted · detection",
        "highlighted · fuzzing",
        "highlighted · simulation",
    }
    [tokens] = [point.x for point in chart.points if point.series.endswith("detection")]
    wanted = ("explaining.highlighted", "explanation.detection_auroc")
    rows = [row for row in report.cost["llm"]["rows"] if row["metric"] in wanted]
    spent = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    assert tokens == pytest.approx(spent / 6), "six words were planted, each with a latent"
    assert "explanation-cost" in (out / "report.html").read_text()


def test_the_key_is_nowhere(finished):
    out, done, _ = finished
    assert KEY not in done.output
    for file in out.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file
    kept = list(blobs(out / "llm_replies.sqlite"))
    assert any(b"oracle" in blob for blob in kept), "the search is inside of what is kept compressed"
    assert not any(KEY.encode() in blob for blob in kept)


def test_the_page_written_again_is_the_same(finished, tmp_path):
    out, again = finished[0], tmp_path / "again.html"
    done = CliRunner().invoke(app, ["report", str(out), "--format", "html", "--out", str(again)])
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == (out / "report.html").read_bytes()


def test_what_it_will_cost_is_said_before(finished):
    _, report = results(finished[0])
    spent, written = report["cost"]["llm"], ("explanation.generation_auroc",)
    counted = [row for row in spent["rows"] if row["metric"] not in written]
    estimate = spent["estimate"]
    calls = sum(row["calls"] for row in counted)
    assert abs(estimate["calls"] - calls) <= 0.1 * calls
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in counted)
    assert estimate["tokens_low"] <= tokens <= estimate["tokens_high"]


def test_what_was_explained_is_on_disk(finished):
    out = finished[0]
    rows = [json.loads(line) for line in (out / "explanations.jsonl").read_text().splitlines()]
    assert {row["explainer"] for row in rows} == {"highlighted", "token_statistics"}
    assert all(row["status"] == "explained" for row in rows)
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["explanation"] for row in scores} == {"own", "borrowed", "empty"}
    predictions = pl.read_parquet(out / "predictions" / "000.parquet")
    assert set(predictions["method"].unique()) >= {"detection", "fuzzing", "simulation", "intruder"}


def test_no_explainer_was_asked_about_documents_that_are_scored(finished):
    out = finished[0]
    with sqlite3.connect(out / "llm_replies.sqlite") as answers:
        rows = answers.execute("SELECT question FROM answers WHERE role = 'explainer'").fetchall()
    asked = [zlib.decompress(row[0]).decode().translate({ord(mark): None for mark in "«»"}) for row in rows]
    vocabulary = dict(pl.read_parquet(out / "latents" / "vocabulary.parquet").iter_rows())
    contexts = pl.read_parquet(out / "latents" / "contexts.parquet")
    shown = dict.fromkeys(("explain", "validate", "score"), 0)
    for split, tokens in contexts.select("split", "tokens").iter_rows():
        text = "".join(vocabulary[token] for token in tokens[1:])
        pieces = [text[place : place + 40] for place in range(0, len(text) - 40, 10)]
        shown[split] += any(piece in question for piece in pieces for question in asked)
    assert len(asked) >= 6
    assert shown["explain"] > 0
    assert shown["validate"] == shown["score"] == 0


def test_replayed_offline_to_the_same_results(finished, suite, tmp_path):
    out, _, server = finished
    again = tmp_path / "again"
    again.mkdir()
    (again / "llm_replies.sqlite").write_bytes((out / "llm_replies.sqlite").read_bytes())
    before = sum(server.log.asked.values())
    done = run(suite, again, server, "--offline", methods=ALL)
    assert done.exit_code == 0, done.output
    assert sum(server.log.asked.values()) == before, "nobody was asked"
    assert results(again)[1]["results"] == results(out)[1]["results"]


def test_offline_without_answers_is_one_line(finished, suite, tmp_path):
    done = run(suite, tmp_path / "none", finished[2], "--offline")
    assert isinstance(done.exception, EndpointError)
    assert done.exception.exit_code == 2


def test_a_budget_stops_it_and_a_larger_one_goes_on(finished, suite, tmp_path):
    out, _, whole = finished
    with tiny_chat_server(OracleBackend()) as server:
        stopped = run(suite, tmp_path / "run", server, "--budget-tokens", "6000")
        assert isinstance(stopped.exception, BudgetReachedError), stopped.output
        assert stopped.exception.exit_code == 5
        assert server.log.answered, "it was begun"
        last = json.loads((tmp_path / "run" / "run.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        assert last["event"] == "budget reached" and "budget" in last["reason"]
        done = run(suite, tmp_path / "run", server, "--budget-tokens", "20000000")
        assert done.exit_code == 0, done.output
        paid = server.log.answered
    assert paid.items() < whole.log.answered.items(), "an undisturbed run asks the same, and as often"
    own, undisturbed = results(tmp_path / "run")[0], results(out)[0]
    detection = [key for key in own if key[0].startswith("explanation.detection")]
    assert len(detection) > 10
    assert all(own[key] == undisturbed[key] for key in detection), "nothing is left out"


def test_what_is_explained_anew_is_not_measured_anew(finished):
    cost = results(finished[0])[1]["cost"]
    assert cost["resumed_chunk_count"] == cost["chunk_count"]
