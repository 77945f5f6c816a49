"""Model card, Neuronpedia lines and Parquet tables: what they hold, and that hostile text stays text."""

import json

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.records import Measured
from autointerp.reporting.json_file import report_json
from autointerp.reporting.model_card import model_card
from autointerp.reporting.neuronpedia_file import neuronpedia_lines
from autointerp.reporting.parquet_files import write_parquet_tables

ROW = {
    "checkpoint": "",
    "latent": 7,
    "explainer": "highlighted",
    "status": "explained",
    "text": "fires on `---`\n---\n<script>",
    "model": "m",
    "scores": [
        {
            "metric": "explanation.detection_auroc",
            "judge": "j",
            "explanation": "own",
            "value": 0.8,
            "ci_low": 0.7,
            "ci_high": 0.9,
            "ci_method": "b",
            "n": 40,
        },
        {"metric": "explanation.detection_auroc", "judge": "j", "explanation": "borrowed", "value": 0.5},
        {
            "metric": "explanation.detection_auroc",
            "judge": "j",
            "explanation": "own",
            "value": 0.6,
            "slice": {"negatives": "hard"},
        },
        {
            "metric": "explanation.detection_precision",
            "judge": "j",
            "explanation": "own",
            "reason": "never said yes",
        },
    ],
}


@pytest.fixture(params=["realistic", "hostile"])
def report(request):
    return request.getfixturevalue(request.param)


def judged(report):
    return [each.name for each in report.checkpoints if each.role == "checkpoint"]


def test_the_card_holds_every_measured_headline_of_every_checkpoint(report):
    card = model_card(report)
    head = yaml.safe_load(card.split("---\n")[1])
    assert [entry["name"] for entry in head["model-index"]] == judged(report)
    shown = {definition.name for definition in report.definitions if definition.in_summary}
    for entry in head["model-index"]:
        values = {each["metrics"][0]["type"]: each["metrics"][0]["value"] for each in entry["results"]}
        assert values == {
            result.metric: result.outcome.estimate.value
            for result in report.results
            if result.checkpoint == entry["name"]
            and result.metric in shown
            and not result.slice
            and isinstance(result.outcome, Measured)
        }
    assert "&id" not in card, "no YAML aliases: readers of cards do not follow them"


def test_the_card_names_what_has_no_number(report):
    shown = {definition.name for definition in report.definitions if definition.in_summary}
    names = {each.name for each in report.checkpoints}
    missing = [
        result
        for result in report.results
        if result.metric in shown
        and not result.slice
        and result.checkpoint in names
        and not isinstance(result.outcome, Measured)
    ]
    body = model_card(report).split("---\n", 2)[2]
    assert ("Without a number" in body) == bool(missing)
    assert "<script>" not in body


def test_neuronpedia_lines_hold_own_headline_scores_only(realistic):
    first = judged(realistic)[0]
    null = next(each.name for each in realistic.checkpoints if each.role == "null")
    rows = [
        ROW | {"checkpoint": first},
        ROW | {"checkpoint": first, "status": "refused", "text": None},
        ROW | {"checkpoint": null},
    ]
    [line] = neuronpedia_lines(realistic, rows).splitlines()
    content = json.loads(line)
    assert (content["index"], content["description"]) == ("7", ROW["text"])
    [score] = content["scores"]
    assert score["value"] == 0.8
    assert json.loads(score["jsonDetails"])["ci_low"] == 0.7
    assert content["layer"].endswith(f"-{first}") or content["layer"] == first


def test_parquet_tables_hold_every_row(report, tmp_path):
    rows = [ROW | {"checkpoint": judged(report)[0]}]
    write_parquet_tables(report, rows, tmp_path / "tables")
    results = pl.read_parquet(tmp_path / "tables" / "results.parquet")
    assert results.height == len(report.results)
    measured = results.filter(pl.col("status") == "measured")
    assert measured["value"].null_count() == 0
    assert (
        results.filter(pl.col("status") != "measured")["value"].null_count()
        == results.height - measured.height
    )
    assert pl.read_parquet(tmp_path / "tables" / "comparisons.parquet").height == len(report.comparisons)
    scores = pl.read_parquet(tmp_path / "tables" / "scores.parquet")
    assert scores.height == len(ROW["scores"])
    assert sorted(scores["explanation"].unique()) == ["borrowed", "own"]


def test_the_command_line_writes_each_form(realistic, tmp_path):
    (tmp_path / "report.json").write_text(report_json(realistic))
    for form, name in (
        ("model-card", "model-card.md"),
        ("neuronpedia", "explanations.neuronpedia.jsonl"),
        ("parquet", "tables"),
    ):
        done = CliRunner().invoke(app, ["report", str(tmp_path), "--format", form])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).exists()


def test_without_text_no_explanation_is_in_the_page(realistic, tmp_path):
    name = judged(realistic)[0]
    (tmp_path / "report.json").write_text(report_json(realistic))
    secret = "an-explanation-that-quotes-the-corpus"
    line = {key: value for key, value in ROW.items() if key != "scores"} | {
        "checkpoint": name,
        "text": secret,
    }
    (tmp_path / "explanations.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "scores.jsonl").write_text("")
    for flags, is_there in (([], True), (["--without-text"], False)):
        for form, file in (("html", "report.html"), ("neuronpedia", "explanations.neuronpedia.jsonl")):
            done = CliRunner().invoke(app, ["report", str(tmp_path), "--format", form, *flags])
            assert done.exit_code == 0, done.output
            if form == "neuronpedia" or not is_there:
                assert (secret in (tmp_path / file).read_text()) == is_there
