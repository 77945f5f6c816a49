"""Workflows and commands that the documentation shows: they parse, and their verbs and options exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from autointerp.bundled import bundled_path
from autointerp.cli import app
from autointerp.gating.policy import load_policy

ROOT = Path(__file__).resolve().parents[1]
PRE_RELEASE = ROOT / "docs" / "workflows" / "pre-release.yml"
PAGES = ("README.md", "docs/gating.md")


def shown(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def steps_of(text):
    content = yaml.safe_load(text)
    jobs = content.get("jobs", {"job": content})
    return [step for job in jobs.values() for step in job["steps"]]


def commands_of(text):
    """Arguments of every `autointerp` in lines of a shell."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in parts if words[:1] == ["autointerp"]]


def parse(arguments):
    """As the command line itself does, without running anything; a wrong one raises."""
    group = typer.main.get_command(app)
    verb, *rest = arguments
    return group.commands[verb].make_context(verb, rest)


WORKFLOWS = {
    "docs/workflows/pre-release.yml": PRE_RELEASE.read_text(encoding="utf-8"),
    **{f"{page} {n}": text for page in PAGES for n, text in enumerate(shown(page, "yaml"))},
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_of_a_workflow_exists(name):
    steps = steps_of(WORKFLOWS[name])
    assert all(("run" in step) != ("uses" in step) for step in steps)
    commands = [each for step in steps for each in commands_of(step.get("run", ""))]
    assert {"evaluate", "gate"} <= {arguments[0] for arguments in commands}
    for arguments in commands:
        parse(arguments)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_about_gates_exists(page):
    shell = [each for text in shown(page, "sh") for each in commands_of(text)]
    gates = [arguments for arguments in shell if arguments[0] in ("gate", "compare", "report")]
    assert gates
    for arguments in gates:
        parse(arguments)


@pytest.mark.parametrize(
    "wrong", [["gate", "run", "--polcy", "x"], ["gate"], ["report", "r", "--format", "doc"]]
)
def test_a_wrong_command_would_be_noticed(wrong):
    with pytest.raises(Exception, match=r"(?i)no such option|missing|not one of|invalid"):
        parse(wrong)


def test_the_workflow_that_gates_a_release_is_eight_lines():
    (text,) = shown("README.md", "yaml")
    assert len(text.splitlines()) == 8, "the README says so"


def test_nothing_is_published_unless_the_gate_passed():
    steps = steps_of(WORKFLOWS["docs/workflows/pre-release.yml"])
    names = [step.get("name", "") for step in steps]
    gate, publish = names.index("Gate"), names.index("Publish")
    assert gate < publish
    assert not any("continue-on-error" in step for step in steps)
    assert "if" not in steps[publish], "a condition of its own would run it after a failure too"
    assert "|" not in steps[gate]["run"], "a pipe would hide the gate's exit code"
    # Texts of others (a tag's name) reach the shell as variables only.
    assert not any("${{" in step.get("run", "") for step in steps)


def test_the_policy_that_it_names_is_shipped_and_needs_the_baseline():
    policy = load_policy(bundled_path("policies", "pre-release.toml"))
    assert policy.needs_baseline
    assert {rule.kind for rule in policy.rules} == {"same", "better_than_null", "no_worse_than", "coverage"}
