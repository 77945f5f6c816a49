import dataclasses
import json
import math

import jsonschema
import pytest

from autointerp.errors import BadInputError
from autointerp.records import Estimate, Failed, Measured, MetricResult
from autointerp.reporting.json_file import ReportFileError, read_report, report_json, schema_json

DESIGN_KEYS = {
    "schema_version",
    "suite",
    "subject",
    "corpus",
    "checkpoints",
    "results",
    "comparisons",
    "cost",
    "provenance",
}
RESULT_KEYS = {"checkpoint", "metric", "slice", "status", "n", "sampled", "functional", "unit", "better"}
NUMBER_KEYS = {"value", "ci_low", "ci_high", "ci_level", "ci_method"}


@pytest.mark.parametrize("example", ["realistic", "hostile"])
def test_a_report_read_back_writes_the_same_text(example, request, tmp_path):
    text = report_json(request.getfixturevalue(example))
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    assert report_json(read_report(path)) == text
    assert report_json(read_report(tmp_path)) == text


def test_a_report_read_back_is_equal(realistic, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report_json(realistic), encoding="utf-8")
    assert read_report(path) == realistic


def test_the_file_has_the_keys_that_other_programs_rely_on(realistic):
    content = json.loads(report_json(realistic))
    assert set(content) == DESIGN_KEYS | {"metrics", "coverage", "explanations", "studies"}
    assert {"name", "path", "sha256", "format", "architecture", "latent_count", "site", "role"} <= set(
        content["checkpoints"][0]
    )


def test_only_measured_results_have_numbers_and_only_others_a_reason(realistic):
    results = json.loads(report_json(realistic))["results"]
    assert {result["status"] for result in results} == {"measured", "failed", "undefined", "skipped"}
    for result in results:
        if result["status"] == "measured":
            assert set(result) == RESULT_KEYS | NUMBER_KEYS
        else:
            assert set(result) == (RESULT_KEYS | {"reason"}) - {"n"}


def test_keys_are_sorted_and_the_text_ends_with_a_newline(realistic):
    text = report_json(realistic)
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_the_file_follows_the_shipped_schema(realistic, hostile):
    schema = json.loads(schema_json())
    jsonschema.Draft202012Validator.check_schema(schema)
    for report in (realistic, hostile):
        jsonschema.validate(json.loads(report_json(report)), schema)


BREAKAGES = {
    "unknown key": lambda c: c.update(extra=1),
    "value where it failed": lambda c: _result(c, "failed").update(value=1.0),
    "null value where it failed": lambda c: _result(c, "failed").update(value=None),
    "reason where it was measured": lambda c: _result(c, "measured").update(reason="why"),
    "no interval": lambda c: _result(c, "measured").pop("ci_low"),
    "no reason": lambda c: _result(c, "undefined").pop("reason"),
    "unknown status": lambda c: _result(c, "measured").update(status="fine"),
    "unknown role": lambda c: c["checkpoints"][0].update(role="baseline"),
    "no provenance": lambda c: c.pop("provenance"),
}


HOSTILE_TO_READERS = {  # what a JSON Schema has no words for
    "no definition": lambda c: c["metrics"].pop(0),
    "interval upside down": lambda c: _result(c, "measured").update(ci_low=2.0, ci_high=1.0),
    "comparison upside down": lambda c: c["comparisons"][0].update(ci_low=2.0, ci_high=1.0),
    "deep suite": lambda c: c["suite"].update(deep=json.loads("[" * 150 + "]" * 150)),
}


def _result(content, status):
    return next(result for result in content["results"] if result["status"] == status)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_schema_and_reader_refuse_the_same_breakages(breakage, realistic, tmp_path):
    content = json.loads(report_json(realistic))
    BREAKAGES[breakage](content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json.loads(schema_json()))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ReportFileError) as caught:
        read_report(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("breakage", HOSTILE_TO_READERS)
def test_the_reader_refuses_what_would_break_its_users(breakage, realistic, tmp_path):
    content = json.loads(report_json(realistic))
    HOSTILE_TO_READERS[breakage](content)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        ReportFileError, match=r"without a definition|lies above|more than 100 deep"
    ) as caught:
        read_report(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "no report.json"),
        ('{"schema_version": 99}', "schema_version 99"),
        ('{"schema_version": NaN}', "NaN is no JSON number"),
        ("\x00\xff", "no JSON"),
        ("[" * 200_000, "nested more than 100 deep"),
        ("[" * 500 + "]" * 500, "nested more than 100 deep"),
        ('{"schema_version": 1, "cost": {"a": 1e999}}', "1e999 is too large"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(text, said, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=said) as caught:
        read_report(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportFileError, match="no JSON"):
        read_report(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ReportFileError, match="No such file"):
        read_report(tmp_path / "absent.json")


def test_numbers_that_are_not_finite_cannot_be_written(realistic):
    with pytest.raises(ValueError, match="JSON"):
        report_json(dataclasses.replace(realistic, cost={"seconds": {"load": math.nan}}))


def test_what_json_has_no_word_for_cannot_be_written(realistic):
    with pytest.raises(ValueError, match="not JSON serializable"):
        report_json(dataclasses.replace(realistic, provenance={"when": object()}))


def test_a_result_of_an_undefined_metric_cannot_be_written(realistic):
    stray = MetricResult("topk-2k-k16", "made.up", {}, Failed("x"))
    with pytest.raises(ValueError, match=r"made\.up"):
        report_json(dataclasses.replace(realistic, results=(stray,)))


def test_floats_keep_their_exact_value(realistic, tmp_path):
    estimate = Estimate(0.1 + 0.2, 1e-300, 1.7976931348623157e308, 0.95, "", 0, "document")
    result = MetricResult("topk-2k-k16", "reconstruction.l0", {"k": 5, "deep": [1, None]}, Measured(estimate))
    path = tmp_path / "report.json"
    path.write_text(report_json(dataclasses.replace(realistic, results=(result,))), encoding="utf-8")
    assert read_report(path).results[0] == result
