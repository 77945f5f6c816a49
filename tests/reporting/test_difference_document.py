"""The page of a comparison: what it says against the differences, in words and in a real browser."""

import dataclasses
import json
import os

import numpy as np
import pytest
from browser_visits import Visit, running_browser
from compared_runs import PAIRED, SCORE, write
from report_examples import HOSTILE
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import RunStoreError
from autointerp.records import Measured, Skipped
from autointerp.reporting.difference_document import difference_document
from autointerp.reporting.difference_files import differences_text, write_differences
from autointerp.reporting.run_differences import compare_runs, detectable

MATCHED = {
    "checkpoint": f"sae {HOSTILE}",
    "reference": "sae",
    "status": "measured",
    "least_cosine": 0.7,
    "reference_live_count": 8,
    "live_count": 10,
    "matched_count": 5,
    "matched_fraction": 0.625,
    "median_cosine": 0.91,
    "lost_count": 40,
    "gained_count": 3,
    "split_count": 1,
    "merged_count": 0,
    "lost": list(range(40)),
    "gained": [1, 4, 9],
    "split": {"6": [2, 3]},
    "merged": {},
}
SKIPPED = {"checkpoint": "x", "reference": "x", "status": "skipped", "reason": "its file is another one"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    generator = np.random.default_rng(0)
    common = generator.normal(1, 0.5, 60)
    names = ("sae", f"evil {HOSTILE}", "\u202elate")
    mine = write(
        folder / "a",
        {
            "sae": common + 0.1 + generator.normal(0, 0.1, 60),
            names[1]: common - 0.4,
            names[2]: common + generator.normal(0, 1, 60),
            "new": common,
        },
        scores={"sae": np.ones(30)},
        name=f"after {HOSTILE}",
    )
    theirs = write(
        folder / "b",
        dict.fromkeys(names, common) | {"old": common},
        scores={"sae": generator.normal(0.5, 0.1, 40)},
        name="before",
        subject="another",
    )
    return mine, theirs


@pytest.fixture(scope="module")
def found(runs):
    return compare_runs(*runs)


@pytest.fixture(scope="module")
def document(found):
    return difference_document(found, [MATCHED, SKIPPED])


def section(document, name):
    return next(each for each in document.sections if each.name == name)


def table(document, name):
    return next(each for each in document.tables if each.name == name)


def titled(document, name):
    columns = [column.title for column in table(document, name).columns]
    return [dict(zip(columns, row.cells, strict=True)) for row in table(document, name).rows]


def test_every_measured_difference_has_its_row_with_all_that_is_known(document, found):
    rows = titled(document, "differences")
    measured = [each for each in found.comparisons if isinstance(each.outcome, Measured)]
    assert len(rows) == len(measured) == 4
    for row, each in zip(rows, measured, strict=True):
        assert row["Metric"].hint == each.metric
        assert row["A − B"].sort == each.outcome.estimate.value
        assert row["p"].sort == each.p_value
        assert row["p, adjusted"].sort == each.adjusted_p_value
        assert row["Slice"].text == "all"
        if row["Detectable"].sort is not None:
            assert row["In detectable"].sort == pytest.approx(row["A − B"].sort / detectable(each))
    assert {row["Units"].text for row in rows if row["Metric"].hint == PAIRED} == {"paired"}
    [score] = [row for row in rows if row["Metric"].hint == SCORE]
    assert (score["Units"].text, score["Units"].detail) == ("independent", "samples of 30 and 40 documents")
    assert (rows[0]["A"].sort, rows[0]["B"].sort) == (1, 1), "each run's own number"
    assert score["A"].kind == score["B"].kind == "missing"


def test_a_bar_has_no_difference_in_its_middle(document):
    for row in titled(document, "differences"):
        bar = row["In detectable"].bar
        if bar is None:
            continue
        assert bar.has_middle and 0 <= bar.low <= bar.value <= bar.high <= 1
        value = row["A − B"].sort
        assert (bar.value > 0.5) == (value > 0)
        crosses = "−" in row["A − B"].detail and "+" in row["A − B"].detail
        assert (bar.low < 0.5 < bar.high) == crosses


def test_worse_comes_first_in_words_and_nothing_is_said_of_what_cannot_be_told(document):
    boxes = section(document, "findings").parts
    assert [box.title for box in boxes] == ["Of A’s checkpoints", "Worse", "Better"]
    assert "2 worse" in boxes[0].lines[0] and "1 cannot tell" in boxes[0].lines[0]
    assert boxes[1].tone == "bad" and len(boxes[1].lines) == 2
    assert boxes[1].lines[0].startswith(f"sae, {PAIRED}: +0.1")
    assert "adjusted p" in boxes[1].lines[0]


def test_what_could_not_be_compared_is_listed_with_the_reason(document, found):
    lines = section(document, "open").parts[0].lines
    assert "the two runs have another subject" in lines
    assert "new is a checkpoint of run A only: skipped" in lines
    assert "old is a checkpoint of run B only: skipped" in lines
    lost = dataclasses.replace(found.comparisons[0], outcome=Skipped("not <asked>"), p_value=None)
    fewer = difference_document(dataclasses.replace(found, comparisons=[lost, *found.comparisons[1:]]))
    [row] = [row for row in titled(fewer, "open") if row["Status"].sort == "skipped"]
    assert (row["Checkpoint"].text, row["Reason"].text) == ("sae", "not <asked>")
    assert len(table(fewer, "differences").rows) == 3


def test_both_runs_and_their_checkpoints_are_named(document):
    facts = {row["What"].text: (row["A"].text, row["B"].text) for row in titled(document, "compared")}
    assert facts["Suite"] == (f"after {HOSTILE}", "before")
    assert facts["Subject, sha256"] == ("s", "another")
    checkpoints = table(document, "compared-checkpoints").rows
    assert len(checkpoints) == 3
    assert checkpoints[0].cells[1].hint == "0" * 8
    assert checkpoints[0].cells[-1].text == "the same"


def test_latents_have_shares_examples_and_reasons(document):
    [row] = titled(document, "latents")
    assert (row["Kept"].text, row["Kept"].detail) == ("62.5 %", "5 of 8")
    assert row["Gained"].detail == "3 of 10"
    assert row["Co-activation"].kind == "missing"
    examples = {row["What"].sort: row["Latents"] for row in titled(document, "latents-examples")}
    assert list(examples) == ["lost", "gained", "split"]
    assert examples["lost"].text.endswith(", 29") and "10 more" in examples["lost"].detail
    assert examples["split"].text == "6 → 2, 3"
    assert section(document, "latents").parts[-1].lines == ("x against x: its file is another one",)
    assert "0.7" in section(document, "latents").lead


def test_without_latents_or_differences_it_is_still_a_page(found):
    bare = difference_document(dataclasses.replace(found, comparisons=[], notes=(), alone=((), ())))
    assert [each.name for each in bare.sections] == ["findings", "all-differences", "open", "compared"]
    assert section(bare, "open").parts[0].title == "Nothing was left out"


def test_the_page_opens_offline_sorts_filters_hides_and_runs_nothing_foreign(found, tmp_path):
    page = tmp_path / "compared.html"
    write_differences(found, page, [MATCHED, SKIPPED])
    for width, scheme in ((1280, "light"), (420, "dark")):
        with running_browser() as browser, Visit(browser, page, width=width, scheme=scheme) as visit:
            shown = visit.page
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.locator("img").count() == 0
            assert "\u202e" not in shown.locator("body").inner_text()
            shown.locator("table.differences th", has_text="In detectable").locator("button").click()
            place = shown.locator("details[data-hides='differences']")
            place.locator("summary").click()
            place.get_by_label("Units").uncheck()
            assert shown.locator("[data-found='differences']").inner_text() == "1 column hidden"
            with shown.expect_download() as download:
                shown.locator("#download").click()
            assert download.value.suggested_filename == "differences.json"
            with open(download.value.path(), encoding="utf-8") as file:  # noqa: PTH123
                assert len(json.load(file)["differences"]) == len(found.comparisons)
            assert visit.incidents == []


def test_the_command_writes_what_the_name_says_and_prints_as_before(runs, tmp_path):
    told = ["compare", *map(str, runs)]
    plain = CliRunner().invoke(app, told)
    for suffix, beginning in ((".html", "<!doctype html>"), (".JSON", "{"), (".md", "| Checkpoint")):
        target = tmp_path / f"compared{suffix}"
        done = CliRunner().invoke(app, [*told, "--out", str(target)])
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(plain.stdout.rstrip("\n"))
        assert done.stdout.rstrip().endswith(target.name)
        assert target.read_text(encoding="utf-8").startswith(beginning)


def test_another_name_is_one_line_before_anything_is_read(tmp_path):
    done = CliRunner().invoke(app, ["compare", "nowhere", "nowhere", "--out", str(tmp_path / "x.pdf")])
    assert isinstance(done.exception, RunStoreError)
    assert str(done.exception).endswith("does not say what to write; end it in .html, .json or .md")


@pytest.mark.parametrize("suffix", [".html", ".json", ".md"])
def test_a_write_that_fails_leaves_the_old_file_whole(found, tmp_path, monkeypatch, suffix):
    target = tmp_path / f"old{suffix}"
    target.write_text("old")
    text = differences_text(found, suffix=suffix)
    assert len(text) > 100

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunStoreError, match="No space left"):
        write_differences(found, target)
    assert target.read_text() == "old"
