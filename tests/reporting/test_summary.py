import dataclasses

from autointerp.records import Estimate, Measured, MetricDefinition, MetricResult, Undefined
from autointerp.reporting.html_file import report_html
from autointerp.reporting.markdown_file import report_markdown
from autointerp.reporting.summary import headline_definitions, subject_facts, summary_section

CLEAN = MetricDefinition(
    "downstream.clean_ce_nats",
    "Subject's loss",
    "Mean cross entropy of the subject itself.",
    "nats",
    "neither",
    "ratio",
    "document",
    in_summary=False,
)


def _with_subject(report, outcome, settings=None):
    result = MetricResult("subject", CLEAN.name, settings or {}, outcome)
    return dataclasses.replace(
        report, definitions=(CLEAN, *report.definitions), results=(result, *report.results)
    )


def _loss():
    return Measured(Estimate(3.712, 3.683, 3.741, 0.95, "BCa", 412, "document"))


def test_columns_begin_with_what_a_narrow_terminal_must_show(realistic):
    backwards = dataclasses.replace(realistic, definitions=tuple(reversed(realistic.definitions)))
    assert [d.name for d in headline_definitions(backwards)] == [
        "reconstruction.l0",
        "reconstruction.normalized_mse",
        "downstream.delta_ce_nats",
        "downstream.kl_nats",
        "downstream.compute_equivalent_fraction",
        "reconstruction.dead_fraction",
    ]


def test_metrics_outside_the_summary_have_no_column(realistic):
    report = dataclasses.replace(
        realistic,
        definitions=[dataclasses.replace(d, in_summary=d.title != "KL") for d in realistic.definitions],
    )
    assert "KL" not in [d.title for d in headline_definitions(report)]
    assert "KL" in [d.title for d in headline_definitions(realistic)]


def test_the_summary_says_first_what_the_nulls_show(realistic):
    findings = summary_section(realistic).parts[-1]
    assert findings.lines[0] == "Every checkpoint is better than every null in Normalised MSE, ΔCE."


def test_what_was_measured_of_the_subject_stands_among_the_facts(realistic):
    report = _with_subject(realistic, _loss())
    assert subject_facts(report) == [("Subject's loss", "3.71 nats [3.68, 3.74]")]
    assert "3.71 nats [3.68, 3.74]" in report_html(report)
    assert "Subject's loss: **3.71 nats" in report_markdown(report).replace("\\", "")


def test_of_the_subject_only_headline_numbers_are_facts(realistic):
    assert subject_facts(realistic) == []
    assert subject_facts(_with_subject(realistic, Undefined("no text"))) == []
    assert subject_facts(_with_subject(realistic, _loss(), {"position": "0"})) == []
