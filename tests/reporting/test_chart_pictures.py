"""Charts as files: from the command line, and from the page in a browser."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest
from browser_visits import Visit, running_browser
from chart_examples import with_cost, with_headlines, with_probes, with_quantiles, with_widths
from report_examples import HOSTILE, density_observations
from typer.testing import CliRunner

from autointerp.cli import app
from autointerp.errors import RunStoreError
from autointerp.estimates.scaling_fits import scaling_facts
from autointerp.reporting.chart_data import charts_of
from autointerp.reporting.chart_pictures import PICTURE_NAMES, chart_pictures, picture_name, picture_title
from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import report_json
from autointerp.reporting.report_document import build_document
from autointerp.reporting.rewrite import rewrite_report


def run_of(report, folder):
    """A run's directory, with the observations of densities."""
    (folder / "observations").mkdir(parents=True)
    (folder / "report.json").write_text(report_json(report), encoding="utf-8")
    density_observations(report).write_parquet(folder / "observations" / "reconstruction.parquet")
    return folder


def test_the_command_writes_a_file_each_chart_and_each_histogram(realistic, tmp_path):
    run = run_of(realistic, tmp_path / "run")
    done = CliRunner().invoke(app, ["report", str(run), "--format", "svg"])
    assert done.exit_code == 0, done.output
    names = {file.name for file in (run / "charts").iterdir()}
    histograms = {f"density-{place + 1}.svg" for place in range(8)}
    assert (
        names
        == {"sparsity-reconstruction.svg", "sparsity-loss.svg", "positions.svg", "spectrum.svg"} | histograms
    )
    for file in (run / "charts").iterdir():
        text = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "var(" not in text and 'fill="#ffffff"' in text
    assert "random-8k-k32" in (run / "charts" / "density-8.svg").read_text()


def test_png_goes_where_it_is_told_and_leaves_what_is_there(realistic, tmp_path):
    results = [r for r in realistic.results if not r.slice]
    run = run_of(dataclasses.replace(realistic, results=results), tmp_path / "run")
    out = tmp_path / "elsewhere"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert rewrite_report(run / "report.json", form="png", out=out) == out
    assert (out / "mine.txt").read_text() == "mine"
    assert (out / "sparsity-loss.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_an_earlier_report_go_and_those_of_others_stay(realistic, tmp_path):
    run = run_of(realistic, tmp_path / "run")
    rewrite_report(run, form="svg")
    rewrite_report(run, form="png")
    (run / "charts" / "mine.svg").write_text("mine")
    fewer = [r for r in realistic.results if not r.slice and r.metric != "downstream.delta_ce_nats"]
    (run / "report.json").write_text(report_json(dataclasses.replace(realistic, results=fewer)))
    rewrite_report(run, form="svg")
    names = {file.name for file in (run / "charts").iterdir()}
    assert not {"sparsity-loss.svg", "positions.svg"} & names
    assert {"sparsity-reconstruction.svg", "density-8.svg", "mine.svg", "sparsity-loss.png"} <= names
    named = tmp_path / "named"
    named.mkdir()
    (named / "sparsity-loss.svg").write_text("another's")
    rewrite_report(run, form="svg", out=named)
    assert (named / "sparsity-loss.svg").read_text() == "another's"


def test_every_picture_has_a_name_by_which_it_is_known(realistic):
    wide = with_widths(realistic)
    several = [
        dataclasses.replace(c, site=f"blocks.{place % 2}") for place, c in enumerate(realistic.checkpoints)
    ]
    reports = (
        with_cost(with_quantiles(with_probes(with_headlines(realistic)))),
        dataclasses.replace(wide, studies={"scaling": scaling_facts(wide.results, wide.checkpoints)}),
        dataclasses.replace(realistic, checkpoints=several),
    )
    charts = [chart for r in reports for chart in build_document(r, density_observations(r)).charts]
    names = {picture_name(chart, 0) for chart in charts}
    assert {"explanation-cost", "probe-heatmap", "scaling-0-chart", "layers-normalized-mse"} <= names
    assert [name for name in names if not PICTURE_NAMES.fullmatch(name)] == []


def test_what_turns_the_words_around_it_is_shown_in_pictures_and_on_the_page(realistic):
    turned = {c.name: f"\u202e{c.name}\u2066" for c in realistic.checkpoints}
    report = dataclasses.replace(
        realistic,
        checkpoints=[dataclasses.replace(c, name=turned[c.name]) for c in realistic.checkpoints],
        results=[dataclasses.replace(r, checkpoint=turned[r.checkpoint]) for r in realistic.results],
        comparisons=[],
    )
    observations = density_observations(report)
    for picture in chart_pictures(charts_of(report, observations), "svg"):
        assert not set("\u202e\u2066") & set(picture.content.decode())
    page = report_html(report, observations)
    assert not set("\u202e\u2066") & set(page)
    assert "\\u202e" not in page and "\ufffdrelu-8k" in page


def test_what_cannot_be_written_is_one_clear_line(realistic, tmp_path):
    run = run_of(realistic, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStoreError, match="cannot be written"):
        rewrite_report(run, form="svg", out=tmp_path / "file")
    empty = dataclasses.replace(realistic, results=[])
    (run / "report.json").write_text(report_json(empty), encoding="utf-8")
    for file in (run / "observations").iterdir():
        file.unlink()
    with pytest.raises(RunStoreError, match="nothing that is drawn was measured"):
        rewrite_report(run, form="svg")


def test_names_from_outside_are_in_no_files_name_and_markup_in_no_picture(hostile):
    charts = charts_of(hostile, density_observations(hostile))
    for picture in chart_pictures(charts, "svg"):
        assert re.fullmatch(r"[a-z0-9-]+\.svg", picture.name)
        text = picture.content.decode()
        root = ElementTree.fromstring(text)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "img", "image", "a"}


def test_a_histogram_says_whose_it_is(realistic):
    (chart,) = [c for c in charts_of(realistic, density_observations(realistic)) if c.kind == "histogram"]
    assert picture_title(chart, 1).endswith(": topk-2k-k32")
    assert picture_name(chart, 1) == "density-2"


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(realistic, hostile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for name, report in (("realistic", realistic), ("hostile", hostile)):
        full = with_quantiles(with_probes(with_headlines(report)))
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(report_html(full, density_observations(full)), encoding="utf-8")
    return paths


def saved(visit, button):
    with visit.page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, download.value.path().read_bytes()


@pytest.mark.parametrize("name", ["realistic", "hostile"])
def test_the_page_saves_pictures_in_light_colours_whatever_its_own(browser, pages, name):
    with Visit(browser, pages[name], width=420, scheme="dark") as visit:
        figure = visit.page.locator("#charts figure.scatter").first
        file, content = saved(visit, figure.locator('[data-picture="svg"]'))
        assert file == "sparsity-reconstruction.svg"
        root = ElementTree.fromstring(content.decode())
        text = content.decode()
        assert "var(" not in text and "#2563c9" in text and "#ffffff" in text
        assert root.get("width") is not None and float(root.get("width")) > 600
        assert "Sparsity against reconstruction" in text
        assert not {e.tag.rpartition("}")[2] for e in root.iter()} & {"script", "img", "image"}
        assert HOSTILE not in text
        file, content = saved(visit, figure.locator('[data-picture="png"]'))
        assert file == "sparsity-reconstruction.png" and content.startswith(b"\x89PNG")
        histogram = visit.page.locator("#charts figure.histogram .panel").nth(2)
        file, content = saved(visit, histogram.locator('[data-picture="svg"]'))
        assert file == "density-3.svg"
        assert visit.incidents == []


def test_the_heat_map_is_drawn_and_says_why_a_place_is_empty(browser, pages):
    with Visit(browser, pages["realistic"]) as visit:
        page = visit.page
        figure = page.locator("figure.heatmap")
        assert figure.locator(".plot text", has_text="lexical_one · lexical").count() >= 1
        figure.locator(".plot text", has_text="×").first.hover(force=True)
        tooltip = page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert "undefined" in tooltip.inner_text() or "no memory" in tooltip.inner_text()
        assert page.locator("#vg-tooltip-element img, #vg-tooltip-element script").count() == 0
        figure.locator("summary").first.click()
        assert figure.locator("table").is_visible()
        assert visit.incidents == []


def test_groups_of_charts_have_their_heading_once(browser, pages):
    with Visit(browser, pages["realistic"]) as visit:
        headings = visit.page.locator("#charts h3.group").all_inner_texts()
        assert headings == ["Against sparsity", "Over the context"]
        tops = visit.page.eval_on_selector_all(
            "#charts figure.scatter .plot",
            "plots => plots.map(p => Math.round(p.getBoundingClientRect().top))",
        )
        assert tops[0::2] == tops[1::2], "plots side by side stand level, however long their captions"
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 1280
