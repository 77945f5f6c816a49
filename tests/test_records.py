"""The shapes that travel between the steps refuse what is not a number, and the errors say what to do."""

import dataclasses
import json

import polars as pl
import pytest

from autointerp import errors
from autointerp.records import (
    OBSERVATION_SCHEMA,
    CheckpointSummary,
    Estimate,
    EvaluationReport,
    Failed,
    Measured,
    MetricResult,
    Skipped,
    Undefined,
    observation_frame,
    slice_key,
)


def test_absent_columns_take_their_neutral_value():
    frame = observation_frame(checkpoint="a", metric="m", unit=["d1", "d2"], numerator=[1.0, 2.0])
    assert dict(frame.schema) == OBSERVATION_SCHEMA
    assert frame.row(1, named=True) == {
        "checkpoint": "a",
        "metric": "m",
        "slice": "{}",
        "group": "",
        "group_weight": 1.0,
        "unit": "d2",
        "cluster": "",
        "stratum": "",
        "numerator": 2.0,
        "denominator": 1.0,
        "label": None,
        "sampling_weight": 1.0,
        "replicate": 0,
        "status": "measured",
        "reason": "",
    }


def test_a_single_unit_may_be_a_plain_string():
    assert observation_frame(checkpoint="a", metric="m", unit="d", numerator=1.0).height == 1


def test_integers_become_floats():
    frame = observation_frame(checkpoint="a", metric="m", unit=["d"], numerator=[3], denominator=4)
    assert frame["numerator"].to_list() == [3.0]
    assert frame["denominator"].to_list() == [4.0]


def test_no_units_give_an_empty_frame_with_the_same_columns():
    frame = observation_frame(checkpoint="a", metric="m", unit=[], numerator=[])
    assert frame.height == 0
    assert dict(frame.schema) == OBSERVATION_SCHEMA


def test_a_slice_may_be_a_mapping_and_has_one_spelling():
    frame = observation_frame(checkpoint="a", metric="m", unit="d", numerator=1.0, slice={"k": 5, "a": "x"})
    assert frame["slice"].item() == '{"a":"x","k":5}' == slice_key({"a": "x", "k": 5})
    assert slice_key({}) == "{}"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_measured_row_without_a_finite_number_is_refused(bad):
    with pytest.raises(ValueError, match="no finite numerator"):
        observation_frame(checkpoint="a", metric="m", unit=["d", "e"], numerator=[1.0, bad])
    with pytest.raises(ValueError, match="no finite numerator"):
        observation_frame(checkpoint="a", metric="m", unit=["d", "e"], numerator=1.0, denominator=[1.0, bad])


def test_a_row_without_a_number_is_kept_with_its_status():
    frame = observation_frame(
        checkpoint="a", metric="m", unit=["d"], numerator=[None], status="undefined", reason="empty"
    )
    assert frame["numerator"].null_count() == 1


def test_unknown_and_missing_columns_are_named():
    with pytest.raises(ValueError, match=r"unknown columns \['colour'\], missing \['numerator'\]"):
        observation_frame(checkpoint="a", metric="m", unit="d", colour=1)


@pytest.mark.parametrize("name", ["value", "low", "high", "level"])
def test_an_estimate_must_be_finite(name):
    numbers = {"value": 1.0, "low": 0.0, "high": 2.0, "level": 0.95} | {name: float("nan")}
    with pytest.raises(ValueError, match="finite"):
        Estimate(**numbers, method="", n=1, sampled="document")


def test_outcomes_are_told_apart_by_their_status():
    outcome = Measured(Estimate(1.0, 0.0, 2.0, 0.95, "", 1, "document"))
    statuses = [each.status for each in (outcome, Undefined("u"), Failed("f"), Skipped("s"))]
    assert statuses == ["measured", "undefined", "failed", "skipped"]


def test_a_report_lists_its_failures():
    results = [
        MetricResult("a", "m", {}, Failed("out of memory")),
        MetricResult("a", "n", {}, Undefined("no observations")),
    ]
    report = EvaluationReport({}, {}, {}, [], [], results, [], {}, {})
    assert report.failures == results[:1]


def test_records_cannot_be_changed():
    summary = CheckpointSummary("a", "p", "0", "f", "relu", 1, 1, "s", "checkpoint", "none")
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.name = "b"


def test_the_observation_schema_survives_parquet(tmp_path):
    frame = observation_frame(checkpoint="a", metric="m", unit="d", numerator=1.0)
    frame.write_parquet(tmp_path / "x.parquet")
    assert pl.read_parquet(tmp_path / "x.parquet").equals(frame, null_equal=True)


def test_an_error_is_one_line_with_place_and_remedy():
    error = errors.CorpusError("no text\nfound", where="folder", remedy="name another")
    assert str(error) == "folder: no text found; name another"
    assert (error.what, error.where, error.remedy) == ("no text\nfound", "folder", "name another")
    assert str(errors.CorpusError("only this")) == "only this"


def test_every_error_is_ours_and_knows_its_exit_code():
    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert codes.pop("MetricFailedError") == 4
    assert codes.pop("InterruptedRunError") == 130
    assert codes.pop("BudgetReachedError") == 5
    assert codes.pop("AutointerpError") == 1
    assert set(codes.values()) == {2}
    assert all(issubclass(getattr(errors, name), errors.AutointerpError) for name in errors.__all__)


def test_slices_are_valid_json():
    assert json.loads(slice_key({"position": "1-3"})) == {"position": "1-3"}
