"""The command line's part of an LLM: check-endpoint, budgets, and what --help teaches."""

import json
import re
import socket
import sys

import pytest

from autointerp.cli import main
from autointerp.testing.planted_words import write_planted_words
from autointerp.testing.tiny_chat_server.model_backend import ModelBackend
from autointerp.testing.tiny_chat_server.server import tiny_chat_server

KEY = "sk-this-key-is-told-to-nobody"


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit code, standard output, standard error of a command."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def ran(*arguments):
        monkeypatch.setattr(sys, "argv", ["autointerp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code or 0, *capsys.readouterr())

    return ran


@pytest.fixture(scope="module")
def server():
    with tiny_chat_server(ModelBackend(), api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_planted_words(tmp_path_factory.mktemp("planted"), documents=40, words=[("red",)])


def one_line(err):
    lines = [line for line in err.strip().splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err and KEY not in err
    return lines[0]


def test_check_endpoint_prints_what_was_measured(run, server):
    code, out, err = run("check-endpoint", server.base_url, "--model", "tiny-llama")
    assert code == 0, err
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if len(line.split()) > 1}
    for capability in ("chat", "completions", "logprobs", "top_logprobs", "echo"):
        assert rows[capability] == "yes", out
    assert rows["json_schema"] == "no", "the tiny model ignores it, and that is found out"
    assert KEY not in out


def test_check_endpoint_tells_programs_the_same(run, server):
    code, out, _ = run("check-endpoint", server.base_url, "--model", "tiny-llama", "--json")
    assert code == 0
    found = {row["capability"]: row["given"] for row in json.loads(out)}
    assert (found["echo"], found["json_schema"]) == ("yes", "no")


def test_nobody_listens(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: the connection is refused
        port = taken.getsockname()[1]
        code, out, err = run("check-endpoint", f"http://127.0.0.1:{port}/v1", "--model", "m")
    assert code == 2 and out == ""
    assert f"127.0.0.1:{port}" in one_line(err)


def test_a_wrong_key_is_one_line_that_names_the_variable(run, server, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-wrong-key-1234567")
    code, _, err = run(
        "check-endpoint", server.base_url, "--model", "tiny-llama", "--api-key-env", "OTHER_KEY"
    )
    assert code == 2
    said = one_line(err)
    assert "OTHER_KEY" in said and "sk-wrong" not in said


def test_a_budget_in_dollars_needs_a_price(run, suite, server, tmp_path):
    named = ("--set", f"llm.base_url={server.base_url}", "--set", "llm.model=tiny-llama")
    asked = sum(server.log.asked.values())
    code, _, err = run("evaluate", suite, "--out", tmp_path / "run", *named, "--budget-usd", "1")
    assert code == 2
    said = one_line(err)
    assert "tiny-llama" in said and "price" in said
    assert sum(server.log.asked.values()) == asked, "nobody was asked"


@pytest.mark.parametrize(
    "budget", [("--budget-usd", "-1"), ("--budget-tokens", "0"), ("--budget-usd", "nan")]
)
def test_a_budget_of_nothing_is_refused(run, suite, tmp_path, budget):
    code, _, err = run("evaluate", suite, "--out", tmp_path / "run", *budget)
    assert code == 2
    assert budget[0][2:].replace("-", "_") in one_line(err)


def test_an_explainer_without_a_model_is_one_line(run, suite, tmp_path):
    chosen = ("--set", 'explanations.explainers=["contrastive"]')
    code, _, err = run("evaluate", suite, "--out", tmp_path / "run", *chosen)
    assert code == 2
    assert "contrastive" in one_line(err)


def test_help_teaches(run):
    code, out, _ = run("evaluate", "--help")
    words = re.sub(r"[\s│]+", " ", out)
    assert code == 0
    for teaches in (
        "--set llm.model=", "llm.base_url", "OPENAI_API_KEY", "--offline", "llm_replies.sqlite",
        "--budget-usd", "llm.prices", "--budget-tokens", "resum",
    ):  # fmt: skip
        assert teaches in words, teaches
    code, out, _ = run("check-endpoint", "--help")
    words = re.sub(r"[\s│]+", " ", out)
    assert "OpenAI" in words and "--api-key-env" in words and "refuses the methods" in words
    code, out, _ = run("--help")
    assert "5 the LLM budget is used up" in re.sub(r"[\s│]+", " ", out)
