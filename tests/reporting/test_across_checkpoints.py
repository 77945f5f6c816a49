"""Latents across checkpoints: shares counted by hand from the table, examples, links that open a latent."""

import dataclasses

import latent_examples
import numpy as np
import polars as pl
import pytest
from browser_visits import Visit, running_browser
from report_examples import HOSTILE
from scipy.stats import binomtest

from autointerp.reporting.across_checkpoints import across_sections
from autointerp.reporting.html_page import write_html_page
from autointerp.reporting.json_file import read_report, report_json
from autointerp.reporting.latent_matches import read_matches
from autointerp.sampling.latents.tables import MATCHES

OLD, NEW, NULL = "old", f"new \u202e{HOSTILE}", "random"


def write_matches(run, *, seed=0):
    """Rows of every sampled latent against every other dictionary, alike or not by chance."""
    rng = np.random.default_rng(seed)
    sampled = run.rows("latents", is_sampled=True)
    rows = []
    for one, latent in sampled.select("checkpoint", "latent").iter_rows():
        for other in (OLD, NEW, NULL):
            if other == one:
                continue
            cosine = 0.1 if NULL in (one, other) else float(rng.uniform(0.5, 1))
            nearest = int(rng.integers(16))
            followers = sorted({*rng.integers(16, size=int(rng.integers(3))).tolist()})
            followers = followers if cosine >= 0.7 else []
            together = float(rng.uniform()) if cosine >= 0.7 else None
            rows.append((one, latent, other, nearest, cosine, followers, together))
    frame = pl.DataFrame(rows, schema=MATCHES, orient="row")
    run.rewrite("matches", frame)
    return frame


@pytest.fixture
def run(tmp_path):
    made = latent_examples.write_run(tmp_path / "run", checkpoints=(OLD, NEW, NULL))
    report = read_report(made.folder / "report.json")
    roles = {OLD: "checkpoint", NEW: "checkpoint", NULL: "null"}
    summaries = [dataclasses.replace(each, role=roles[each.name]) for each in report.checkpoints]
    made.report = dataclasses.replace(report, checkpoints=tuple(summaries))
    (made.folder / "report.json").write_text(report_json(made.report), encoding="utf-8")
    made.matches = write_matches(made)
    return made


def section(run, *, listed=(), explained=()):
    [found] = across_sections(run.report, read_matches(run.folder, listed), explained)
    return found


def table(found, name):
    return next(part for part in found.parts if part.kind == "table" and part.name == name)


def reweighted(run, weight):
    frame = run.tables["latents"]
    run.rewrite("latents", frame.with_columns(sampling_weight=weight))


def test_shares_are_those_of_the_rows_with_wilsons_interval(run):
    pair = read_matches(run.folder).pair(OLD, NEW, level=0.95)
    rows = run.matches.filter(checkpoint=OLD, other_checkpoint=NEW).rows(named=True)
    matched = sum(row["cosine"] >= 0.7 and row["other_latent"] in row["followers"] for row in rows)
    lost = sum(row["cosine"] < 0.7 for row in rows)
    split = sum(len(row["followers"]) > 1 for row in rows)
    for share, count in ((pair.matched, matched), (pair.lost, lost), (pair.split, split)):
        assert share.value == pytest.approx(count / len(rows))
        oracle = binomtest(count, len(rows)).proportion_ci(0.95, method="wilson")
        assert (share.low, share.high) == pytest.approx((oracle.low, oracle.high))
    back = run.matches.filter(checkpoint=NEW, other_checkpoint=OLD)
    assert pair.gained.value == pytest.approx((back["cosine"] < 0.7).mean())
    assert pair.median_cosine == pytest.approx(np.median([row["cosine"] for row in rows]))
    together = [row["co_firing"] for row in rows if row["co_firing"] is not None]
    assert pair.median_co_firing == pytest.approx(np.median(together))


def test_the_section_has_every_ordered_pair_of_checkpoints_and_the_null_beside(run):
    found = section(run)
    assert "at least 0.7" in found.lead and "14 sampled" in found.lead and "95 %" in found.lead
    rows = table(found, "across").rows
    assert len(rows) == 2
    for row in rows:
        assert row.cells[3].sort == 0.0
        assert row.cells[3].text == "" and row.cells[3].detail.startswith("0 %")
        assert NULL in row.cells[3].hint


def test_latents_of_unequal_weight_count_by_it(run):
    reweighted(run, pl.when(pl.col("latent") < 8).then(10.0).otherwise(1.0))
    pair = read_matches(run.folder).pair(OLD, NEW, level=0.95)
    rows = run.matches.filter(checkpoint=OLD, other_checkpoint=NEW)
    weight = np.where(rows["latent"].to_numpy() < 8, 10.0, 1.0)
    is_lost = (rows["cosine"] < 0.7).to_numpy()
    assert pair.lost.value == pytest.approx(weight[is_lost].sum() / weight.sum())
    oracle = binomtest(5, rows.height).proportion_ci(0.95, method="wilson")
    assert pair.lost.high - pair.lost.low > oracle.high - oracle.low, "fewer count, so it is less sure"


def test_where_all_live_latents_were_looked_at_there_is_nothing_to_estimate(run):
    coverage = run.tables["coverage"].with_columns(live_count=pl.col("sampled_count"))
    run.rewrite("coverage", coverage)
    found = section(run)
    assert "of all live latents, 14 of each checkpoint, and exact." in found.lead
    assert {row.cells[2].detail for row in table(found, "across").rows} == {""}


def test_named_latents_speak_for_no_others(run):
    reweighted(run, pl.lit(None, dtype=pl.Float64))
    found = section(run)
    assert "14 of each checkpoint; they speak for no others" in found.lead
    assert {row.cells[2].detail for row in table(found, "across").rows} == {""}


def test_examples_are_what_they_are_said_to_be(run):
    truth = {(r["checkpoint"], r["latent"], r["other_checkpoint"]): r for r in run.matches.rows(named=True)}
    rows = table(section(run), "across-examples").rows
    kinds = [row.cells[2].sort for row in rows]
    assert set(kinds) == {"lost", "gained", "split"}
    assert all(kinds.count(kind) <= 8 for kind in kinds)
    for row, kind in zip(rows, kinds, strict=True):
        latent, one, _, other = (cell.sort for cell in row.cells[:4])
        found = truth[one, latent, other]
        assert one == (NEW if kind == "gained" else OLD)
        if kind == "split":
            assert [int(link.text) for link in row.cells[4].links] == found["followers"]
        else:
            assert found["cosine"] < 0.7
            assert row.cells[4].text == str(found["other_latent"])


def test_an_explanation_stands_beside_its_latent_and_puts_it_first(run):
    latent = table(section(run), "across-examples").rows[-1].cells[0].sort
    line = {"checkpoint": OLD, "latent": latent, "status": "explained", "text": "fires \u202eon def"}
    rows = table(section(run, explained=[line]), "across-examples").rows
    assert len(rows[0].cells) == 8
    first_split = next(row for row in rows if row.cells[2].sort == "split")
    assert first_split.cells[0].sort == latent
    assert first_split.cells[-1].text == "fires \ufffdon def"


def test_only_latents_of_the_list_are_links(run):
    listed = {(OLD, latent) for latent in range(16)}
    targets = [
        (row.cells[1].sort, link.target)
        for row in table(section(run, listed=listed), "across-examples").rows
        for link in row.cells[0].links
    ]
    assert {bool(target) for name, target in targets if name == OLD} == {True}
    assert {bool(target) for name, target in targets if name == NEW} == {False}


def test_no_table_no_section_and_an_older_one_says_so(run):
    older = run.matches.drop("followers", "co_firing")
    run.rewrite("matches", older)
    (box,) = section(run).parts
    assert "followers" in box.lines[0] and "run the evaluation again" in box.lines[0]
    (run.folder / "latents" / "matches.parquet").write_bytes(b"PAR1")
    assert section(run).parts[0].tone == "bad"
    (run.folder / "latents" / "matches.parquet").unlink()
    assert across_sections(run.report, read_matches(run.folder)) == ()


def test_one_checkpoint_alone_has_no_section(run):
    alone = dataclasses.replace(run.report, checkpoints=run.report.checkpoints[::2])
    assert across_sections(alone, read_matches(run.folder)) == ()


def test_a_checkpoint_that_was_not_sampled_is_listed_with_the_reason(run):
    failed = dataclasses.replace(run.report.checkpoints[0], name=latent_examples.FAILED)
    report = dataclasses.replace(run.report, checkpoints=(*run.report.checkpoints, failed))
    [found] = across_sections(report, read_matches(run.folder))
    assert "\x1b" not in found.parts[-1].lines[0]
    assert found.parts[-1].lines[0].startswith(f"{latent_examples.FAILED}: its weights are")


def test_a_link_opens_the_latent_and_closing_it_leads_back(run, tmp_path):
    page = tmp_path / "report.html"
    write_html_page(page, run.folder, run.report)
    with running_browser() as browser, Visit(browser, page, width=420, scheme="dark") as visit:
        links = visit.page.locator("table.across-examples a")
        for place in (0, links.count() - 1):
            link = links.nth(place)
            link.focus()
            visit.page.keyboard.press("Enter")
            visit.page.locator("#latent-dialog[open]").wait_for()
            number = visit.page.locator("#latent-title").inner_text()
            assert number.startswith(f"latent {link.inner_text()} ")
            visit.page.keyboard.press("Escape")
            visit.page.locator("#latent-dialog:not([open])").wait_for(state="attached")
            assert link.evaluate("x => x === document.activeElement")
        assert visit.page.locator("img").count() == 0
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 420
        assert visit.incidents == []
