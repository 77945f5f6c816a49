"""The page in a real browser: it draws, asks for nothing, and runs nothing that it was handed."""

import base64
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser_visits import Visit, running_browser
from report_examples import HOSTILE, density_observations

from autointerp.reporting.html_file import report_html
from autointerp.reporting.json_file import report_json


@pytest.fixture(scope="module")
def pages(realistic, hostile, tmp_path_factory):
    """Paths of the rendered pages by name."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for name, report in (("realistic", realistic), ("hostile", hostile)):
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(report_html(report, density_observations(report)), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def visit(browser, pages):
    """One visit for all tests that touch different controls."""
    with Visit(browser, pages["realistic"]) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("realistic", 1280, "light"), ("hostile", 420, "dark")]
)
def test_the_page_opens_offline_draws_every_chart_and_runs_nothing_foreign(
    browser, pages, name, width, scheme
):
    with Visit(browser, pages[name], width=width, scheme=scheme) as visit:
        page = visit.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("script").count() == 4
        assert page.locator("img").count() == 0
        page.locator("table.summary thead button").first.click()
        page.locator("input[data-filters]").first.fill("alert")
        page.locator("summary").first.click()
        page.locator('.plot svg path[aria-roledescription="point"]').first.hover(force=True)
        tooltip = page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert ("alert(1)" in tooltip.inner_text()) == (name == "hostile")
        assert page.locator("img, #vg-tooltip-element script").count() == 0
        assert visit.incidents == []
        if name == "hostile":
            assert page.locator("h1").inner_text() == f"suite{HOSTILE}"


def test_columns_are_sorted_with_nulls_and_holes_last(visit):
    button = visit.page.locator("table.summary th", has_text="KL").locator("button")
    names = "[...document.querySelectorAll('table.summary tbody th .main')].map(x => x.textContent)"
    button.focus()
    visit.page.keyboard.press("Enter")
    rising = visit.page.evaluate(names)
    visit.page.keyboard.press("Enter")
    falling = visit.page.evaluate(names)
    assert rising[:2] == ["topk-8k-k64", "topk-8k-k32"]
    assert falling[:2] == ["topk-2k-k16", "topk-8k-k16"]
    assert rising[-2:] == falling[-2:] == ["jumprelu-8k", "random-8k-k32"]
    assert visit.page.locator("table.summary th", has_text="KL").get_attribute("aria-sort") == "descending"


def test_what_has_no_value_is_sorted_by_its_reason(visit):
    cells = "".join(
        f'<tr><th>row</th><td class="missing">—<span class="detail">{reason}</span></td></tr>'
        for reason in ("too few", "failed", "too few", "failed")
    )
    reasons = "[...document.querySelectorAll('table.summary tbody .detail')].map(x => x.textContent)"
    visit.page.locator("table.summary tbody").evaluate("(body, cells) => { body.innerHTML = cells; }", cells)
    visit.page.locator("table.summary th button").nth(1).click()
    assert visit.page.evaluate(reasons) == ["failed", "failed", "too few", "too few"]


def test_the_filter_hides_rows_and_says_how_many_are_left(visit):
    visit.page.locator('input[data-filters="results"]').fill("TOPK-2k position 4–15")
    texts = visit.page.locator("table.results tbody tr:visible").all_inner_texts()
    assert len(texts) == 2
    assert all("topk-2k" in text and "position 4–15" in text for text in texts)
    assert visit.page.locator('[data-found="results"]').inner_text() == "2 of 81 rows"
    visit.page.locator('input[data-filters="results"]').fill("")
    assert visit.page.locator("table.results tbody tr:visible").count() == 81


def test_the_theme_can_be_changed_and_charts_change_with_it(visit):
    color = "getComputedStyle(document.querySelector('.plot svg text')).fill"
    before = visit.page.evaluate(color)
    visit.page.locator("#theme").click()
    assert visit.page.evaluate(color) != before


def test_the_embedded_report_can_be_saved(visit, realistic):
    with visit.page.expect_download() as download:
        visit.page.locator("#download").click()
    assert Path(download.value.path()).read_text(encoding="utf-8") == report_json(realistic)


def test_every_control_and_region_has_a_name(visit):
    unnamed = visit.page.evaluate(
        "[...document.querySelectorAll('button, [role=img], [role=region], nav')]"
        ".filter(x => !(x.getAttribute('aria-label') || x.textContent).trim()).length"
    )
    assert unnamed == 0
    assert visit.page.evaluate(
        "[...document.querySelectorAll('input')].every(x => x.labels[0].textContent.trim())"
    )


def test_paper_shows_whole_tables_in_light_colors_whatever_the_theme(visit):
    visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    scrolled = "[...document.querySelectorAll('.scroll')].filter(x => x.scrollHeight > x.clientHeight + 1)"
    assert visit.page.evaluate(f"{scrolled}.length") == 0
    assert visit.page.locator("nav").is_hidden()
    visit.page.emulate_media(media="screen")
    assert visit.incidents == []


class Reader(HTMLParser):
    """Collects start tags with their attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_no_attack_becomes_an_element_or_an_attribute(pages):
    """The same without a browser: the page of the attacks has the elements of the harmless one."""
    found = {}
    for name, path in pages.items():
        reader = Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        found[name] = {(tag, key) for tag, attributes in reader.tags for key in (*attributes, "")}
        ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
    assert found["hostile"] <= found["realistic"]


def test_the_policy_admits_only_the_two_scripts_and_no_address(pages):
    text = pages["realistic"].read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1).replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}=' 'sha256-[\w+/]{43}='", rules["script-src"])
    assert "unsafe-eval" not in policy and "http" not in policy
    assert re.fullmatch(r"'nonce-[0-9a-f]{32}'", rules["style-src-elem"])


def test_the_embedded_data_is_the_report(pages, realistic):
    text = pages["realistic"].read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL).group(1)
    packed = base64.b64decode(json.loads(data)["report"])
    assert zlib.decompress(packed).decode() == report_json(realistic)


def test_the_page_depends_on_its_arguments_alone(realistic):
    assert report_html(realistic) == report_html(realistic)


def test_a_page_without_charts_needs_no_chart_library(realistic):
    import dataclasses

    text = report_html(dataclasses.replace(realistic, results=[]))
    assert len(text) < 200_000
    assert 'class="plot"' not in text


def test_reporting_needs_no_torch():
    code = (
        "import sys\n"
        "import autointerp.reporting.html_file, autointerp.reporting.terminal\n"
        "import autointerp.reporting.markdown_file, autointerp.reporting.csv_file\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
