"""A finished run is explained again: what failed is asked again, and nothing of before is mixed in."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.testing.planted_words import PLANTED, write_planted_words
from autointerp.testing.tiny_chat_server.exchange import error_answer
from autointerp.testing.tiny_chat_server.oracle_backend import OracleBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

SETTINGS = (
    "nulls.random_dictionaries=0",
    "explanations.judged_examples=3",
    "explanations.explain_examples=6",
    "explanations.latent_count=2",
    'explanations.methods=["detection"]',
    'explanations.nulls=["empty"]',
)


class Failing(OracleBackend):
    """Refuses the judge's first two questions."""

    failures = 2

    async def answer(self, call):
        is_question = call.body["model"] == "judge" and len(call.body.get("messages", ())) > 1
        if is_question and self.failures:
            self.failures -= 1
            return error_answer(400, "not today")
        return await super().answer(call)


def evaluated(suite, out, *settings):
    given = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    return CliRunner().invoke(app, ["evaluate", str(suite), "--out", str(out), *given])


def with_llm(suite, out, server, *, model="oracle"):
    return evaluated(
        suite, out, f"llm.base_url={server.base_url}", f"llm.model={model}", "llm.judge.model=judge"
    )


def refused(out):
    """Questions that were refused, and what the report says of explanations and of the LLM's cost."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    predictions = pl.read_parquet(out / "predictions" / "000.parquet")
    return [cause for cause in predictions["cause"] if cause], report["explanations"], report["cost"]["llm"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_planted_words(tmp_path_factory.mktemp("planted"), documents=60, words=PLANTED[:2])


def test_a_finished_run_asks_what_failed_and_forgets_what_it_was_before(suite, tmp_path):
    out = tmp_path / "run"
    with tiny_chat_server(Failing()) as server:
        assert with_llm(suite, out, server).exit_code == 0
        causes, _, _ = refused(out)
        assert set(causes) == {"failed_request"}

        asked = sum(server.log.asked.values())
        assert with_llm(suite, out, server).exit_code == 0
        causes, _, first = refused(out)
        assert causes == []
        assert sum(server.log.asked.values()) == asked + 2, "only what failed is asked again"

        assert with_llm(suite, out, server, model="other").exit_code == 0
    _, facts, cost = refused(out)
    assert {(row["role"], row["model"]) for row in facts["models"]} == {
        ("explainer", "other"),
        ("judge", "judge"),
    }
    assert cost["totals"]["calls"] > first["totals"]["calls"], "what the run cost in all"
    assert cost["per_million_latents"]["calls"] == first["per_million_latents"]["calls"]

    assert evaluated(suite, out, "explanations.enabled=false", "explanations.methods=[]").exit_code == 0
    left = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert not [name for name in left if name.startswith(("explanations", "scores", "predictions/"))]
    assert "observations/explanation.parquet" not in left
    assert "llm_replies.sqlite" in left, "what was paid stays"
