"""The verdict on the report's first screen: only of the very report that is shown, and never garbled."""

import hashlib
import json

import pytest
from report_examples import HOSTILE

from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.json_file import report_json
from autointerp.reporting.report_document import build_document
from autointerp.reporting.verdict_section import VERDICT_FILE, ShownVerdict, read_verdict


def check(outcome="pass", **other):
    return {
        "rule": "small loss",
        "kind": "at_most",
        "reason": "users notice",
        "checkpoint": "sae",
        "outcome": outcome,
        "statement": "0.1 [0.09, 0.11] nats against at most 0.2",
    } | other


def content(verdict="pass", checks=(), **other):
    return {
        "schema_version": 1,
        "verdict": verdict,
        "policy": "release",
        "level": 0.95,
        "checks": list(checks),
    } | other


def gated(folder, written):
    """A run directory with a report and what a gate left there."""
    (folder / "report.json").write_text("{}")
    (folder / VERDICT_FILE).parent.mkdir(exist_ok=True)
    (folder / VERDICT_FILE).write_text(written if isinstance(written, str) else json.dumps(written))
    return read_verdict(folder, folder / "report.json")


OF_REPORT = {"report_sha256": hashlib.sha256(b"{}").hexdigest()}


def section(document, name):
    return next(section for section in document.sections if section.name == name)


def test_what_did_not_pass_stands_above_the_table(realistic):
    checks = [check(), check("undecided", needed="about 40 more documents"), check("fail", rule="few dead")]
    document = build_document(realistic, verdict=ShownVerdict(content("fail", checks)))
    names = [section.name for section in document.sections]
    assert names.index("verdict") < names.index("summary") < names.index("gate")
    (box,) = section(document, "verdict").parts
    assert box.title == "Gate: fail, by the policy release"
    assert box.tone == "bad"
    assert box.lines[0] == "Of 3 checks: 1 fail, 1 undecided, 1 pass."
    assert box.lines[1].startswith("fail: sae, few dead: ")
    assert box.lines[2].endswith("(about 40 more documents)")
    assert len(box.lines) == 3
    (table,) = section(document, "gate").parts
    assert [row.cells[0].badges[0].text for row in table.rows] == ["fail", "undecided", "pass"]


def test_many_failures_are_counted_and_all_in_the_table(realistic):
    checks = [check("fail", rule=f"rule {i}") for i in range(20)]
    document = build_document(realistic, verdict=ShownVerdict(content("fail", checks)))
    (box,) = section(document, "verdict").parts
    assert box.lines[-1] == "And 15 more that did not pass."
    assert len(section(document, "gate").parts[0].rows) == 20


def test_a_run_that_was_not_gated_says_nothing(realistic, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    assert read_verdict(tmp_path, tmp_path / "report.json") is None
    assert not {"verdict", "gate"} & {each.name for each in build_document(realistic).sections}


def test_a_verdict_of_this_report_is_shown(tmp_path):
    shown = gated(tmp_path, content(checks=[check()], **OF_REPORT))
    assert shown.problem == ""
    assert shown.content["verdict"] == "pass"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (content(checks=[check()], report_sha256="0" * 64), "another report.json"),
        (content(checks=[check()]), "another report.json"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "no verdict"),
        (content("perfect", **OF_REPORT), "no verdict"),
        (content(checks=[check("excellent")], **OF_REPORT), "no verdict"),
        (content(checks=[check(statement=3)], **OF_REPORT), "no verdict"),
        (content(checks=["pass"], **OF_REPORT), "no verdict"),
    ],
)
def test_what_is_no_verdict_of_this_report_is_not_shown(realistic, tmp_path, written, says):
    shown = gated(tmp_path, written)
    assert says in shown.problem
    document = build_document(realistic, verdict=shown)
    (box,) = section(document, "verdict").parts
    assert box.tone == "neutral" and says in box.lines[0]
    assert "gate" not in [each.name for each in document.sections]


def test_the_page_shows_the_verdict_and_runs_none_of_it(realistic, tmp_path):
    (tmp_path / "report.json").write_text(report_json(realistic))
    of_report = hashlib.sha256((tmp_path / "report.json").read_bytes()).hexdigest()
    hostile = check(
        "fail", rule=HOSTILE, statement=HOSTILE, reason=HOSTILE, checkpoint=HOSTILE, needed=HOSTILE
    )
    (tmp_path / "gate").mkdir()
    (tmp_path / VERDICT_FILE).write_text(
        json.dumps(content("fail", [hostile], policy=HOSTILE, baseline=HOSTILE, report_sha256=of_report))
    )
    write_html_page(tmp_path / "report.html", tmp_path, realistic)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'href="#gate"' in page
    assert "<script>alert(1)" not in page and "<img src=x" not in page
