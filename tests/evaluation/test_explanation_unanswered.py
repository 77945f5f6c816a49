"""When a finished run asks again: where requests failed, and only there."""

import json

import polars as pl
import pytest

from autointerp.evaluation.explanations.unanswered import has_failed_requests


def predictions(folder, *causes):
    (folder / "predictions").mkdir(exist_ok=True)
    pl.DataFrame({"cause": causes}, schema={"cause": pl.String}).write_parquet(
        folder / "predictions" / "000.parquet"
    )


def explanations(folder, *rows):
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "explanations.jsonl").write_text(text, encoding="utf-8")


def test_a_run_without_explanations_lacks_none(tmp_path):
    assert not has_failed_requests(tmp_path)


def test_other_refusals_are_answers(tmp_path):
    predictions(tmp_path, None, "content_filter", "unparsable")
    explanations(tmp_path, {"text": "fires on failed_request"}, {"cause": "cut_off"})
    assert not has_failed_requests(tmp_path)


def test_one_failed_question_or_explanation_is_enough(tmp_path):
    predictions(tmp_path, None, "failed_request")
    assert has_failed_requests(tmp_path)
    predictions(tmp_path, None)
    explanations(tmp_path, {"text": "x"}, {"cause": "failed_request"})
    assert has_failed_requests(tmp_path)


@pytest.mark.parametrize("name", ["predictions/000.parquet", "explanations.jsonl"])
def test_what_cannot_be_read_is_made_again(tmp_path, name):
    predictions(tmp_path, None)
    (tmp_path / name).write_bytes(b"failed_request \xff\xfe")
    assert has_failed_requests(tmp_path)
