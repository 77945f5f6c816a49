"""What the gate writes: JSON, JUnit, Markdown, annotations, badge; and what it may load."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from gate_runs import METRIC, evidence, result, write_run
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.gating.badge import badge_svg
from autointerp.gating.github import annotations
from autointerp.gating.junit import junit_xml
from autointerp.gating.policy import Policy, Rule
from autointerp.gating.verdict import decide, verdict_json
from autointerp.gating.words import markdown, verdict_lines

HOSTILE = "x\n::error::y|<script>alert(1)</script>\x1b[31m\u202e%0A]]>\x00![i](http://a.b/c)"


@pytest.fixture
def verdict():
    rules = (
        Rule("fine", "because", "at_most", METRIC, limit=1.0),
        Rule("close", "because", "at_most", METRIC, limit=0.1),
        Rule(HOSTILE, HOSTILE, "at_most", METRIC, limit=0.01),
    )
    return decide(Policy(HOSTILE, rules), evidence([result(HOSTILE)], names=(HOSTILE,)))


def test_json_says_every_check(verdict):
    content = json.loads(json.dumps(verdict_json(verdict), allow_nan=False))
    assert content["verdict"] == "fail"
    assert [each["outcome"] for each in content["checks"]] == ["pass", "undecided", "fail"]
    assert content["checks"][2]["rule"] == HOSTILE, "JSON keeps what was said"


def test_junit_is_xml_and_counts(verdict):
    root = ElementTree.fromstring(junit_xml(verdict))
    assert root.attrib["tests"] == "3"
    assert (root.attrib["failures"], root.attrib["errors"]) == ("1", "1")
    assert len(root.findall(".//failure")) == 1
    assert len(root.findall(".//error")) == 1


def test_annotations_cannot_be_broken_out_of(verdict):
    lines = annotations(verdict)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(("::error title=", "::warning title="))
        assert not {"\n", "\r", "\x1b", "\u202e", "\x00"} & set(line)
        assert "%0A" not in line.replace("%25", "")


def test_markdown_and_terminal_show_text_only(verdict):
    text = markdown(verdict)
    assert "<script>" not in text
    assert "![" not in text.replace("\\!\\[", "")
    for line in [*text.splitlines(), *verdict_lines(verdict)]:
        assert not {"\x1b", "\u202e", "\x00"} & set(line)
    assert verdict_lines(verdict)[0].startswith("FAIL: ")


def test_the_badge_is_svg_and_says_the_outcome(verdict):
    root = ElementTree.fromstring(badge_svg(verdict))
    assert root.attrib["aria-label"] == "SAE gate: fail"


def test_the_command_line_writes_all_and_returns_the_verdicts_code(tmp_path):
    run = write_run(tmp_path / "run", {"sae": np.linspace(0.0, 0.2, 50)})
    policy = tmp_path / "p.toml"
    text = (
        'name = "p"\n[[rules]]\nname = "r"\nreason = "b"\nmetric = "downstream.delta_ce_nats"\nat_most = {}\n'
    )
    for limit, code in ((0.5, 0), (0.02, 1), (0.105, 3)):
        policy.write_text(text.format(limit))
        out = tmp_path / f"out{code}"
        done = CliRunner().invoke(app, ["gate", str(run), "--policy", str(policy), "--out", str(out)])
        assert done.exit_code == code, done.output
        assert sorted(file.name for file in out.iterdir()) == [
            "badge.svg",
            "junit.xml",
            "verdict.json",
            "verdict.md",
        ]
    told = CliRunner().invoke(app, ["gate", str(run), "--policy", str(policy), "--json"])
    assert json.loads(told.stdout)["verdict"] == "undecided"


def test_within_github_actions_it_annotates_and_summarises(tmp_path):
    run = write_run(tmp_path / "run", {"sae": np.linspace(0.0, 0.2, 50)})
    policy = tmp_path / "p.toml"
    policy.write_text(
        'name = "p"\n[[rules]]\nname = "r"\nreason = "b"\nmetric = "probe.loss_nats"\nat_most = 1\n'
    )
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = CliRunner().invoke(app, ["gate", str(run), "--policy", str(policy)], env=env)
    assert done.exit_code == 1
    assert "::error title=" in done.output
    assert "fail" in summary.read_text()


def test_a_gate_loads_nothing_heavy(tmp_path):
    run = write_run(tmp_path / "run", {"sae": np.linspace(0.0, 0.2, 50)})
    policy = tmp_path / "p.toml"
    policy.write_text(
        'name = "p"\n[[rules]]\nname = "r"\nreason = "b"\nmetric = "downstream.delta_ce_nats"\n'
        'no_worse_than = "baseline"\nmargin = 1\n'
    )
    code = (
        "import sys\nfrom autointerp.cli import main\n"
        f"given = ['gate', {str(run)!r}, '--policy', {str(policy)!r}, '--baseline', {str(run)!r}]\n"
        "sys.argv = ['autointerp', *given]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'sklearn', 'altair', 'jinja2', 'openai'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout, done.stdout
