"""The section on explanations: numbers in the right cells, holes with reasons, hostile texts harmless."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from explanation_examples import MODELS, NULL, OWN, explained_report, lines, write_lines
from report_examples import HOSTILE

from autointerp.errors import RunStoreError
from autointerp.reporting.explanation_rows import explained_rows
from autointerp.reporting.explanations import explanation_sections, with_scores
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.rewrite import rewrite_report

CHROMIUM = Path("/usr/bin/chromium")
UNSEEN = "\u202e\u2066\u2069\u200b\ufeff\x07\x1b[31m"


@pytest.fixture(scope="module")
def report(realistic):
    return explained_report(realistic)


def section(report, explained=()):
    (found,) = explanation_sections(report, explained)
    return {getattr(part, "name", "") or part.title: part for part in found.parts}


def cells(table, *begins):
    """Cells by column title of the one row whose first cells begin like this."""
    titles = [column.title for column in table.columns]
    (row,) = (
        row
        for row in table.rows
        if all(f"{c.text} {c.detail}".startswith(b) for c, b in zip(row.cells, begins, strict=False))
    )
    return dict(zip(titles, row.cells, strict=True))


def test_a_run_that_explains_nothing_has_no_section(realistic):
    assert explanation_sections(realistic) == ()
    assert "Do explanations predict?" not in report_html(realistic)


def test_every_number_stands_in_its_cell(report):
    found = cells(section(report)["explanations"], OWN, "Detection highlighted")
    shown = {title: cell.text for title, cell in found.items()}
    assert shown["Own"] == "0.910" and found["Own"].detail == "[0.900, 0.920]"
    assert (shown["Borrowed"], shown["Empty"], shown["Hard"]) == ("0.520", "0.501", "0.830")
    assert shown["Own − borrowed"] == "0.390"
    assert shown["Refused"] == "0.060", "of detection's own questions"
    assert shown["Latents"] == "30"


def test_every_explainer_and_judge_is_a_row_and_parts_of_passages_are_none(report):
    rows = section(report)["explanations"].rows
    named = [(row.cells[0].text, row.cells[1].text, row.cells[1].detail) for row in rows]
    assert named == [
        (OWN, "Detection", "highlighted"),
        (OWN, "Detection", "token_statistics · token_table"),
        (OWN, "Fuzzing", "highlighted"),
        (OWN, "Simulation", "highlighted"),
        (NULL, "Detection", "highlighted"),
    ]


def test_refusals_are_of_the_rows_own_explainer(report):
    found = cells(section(report)["explanations"], OWN, "Detection token_statistics")
    assert (found["Own"].text, found["Refused"].text) == ("0.880", "0.040")
    fuzzing = cells(section(report)["explanations"], OWN, "Fuzzing")
    assert fuzzing["Refused"].text == "0.200", "of all methods, where this one has none"


def test_nulls_are_set_apart_in_both_tables(report):
    explained = with_scores(*lines()) + with_scores(*lines(NULL))
    for name in ("explanations", "explained"):
        rows = section(report, explained)[name].rows
        assert {(row.cells[0].text, row.is_null) for row in rows} == {(OWN, False), (NULL, True)}


def test_what_is_missing_has_no_number_and_says_why(report):
    parts = section(report, with_scores(*lines()))
    for table in (parts["explanations"], parts["explained"], parts["llm-cost"]):
        missing = [cell for row in table.rows for cell in row.cells if cell.kind == "missing"]
        assert missing
        assert all(cell.sort is None and (cell.hint or cell.detail) for cell in missing)
        assert {cell.text for cell in missing} <= {"—", ""}
    fuzzing = cells(parts["explanations"], OWN, "Fuzzing")["Own"]
    assert (fuzzing.badges[0].text, fuzzing.badges[0].hint) == ("failed", "out of memory")
    simulated = cells(parts["explanations"], OWN, "Simulation")
    assert simulated["Own"].hint == "every prediction is constant"
    assert simulated["Latents"].text == "—"


def test_a_latents_own_scores_stand_beside_its_text(report):
    table = section(report, with_scores(*lines()))["explained"]
    found = cells(table, OWN, "2", "fires on numbers 2")
    assert found["Detection AUROC"].text == "0.82" and found["Detection AUROC"].detail == "[0.72, 0.92]"
    assert found["Detection AUROC"].hint == "detection: Wilson"
    assert found["Borrowed"].text == "0.60"
    assert (found["Correlation"].text, found["Correlation"].hint) == ("—", "constant prediction")
    refused = cells(table, OWN, "2", "— refused")
    assert refused["Explanation"].detail == "refused: cut_off at its limit"
    assert refused["Detection AUROC"].hint


def test_explanations_are_drawn_neither_by_score_nor_by_order(report):
    explained = with_scores(*lines(latents=range(40)))
    shown = [row.cells[1].text for row in section(report, explained)["explained"].rows][::2]
    assert len(shown) == 8
    reordered = list(reversed(explained))
    again = [row.cells[1].text for row in section(report, reordered)["explained"].rows][::2]
    assert shown == again != [str(latent) for latent in range(8)]


def test_latents_of_checkpoints_that_the_report_does_not_have_are_not_shown(report):
    assert "explained" not in section(report, with_scores(*lines("other")))


def test_who_judged_and_what_it_cost(report):
    parts = section(report)
    (judge,) = parts["models"].rows
    assert [cell.text for cell in judge.cells] == [
        "judge", "gpt-x", "gpt-x-2026", "https://llm.example/v1", "temperature 0.0, seed 0",
    ]  # fmt: skip
    paid, unpriced = parts["llm-cost"].rows
    assert [cell.text.replace("\u202f", "") for cell in paid.cells][3:] == [
        "40", "3", "12000", "8000", "900", "0.2500",
    ]  # fmt: skip
    assert [cell.text for cell in unpriced.cells][-3:] == ["—", "99", "—"]
    outlook = " ".join(parts["What more would cost"].lines).replace("\u202f", "")
    assert "5000000 prompt tokens" in outlook and "1234 US $" in outlook and "11000 to 21000" in outlook


def test_without_a_model_it_says_how_to_add_one(realistic):
    parts = section(explained_report(realistic, models=[], spent={}))
    assert "models" not in parts and "llm-cost" not in parts
    assert "llm.base_url" in parts["Add a language model"].text


def test_answers_that_were_all_kept_are_no_empty_table(realistic):
    assert "No calls were made" in section(explained_report(realistic, spent={"rows": []}))


class Reader(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags |= {(tag, key) for key, _ in [*attributes, ("", "")]}

    def handle_data(self, data):
        self.text += data


def hostile_page(realistic):
    """(harmless page, page of the same report with attacks in all that comes from an LLM or its server)."""
    harmless = explained_report(realistic)
    attack = f"{HOSTILE}{UNSEEN}"
    judge = MODELS[0] | dict.fromkeys(("model", "answered_by", "fingerprint"), attack)
    explanations, scores = lines(text=attack)
    for row in explanations:
        row.update({"detail": attack} if row["status"] == "refused" else {"text": f"{attack}{'x' * 20_000}"})
    for row in scores:
        for each in row["scores"]:
            each.update({"ci_method": attack} if "value" in each else {"reason": attack})
    attacked = explained_report(realistic, models=[judge])
    return (
        report_html(harmless, None, with_scores(*lines())),
        report_html(dataclasses.replace(attacked), None, with_scores(explanations, scores)),
    )


def test_hostile_explanations_are_text_and_nothing_else(realistic):
    harmless, page = (Reader(page) for page in hostile_page(realistic))
    assert page.tags <= harmless.tags, "no element and no attribute comes from a text"
    assert "<script>alert(1)</script>" in page.text
    shown = page.text.partition('{"charts"')[0]
    assert not set(shown) & set("\u202e\u2066\u2069\u200b\ufeff\x07\x1b"), (
        "nothing turns or hides what is read"
    )


def test_a_hostile_page_runs_nothing_and_is_no_wider_than_the_window(realistic, tmp_path):
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: the page is not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="no Chromium: playwright is not installed")
    (tmp_path / "page.html").write_text(hostile_page(realistic)[1], encoding="utf-8")
    incidents = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(offline=True, viewport={"width": 480, "height": 800}).new_page()
        page.on("console", lambda message: incidents.append(message.text))
        page.on("pageerror", lambda error: incidents.append(str(error)))
        page.on("dialog", lambda dialog: (incidents.append("dialog"), dialog.dismiss()))
        page.goto((tmp_path / "page.html").as_uri())
        page.locator("table.explained").wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 480
        assert page.locator("img").count() == 0
        browser.close()
    assert incidents == []


@pytest.fixture
def run(report, tmp_path):
    (tmp_path / "report.json").write_text(report_json(report), encoding="utf-8")
    write_lines(tmp_path, *lines())
    return tmp_path


def test_a_rewritten_page_has_the_explanations(run):
    page = rewrite_report(run, form="html").read_text(encoding="utf-8")
    assert page == report_html(read_report(run / "report.json"), None, with_scores(*lines()))
    assert "fires on numbers 1" in page


def test_without_the_files_the_page_has_the_scores_alone(run):
    (run / "scores.jsonl").unlink()
    page = rewrite_report(run, form="html").read_text(encoding="utf-8")
    assert "Do explanations predict?" in page and "fires on numbers" not in page
    assert explained_rows(run) == []


def edited(name, **changes):
    def damage(run):
        rows = [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
        rows[1] = {key: value for key, value in (rows[1] | changes).items() if value is not ...}
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    return damage


def written(name, content):
    return lambda run: (run / name).write_bytes(content)


SCORES, EXPLANATIONS = "scores.jsonl", "explanations.jsonl"
DAMAGES = {
    "cut off": written(SCORES, b'{"checkpoint": "a", "lat'),
    "no object": written(EXPLANATIONS, b"[1, 2]\n"),
    "no UTF-8": written(EXPLANATIONS, b'{"checkpoint": "\xff"}\n'),
    "nested": written(SCORES, b"[" * 100_000),
    "no latent": edited(EXPLANATIONS, latent=...),
    "latent is a list": edited(EXPLANATIONS, latent=[1]),
    "latent is a text": edited(SCORES, latent="1"),
    "checkpoint is an object": edited(SCORES, checkpoint={}),
    "text is an object": edited(EXPLANATIONS, text={}),
    "scores is a number": edited(SCORES, scores=3),
    "a score is a text": edited(SCORES, scores=["high"]),
    "a score has no metric": edited(SCORES, scores=[{"judge": "j"}]),
    "a score has no interval": edited(SCORES, scores=[{"metric": "m", "judge": "j", "value": 0.5}]),
    "a score is NaN": edited(SCORES, scores=[{"metric": "m", "judge": "j", "value": float("nan")}]),
    "no reason": edited(SCORES, scores=[{"metric": "m", "judge": "j", "status": "undefined"}]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_clear_line(run, damage):
    DAMAGES[damage](run)
    with pytest.raises(RunStoreError) as caught:
        rewrite_report(run, form="html", out=run / "new.html")
    line = str(caught.value)
    assert ".jsonl: cannot be read; run the suite again (line " in line
    assert "\n" not in line and len(line) < 400
    assert not (run / "new.html").exists()


@pytest.mark.parametrize("form", ["json", "md", "csv"])
def test_other_formats_do_not_read_them(run, form):
    DAMAGES["cut off"](run)
    rewrite_report(run, form=form)
