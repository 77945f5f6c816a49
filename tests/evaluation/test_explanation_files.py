"""explanations.jsonl and scores.jsonl: strict JSON Lines, whatever a model or a server said."""

import io
import json
from dataclasses import replace

import jsonlines
import polars as pl
import pytest
from explaining_a_dictionary import right
from hypothesis import example, given
from hypothesis import strategies as st

from autointerp.evaluation.explanations.files import explanation_row, lines, score_rows
from autointerp.explanation_records import Refusal
from autointerp.records import Undefined
from autointerp.scoring.latent_scores import LatentScore
from autointerp.scoring.score import Score

HOSTILE = 'a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x00h\ud800i\udc80j\r\nk\u202el\ufeffm\x7fn"\\</script>'


def strict(text):
    """By a reader that takes nothing but RFC 8259."""

    def refuse(word):
        raise ValueError(word)

    return [json.loads(line, parse_constant=refuse) for line in text.split("\n")[:-1]]


def test_an_explanation_and_a_refusal_are_lines():
    rows = [
        explanation_row("sae", 3, "highlighted", right(3)),
        explanation_row("sae", 4, "highlighted", Refusal("cut_off", "ended at its limit")),
    ]
    explained, refused = strict(lines(rows))
    assert (explained["status"], explained["latent"], explained["text"]) == (
        "explained",
        3,
        'The word "seven"',
    )
    assert refused == {
        "checkpoint": "sae", "latent": 4, "explainer": "highlighted", "status": "refused",
        "cause": "cut_off", "detail": "ended at its limit",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["text", "model", "fingerprint", "details"])
def test_hostile_texts_stay_on_their_line_and_are_utf_8(place):
    value = {"thoughts": HOSTILE} if place == "details" else HOSTILE
    row = explanation_row("sae", 3, "highlighted", replace(right(3), **{place: value}))
    content = lines([row, row]).encode()  # fails if there is half a surrogate pair
    assert len(content.decode().splitlines()) == 2, "no reader's idea of a line break breaks it"
    for found in (strict(content.decode()), list(jsonlines.Reader(io.BytesIO(content)))):
        said = found[0][place]["thoughts"] if place == "details" else found[0][place]
        assert said == HOSTILE.replace("\ud800", "\ufffd").replace("\udc80", "\ufffd")
    assert pl.read_ndjson(io.BytesIO(content)).height == 2


@given(st.text(st.characters(), max_size=40))
@example("\ud800\udc00 \udc00\x85")
def test_any_text_comes_back(text):
    (row,) = strict(lines([{"text": text}]).encode().decode())
    assert row["text"] == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_an_error_not_a_line(value):
    with pytest.raises(ValueError, match="JSON"):
        lines([{"value": value}])


def test_words_of_other_languages_are_legible():
    assert "«слово» 語" in lines([{"text": "«слово» 語"}])


def score(latent, metric, outcome, *, kind="own", explainer="highlighted", **setting):
    return LatentScore(
        "sae", latent, f"hash:{latent}", 2.0, f"explanation.{metric}", setting, explainer, kind, "detection",
        "oracle", outcome, {"cut_off": 1}, 12,
    )  # fmt: skip


def test_scores_of_one_latent_explainer_and_kind_are_one_line():
    measured = Score("detection_auroc", 0.9, 0.8, 0.95, 0.95, "Wilson", 12, 6, 6)
    rows = score_rows(
        [
            score(1, "detection_auroc", measured),
            score(2, "detection_auroc", measured),
            score(1, "detection_auroc", measured, kind="borrowed"),
            score(1, "detection_auroc", Undefined("one passage"), negatives="hard"),
            score(1, "detection_auroc", measured, explainer="contrastive"),
        ]
    )
    about = [(row["latent"], row["explainer"], row["explanation"], len(row["scores"])) for row in rows]
    assert about == [
        (1, "highlighted", "own", 2),
        (2, "highlighted", "own", 1),
        (1, "highlighted", "borrowed", 1),
        (1, "contrastive", "own", 1),
    ]
    first, second = strict(lines(rows))[0]["scores"]
    assert (first["value"], first["ci_low"], first["ci_high"], first["n"]) == (0.9, 0.8, 0.95, 12)
    assert rows[0]["ci_level"] == 0.95 and "ci_level" not in first, "once a line"
    assert second["slice"] == {"negatives": "hard"}
    assert (second["status"], second["reason"]) == ("undefined", "one passage")
    assert not {"value", "ci_low", "ci_high", "n"} & set(second), "missing is missing"
